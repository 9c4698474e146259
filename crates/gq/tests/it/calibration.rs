//! Measuring, planning and converting by measurements, as a person does it.

use crate::run::{Gq, testdata};

const FAST: [&str; 6] =
    ["--calibration-ctx", "128", "--calibration-tokens", "4096", "--gradient-tokens", "512"];

#[test]
fn measured_once_planned_and_made_at_any_size() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let tuned = gq.json(&[&["calibrate", &demo, "-o", "t", "--calibration", &text][..], &FAST].concat());
    assert!(tuned["measurements"]["tensors"].as_object().unwrap().len() > 40);
    let measure = |file: &str| {
        let options = ["--text", &text, "--ctx", "128", "--windows", "4", "--activations", "f32"];
        let report = gq.json(&[&["eval", file, "--reference", &demo][..], &options].concat());
        report["kld"]["mean"].as_f64().unwrap()
    };
    let plan = gq.json(&["plan", &demo, "--measurements", "t", "--size", "1.6MB"]);
    assert!(plan["expected_divergence"].as_f64().unwrap() > 0.0);
    let made = gq.json(&["convert", &demo, "--measurements", "t", "--size", "1.6MB", "-o", "a.gq"]);
    assert!(made["file_bytes"].as_u64().unwrap() <= 1_600_000);
    // Data-free at more bytes is further away.
    let plain = gq.json(&["convert", &demo, "--bits", "3", "-o", "b.gq"]);
    assert!(plain["file_bytes"].as_u64().unwrap() > made["file_bytes"].as_u64().unwrap());
    let (near, far) = (measure("a.gq"), measure("b.gq"));
    assert!(near < 0.5 * far, "{near} {far}");
    // What a plan is expected to keep, it states.
    let close = gq.json(&["plan", &demo, "--measurements", "t", "--target-kld", "0.002"]);
    assert!(close["expected_divergence"].as_f64().unwrap() <= 0.002);
    // A context as people name it needs what its tokens do, and leaves less for weights than a shorter one.
    let fit = |ctx| {
        let plan = gq.json(&["plan", &demo, "--measurements", "t", "--fit", "117MiB", "--ctx", ctx]);
        plan["payload_bytes"].as_u64().unwrap()
    };
    assert_eq!(fit("1k"), fit("1024"));
    assert!(fit("1k") < fit("1000") && fit("1000") < fit("900"));
    gq.fails(2, &["plan", &demo, "--measurements", "t", "--target-kld", "0.0000001"]);
}

#[test]
fn a_limit_is_kept_by_what_finished_files_measure() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&[&["calibrate", &demo, "-o", "t", "--calibration", &text][..], &FAST].concat());
    let mut last = u64::MAX;
    for limit in ["0.01", "0.04"] {
        let made = gq.json(&[
            "convert",
            &demo,
            "--measurements",
            "t",
            "--target-kld",
            limit,
            "-o",
            "m.gq",
            "--force",
        ]);
        let (kld, most) = (made["measured"]["kld"].as_f64().unwrap(), limit.parse::<f64>().unwrap());
        assert!(kld <= most && kld > 0.75 * most, "{}", made["measured"]);
        // The held-out text is the calibration's: other windows of it agree.
        let options = ["--text", &text, "--ctx", "128", "--windows", "8", "--activations", "f32"];
        let told = gq.json(&[&["eval", "m.gq", "--reference", &demo][..], &options].concat());
        let there = told["kld"]["mean"].as_f64().unwrap();
        assert!(there < 2.0 * most && there > 0.4 * most, "{there} {most}");
        let bytes = made["file_bytes"].as_u64().unwrap();
        assert!(bytes < last);
        last = bytes;
        // The same file every time.
        let first = std::fs::read(gq.path("m.gq")).unwrap();
        let again = [
            "convert",
            &demo,
            "--measurements",
            "t",
            "--target-kld",
            limit,
            "-o",
            "again.gq",
            "--threads",
            "1",
        ];
        gq.ok(&[&again[..], &["--force"]].concat());
        assert!(first == std::fs::read(gq.path("again.gq")).unwrap());
    }
    // Nothing meets it: one sentence, and the file as it was.
    let before = std::fs::read(gq.path("m.gq")).unwrap();
    gq.fails(
        2,
        &["convert", &demo, "--measurements", "t", "--target-kld", "0.0000001", "-o", "m.gq", "--force"],
    );
    assert!(before == std::fs::read(gq.path("m.gq")).unwrap());
    // A limit far above the smallest file's: that one, once.
    let made = gq.json(&[
        "convert",
        &demo,
        "--measurements",
        "t",
        "--target-kld",
        "50",
        "-o",
        "again.gq",
        "--force",
    ]);
    assert_eq!(made["measured"]["files"], 1);
    let again = ["convert", &demo, "--measurements", "t", "--target-kld", "0.04", "-o", "m.gq", "--force"];
    gq.fails(4, &[&again[..], &["--max-memory", "9MB"]].concat());
    let left: Vec<_> = std::fs::read_dir(gq.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
    // Text that was damaged is no reason to do without.
    let text_file = gq.path("t/held_out.safetensors");
    let kept = std::fs::read(&text_file).unwrap();
    std::fs::write(&text_file, &kept[1..]).unwrap();
    gq.fails(3, &again);
    // Measurements that keep no text hold to what is expected.
    let index = gq.path("t/measurements.json");
    let without: Vec<String> = std::fs::read_to_string(&index).unwrap().lines().map(str::to_owned).collect();
    let without: Vec<String> =
        without.into_iter().filter(|line| !line.contains("held_out.safetensors")).collect();
    std::fs::write(&index, without.join("\n")).unwrap();
    let made = gq.json(&again);
    assert!(made["measured"].is_null());
}

#[test]
fn without_gradients_trials_say_where_bytes_go() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let sizes = ["--calibration-ctx", "128", "--calibration-tokens", "4096", "--gradient-tokens", "0"];
    let measurements = [&["calibrate", &demo, "--calibration", &text][..], &sizes].concat();
    let made = gq.json(&[&measurements[..], &["-o", "tried"]].concat());
    assert_eq!(made["measurements"]["gradient_tokens"], 0);
    // A group for every layer of every role: the demo has six.
    let groups = made["measurements"]["corrections"]["groups"].as_array().unwrap();
    assert!(groups.iter().any(|group| group["name"] == "down 6/6"), "{groups:?}");
    let measure = |options: &[&str]| {
        gq.json(&[&["convert", &demo, "--bpw", "3", "-o", "m.gq", "--force"], options].concat());
        let options = ["--text", &text, "--ctx", "128", "--windows", "8", "--activations", "f32"];
        let told = gq.json(&[&["eval", "m.gq", "--reference", &demo][..], &options].concat());
        told["kld"]["mean"].as_f64().unwrap()
    };
    let (tried, untried) =
        (measure(&["--measurements", "tried"]), measure(&["--measurements", "tried", "--no-corrections"]));
    assert!(tried < 0.9 * untried, "{tried} {untried}");
}

#[test]
fn scales_are_tuned_after_rounding() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.json(&["convert", &demo, "--bits", "3", "-o", "a.gq"]);
    let options = ["--reference", &demo, "--calibration", &text, "--calibration-ctx", "64", "--steps", "6"];
    let told = gq.json(&[&["improve", "--scales", "a.gq", "-o", "b.gq"][..], &options].concat());
    assert!(told["rounds"].is_null());
    let (before, after) = (&told["scales"]["held_out"]["before"], &told["scales"]["held_out"]["after"]);
    assert!(after.as_f64().unwrap() < 0.985 * before.as_f64().unwrap(), "{told}");
    gq.json(&["verify", "b.gq"]);
    assert!(gq.json(&["inspect", "b.gq"]).to_string().contains("scales_tuned"));
    // In place, from the same start: the same bytes.
    gq.json(&[&["improve", "--scales", "a.gq"][..], &options].concat());
    assert_eq!(std::fs::read(gq.path("a.gq")).unwrap(), std::fs::read(gq.path("b.gq")).unwrap());
    gq.fails(2, &[&["improve", "--scales", "a.gq", "--rate", "7"][..], &options].concat());
    let llama = testdata("tiny/llama");
    gq.fails(3, &["improve", "--scales", "a.gq", "--reference", &llama, "--calibration", &text]);
}

#[test]
fn layers_are_rounded_again_behind_rounded_layers() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.json(&["convert", &demo, "--bits", "3", "-o", "a.gq"]);
    let sizes = ["--calibration-ctx", "64", "--calibration-tokens", "1664"];
    let options = [&["--reference", &demo, "--calibration", &text][..], &sizes].concat();
    let told = gq.json(&[&["improve", "--rounds", "a.gq", "-o", "b.gq"][..], &options].concat());
    assert!(told["scales"].is_null());
    let (before, after) = (&told["rounds"]["held_out"]["before"], &told["rounds"]["held_out"]["after"]);
    assert!(after.as_f64().unwrap() < 0.9 * before.as_f64().unwrap(), "{told}");
    gq.json(&["verify", "b.gq"]);
    assert!(gq.json(&["inspect", "b.gq"]).to_string().contains("rounded_again"));
    // What gets no closer is left in place, and is copied whole to another.
    let again = [&["improve", "--rounds", "b.gq"][..], &options].concat();
    let left = (0..6).find(|_| gq.json(&again)["helped"] == false);
    assert!(left.is_some(), "every further rounding helped");
    gq.json(&["verify", "b.gq"]);
    let told = gq.json(&[&["improve", "--rounds", "b.gq", "-o", "c.gq"][..], &options].concat());
    assert_eq!(told["helped"], false);
    let read = |name: &str| std::fs::read(gq.path(name)).unwrap();
    assert!(read("b.gq") == read("c.gq"));
    let llama = testdata("tiny/llama");
    // Before anything is said of what it takes.
    let told = gq.fails(3, &["improve", "--rounds", "a.gq", "--reference", &llama, "--calibration", &text]);
    assert!(told.contains("made from another source") && !told.contains(" takes "), "{told}");
    gq.fails(4, &[&["improve", "--rounds", "a.gq", "--max-memory", "1MB"][..], &options].concat());
}

/// By default both: the same file as one after the other.
#[test]
fn a_file_is_improved_by_both_steps_in_order() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.json(&["convert", &demo, "--bits", "3", "-o", "a.gq"]);
    let common = ["--reference", &demo, "--calibration", &text, "--calibration-ctx", "64"];
    let (of_rounds, of_scales) = (["--calibration-tokens", "1664"], ["--steps", "6"]);
    let told =
        gq.json(&[&["improve", "a.gq", "-o", "both.gq"][..], &common, &of_rounds, &of_scales].concat());
    let measured = |step: &str, when: &str| told[step]["held_out"][when].as_f64().unwrap();
    assert!(measured("rounds", "after") < measured("rounds", "before"), "{told}");
    assert!(measured("scales", "after") < measured("scales", "before"), "{told}");
    let provenance = gq.json(&["inspect", "both.gq"])["provenance"].clone();
    assert!(
        provenance["rounded_again"].is_object() && provenance["scales_tuned"].is_object(),
        "{provenance}"
    );
    gq.json(&[&["improve", "--rounds", "a.gq", "-o", "b.gq"][..], &common, &of_rounds].concat());
    gq.json(&[&["improve", "--scales", "b.gq"][..], &common, &of_scales].concat());
    let read = |name: &str| std::fs::read(gq.path(name)).unwrap();
    assert!(read("both.gq") == read("b.gq"));
    // Both steps named are both steps; an option of a step that is left out is refused, and so is no text.
    let named = ["improve", "--rounds", "--scales", "a.gq", "-o", "named.gq"];
    gq.json(&[&named[..], &common, &of_rounds, &of_scales].concat());
    assert!(read("both.gq") == read("named.gq"));
    for (step, option, value) in [("--rounds", "--rate", "0.001"), ("--scales", "--measurements", "t")] {
        let said = gq.fails(2, &[&["improve", step, "a.gq", option, value][..], &common].concat());
        assert!(said.contains(option) && said.contains("is not asked for"), "{said}");
    }
    gq.fails(2, &["improve", "a.gq", "--reference", &demo, "--calibration", "none"]);
}

#[test]
fn in_one_step_and_without_a_corpus() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let convert = ["convert", &demo, "--bpw", "3.5", "-o", "m.gq", "--calibration", "self"];
    let made = gq.json(&[&convert[..], &FAST].concat());
    assert!(made["report"]["body_bits"].as_f64().unwrap() <= 3.5);
    assert!(!gq.path("m.gq.measurements").exists(), "measurements for one conversion go when it is done");
    let inspected = gq.json(&["inspect", "m.gq"]);
    assert!(inspected.to_string().contains("calibration_sha256"));
    let own = gq.json(&["eval", "m.gq", "--reference", &demo, "--self", "--ctx", "128", "--windows", "2"]);
    assert!(own["kld"]["mean"].as_f64().unwrap() < 0.5);
    let digest = |windows: &str| {
        let options = ["--text", &testdata("demo/eval.txt"), "--ctx", "128", "--windows", windows];
        gq.json(&[&["eval", "m.gq", "--reference", &demo][..], &options].concat())["tokens_sha256"].clone()
    };
    assert_eq!(own["tokens_sha256"].as_str().unwrap().len(), 64);
    assert_eq!(digest("2"), digest("2"));
    assert!(digest("2") != digest("1") && digest("2") != own["tokens_sha256"]);
}

#[test]
fn measurements_of_another_format_are_refused_by_that() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&[&["calibrate", &demo, "-o", "t", "--calibration", &text][..], &FAST].concat());
    // What lies there is said once, and how it differs.
    let other = ["calibrate", &demo, "-o", "t", "--calibration", &text, "--gradient-tokens", "256"];
    let told = gq.fails(2, &other);
    assert!(told.contains("holds measurements already, measured with other options"), "{told}");
    assert!(!told.contains("measuring again"), "{told}");
    let llama = testdata("tiny/llama");
    let told = gq.fails(3, &["convert", &llama, "--measurements", "t", "--bpw", "3", "-o", "m.gq"]);
    assert!(told.contains("measured on another checkpoint") && !told.contains("(0 bytes)"), "{told}");
    let index = gq.path("t/measurements.json");
    let old = std::fs::read_to_string(&index).unwrap();
    let format = old.find("\"format\":").unwrap() + 9;
    let end = format + old[format..].find(',').unwrap();
    std::fs::write(&index, format!("{} 2{}", &old[..format], &old[end..])).unwrap();
    let said = gq.fails(3, &["convert", &demo, "--measurements", "t", "--bpw", "3", "-o", "m.gq"]);
    assert!(said.contains("format 2"), "{said}");
}

/// 3 layers of 8 experts, width 64.
#[test]
fn moments_of_experts_are_promised_on_the_disk() {
    let gq = Gq::new();
    let moe = testdata("tiny/gemma4-moe");
    let saved = |more: &[&str]| {
        gq.json(&[&["calibrate", &moe, "-o", "t", "--dry-run"], more].concat())["saved_bytes"]
            .as_u64()
            .unwrap()
    };
    let (own, layer) = (saved(&[]), saved(&["--expert-moments", "layer"]));
    assert_eq!(own, saved(&["--expert-moments", "own"]));
    assert_eq!(own - layer, 3 * 7 * 4 * 64 * 65);
}

#[test]
fn the_text_that_comes_with_the_program() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let made = |output: &str, more: &[&str]| {
        gq.json(&[&["calibrate", &demo, "-o", output], more, &FAST[..]].concat())
    };
    let (unsaid, named) = (made("a", &[]), made("b", &["--calibration", "builtin"]));
    assert_eq!(unsaid["measurements"], named["measurements"]);
    assert_eq!(
        unsaid["measurements"]["tokens"].as_u64().unwrap()
            + unsaid["measurements"]["held_out_tokens"].as_u64().unwrap(),
        4096
    );
    let digest = unsaid["measurements"]["text_sha256"].as_str().unwrap();
    gq.ok(&["convert", &demo, "--measurements", "a", "--bpw", "3", "-o", "m.gq"]);
    assert!(gq.json(&["inspect", "m.gq"])["provenance"].to_string().contains(digest));
}

#[test]
fn memory_is_promised_and_a_limit_changes_no_bytes() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let measurements = |output: &'static str| {
        [&["calibrate", &demo, "-o", output, "--calibration", &text, "--threads", "2"][..], &FAST].concat()
    };
    let promised = gq.json(&[&measurements("a")[..], &["--dry-run"]].concat());
    let peak = promised["peak_memory_bytes"].as_u64().unwrap();
    assert_eq!(promised["spilled_bytes"], 0);
    assert!(!gq.path("a").exists());
    // A ninth is freed buffers that are kept: a limit does without them first.
    let limit = (peak / 9 * 8 - 9).to_string();
    let tight = ["--max-memory", &limit];
    let spilled = gq.json(&[&measurements("b")[..], &tight, &["--dry-run"]].concat());
    assert!(spilled["peak_memory_bytes"].as_u64().unwrap() < peak);
    assert!(spilled["spilled_bytes"].as_u64().unwrap() > 0);
    gq.fails(4, &[&measurements("b")[..], &["--max-memory", "1MB"]].concat());
    gq.ok(&measurements("a"));
    gq.ok(&[&measurements("b")[..], &tight].concat());
    let mut names: Vec<_> =
        std::fs::read_dir(gq.path("a")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let mut others: Vec<_> =
        std::fs::read_dir(gq.path("b")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    others.sort();
    assert_eq!(names, others);
    for name in names {
        let read = |dir: &str| std::fs::read(gq.path(dir).join(&name)).unwrap();
        assert!(read("a") == read("b"), "{}", name.display());
    }
}

#[test]
fn what_goes_wrong() {
    let gq = Gq::new();
    let (demo, llama) = (testdata("demo"), testdata("tiny/llama"));
    let text = testdata("demo/eval.txt");
    gq.fails(2, &["plan", &demo, "--target-kld", "0.1"]);
    let unmeasured = gq.ok(&["plan", &demo, "--size", "1.6MB", "--calibration", "none"]);
    assert!(unmeasured.contains("not calibrated"), "{unmeasured}");
    gq.fails(3, &["plan", &demo, "--measurements", "nowhere", "--bpw", "3"]);
    std::fs::create_dir(gq.path("empty")).unwrap();
    gq.fails(3, &["calibrate", &demo, "-o", "t", "--calibration", "empty"]);
    std::fs::write(gq.path("latin1.txt"), [b'a', 0xe9, b'b']).unwrap();
    gq.fails(3, &["calibrate", &demo, "-o", "t", "--calibration", "latin1.txt"]);
    std::fs::write(gq.path("short.txt"), "too short").unwrap();
    gq.fails(3, &["calibrate", &demo, "-o", "t", "--calibration", "short.txt"]);
    gq.ok(&[&["calibrate", &demo, "-o", "t", "--calibration", &text][..], &FAST].concat());
    gq.fails(3, &["plan", &llama, "--measurements", "t", "--bpw", "3"]);
    gq.fails(2, &["plan", &demo, "--measurements", "t", "--size", "100kB"]);
    std::fs::write(gq.path("t/measurements.json"), "{").unwrap();
    gq.fails(3, &["plan", &demo, "--measurements", "t", "--bpw", "3"]);
}

/// Names are looked at before weights are: the NaN in these is what a look would find.
#[test]
fn texts_and_measurements_are_looked_at_first() {
    let gq = Gq::new();
    let (nan, demo) = (testdata("malformed/checkpoint/tensor-nan"), testdata("demo"));
    std::fs::write(gq.path("tiny.txt"), "It is a short text.\n").unwrap();
    std::fs::create_dir(gq.path("empty")).unwrap();
    let commands = [&["convert", &nan, "-o", "m.gq"][..], &["plan", &nan], &["calibrate", &nan, "-o", "t"]];
    for command in commands {
        for (option, name, code) in [
            ("--calibration", "none.txt", 3),
            ("--calibration", "empty", 3),
            ("--measurements", "none.measurements", 3),
        ] {
            if (command[0], option) != ("calibrate", "--measurements") {
                let said = gq.fails(code, &[command, &[option, name]].concat());
                assert!(said.contains(name) && !said.contains("NaN"), "{command:?}: {said}");
            }
        }
    }
    for command in [&["convert", &demo, "-o", "m.gq"][..], &["calibrate", &demo, "-o", "t"]] {
        let said = gq.fails(3, &[command, &["--calibration", "tiny.txt"]].concat());
        assert!(said.contains("0 sequences of 512 tokens, at least 2 are needed"), "{said}");
        assert!(said.contains("--calibration-ctx"), "{said}");
        // Before anything else is said.
        assert!(said.starts_with("error:"), "{said}");
    }
    let left = ["m.gq", "m.gq.measurements", "t"].map(|name| gq.path(name).exists());
    assert_eq!(left, [false; 3]);
}
