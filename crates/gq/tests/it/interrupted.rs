//! Ctrl-C of the commands that write: what is said of what is left, the exit code, and that it is true.
#![cfg(target_os = "linux")]

use crate::checkpoints::{Shape, write_llama};
use crate::live::{interrupt, is_mapped, names, shown, started, until};
use crate::run::{Gq, testdata};
use crate::server::{LoopbackHub, noise};
use std::fs;
use std::process::Stdio;
use std::time::Duration;

const SLOW: [&str; 4] = ["--threads", "1", "--isa", "scalar"];

#[test]
fn an_export_that_is_measured_is_finished() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    for (kind, out) in [("--gguf", "m.gguf"), ("--safetensors", "m")] {
        let args =
            [&["export", &demo, kind, "-o", out, "--text", &text, "--windows", "40"][..], &SLOW].concat();
        let mut child = started(&gq, &args);
        assert!(until(&mut child, || gq.path(out).exists()), "it was over before it could be interrupted");
        let code = interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(&format!("interrupted: {out}")) && said.contains("is finished"), "{said}");
        let how = format!("`gq eval {out} --reference {demo} --text FILE` does that");
        assert!(said.contains("only what it costs was not measured") && said.contains(&how), "{said}");
        assert!(!said.contains("again:"), "{said}");
        // It is true.
        gq.ok(&["eval", out, "--reference", &demo, "--text", &text, "--windows", "1"]);
    }
    assert_eq!(names(gq.dir.path()), ["m", "m.gguf"]);
}

#[test]
fn an_export_that_is_written_begins_again_and_leaves_nothing() {
    let gq = Gq::new();
    write_llama(&gq.path("model"), Shape { hidden: 512, width: 1024, layers: 6, vocab: 8192 }, |x| x);
    for (kind, out, more) in
        [("--gguf", "m.gguf", &["--type", "Q4_K"][..]), ("--safetensors", "m", &["--max-shard-size", "1MB"])]
    {
        fs::write(gq.path("old"), "old").unwrap();
        let args = [&["export", "model", kind, "-o", out, "--no-measure"][..], &SLOW, more].concat();
        let begun = [".unchecked.partial", ".unchecked"].map(|end| gq.path(&format!("{out}{end}")));
        let mut child = started(&gq, &args);
        assert!(
            until(&mut child, || begun.iter().any(|path| path.exists())),
            "it was over before it could be interrupted"
        );
        let code = interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let expected = format!("model is as it was; the same command begins again: gq {}", args.join(" "));
        assert!(said.contains(&expected), "{said}");
        assert_eq!(names(gq.dir.path()), ["model", "old"]);
        assert_eq!(names(&gq.path("model")), ["config.json", "model.safetensors"]);
    }
}

#[test]
fn a_file_that_is_improved_is_as_it_was() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    gq.ok(&["convert", &demo, "-o", "m.gq", "-e", "tq3", "--no-grid"]);
    let before = fs::read(gq.path("m.gq")).unwrap();
    for more in [&[][..], &["-o", "new.gq"]] {
        let args = ["improve", "--scales", "m.gq", "--reference", &demo, "--calibration", &text];
        let args = [&args[..], &SLOW, more].concat();
        let mut child = started(&gq, &args);
        let mapped = is_mapped(&child, &gq.path("m.gq"));
        assert!(until(&mut child, mapped), "it was over before it could be interrupted");
        let code = interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        let expected = format!("m.gq is as it was; the same command begins again: gq {}", args.join(" "));
        assert!(said.contains(&expected), "{said}");
        assert_eq!(names(gq.dir.path()), ["m.gq"]);
        assert_eq!(fs::read(gq.path("m.gq")).unwrap(), before);
    }
}

/// Interrupted in each of its stages, a measurement says what is kept, and gives the bytes of one that was not.
#[test]
fn a_measurement_goes_on_and_gives_the_same_bytes() {
    let gq = Gq::new();
    // In the folder of the checkpoint itself: what gq made there is no part of it.
    fs::create_dir(gq.path("model")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(testdata(&format!("demo/{name}")), gq.path("model").join(name)).unwrap();
    }
    let text = testdata("demo/eval.txt");
    let fast = ["--calibration-ctx", "128", "--calibration-tokens", "4096", "--gradient-tokens", "1024"];
    let options = [&["--calibration", &text][..], &fast, &["--threads", "1"]].concat();
    gq.ok(&[&["calibrate", "model", "-o", "whole"][..], &options].concat());
    let args = [&["calibrate", ".", "-o", "t"][..], &options].concat();
    let command = || {
        let mut command = gq.command();
        command.current_dir(gq.path("model")).args(&args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let there = |name: &str| gq.path(&format!("model/t/{name}")).exists();
    // What it waits for, and what is said to be left then.
    let stages: [(&dyn Fn() -> bool, &str); 4] = [
        (&|| gq.path("model/t").exists(), "nothing is kept; the same command begins again"),
        (&|| there("unfinished.json"), "what is done is kept in t ("),
        (&|| there("moments-0003-000.safetensors"), "what is done is kept in t ("),
        (&|| there("measurements.json"), "what is done is kept in t ("),
    ];
    let taken_up = ["", "", "taking up an interrupted measurement", "layers are done and only run"];
    for ((reached, kept), taken_up) in stages.into_iter().zip(taken_up) {
        let mut child = command().spawn().unwrap();
        assert!(until(&mut child, reached), "it was over before it could be interrupted");
        let code = interrupt(&child);
        let output = child.wait_with_output().unwrap();
        let said = shown(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(kept) && said.contains(taken_up), "{said}");
        let how = if kept.starts_with("nothing") { "begins again" } else { "continues" };
        assert!(said.contains(&format!("the same command {how}: gq {}", args.join(" "))), "{said}");
        // It is true.
        assert_eq!(gq.path("model/t").exists(), how == "continues", "{said}");
    }
    let resumed = command().output().unwrap();
    assert!(shown(&resumed).contains("adding trials to the measurements in t"), "{}", shown(&resumed));
    assert_eq!(resumed.status.code(), Some(0));
    let files = names(&gq.path("whole"));
    assert_eq!(files, names(&gq.path("model/t")));
    for name in files {
        let read = |dir: &str| fs::read(gq.path(&format!("{dir}/{name}"))).unwrap();
        assert!(read("whole") == read("model/t"), "{name} differs");
    }
}

/// Killed without a word where it cannot say what is kept; another measurement in the same place takes up nothing.
#[test]
fn a_conversion_that_measures_goes_on_and_gives_the_same_bytes() {
    let gq = Gq::new();
    let demo = testdata("demo");
    let fast = ["--calibration-ctx", "128", "--calibration-tokens", "4096", "--trial-tokens", "256"];
    let args = |out: &'static str, bpw: &'static str, gradients: &'static str| {
        let more =
            ["--bpw", bpw, "--gradient-tokens", gradients, "--calibration", "builtin", "--threads", "1"];
        [&["convert", &demo, "-o", out][..], &fast, &more].concat()
    };
    gq.ok(&args("whole.gq", "3", "256"));
    for (out, gradients, more) in
        [("m.gq", "256", &[][..]), ("n.gq", "512", &[]), ("o.gq", "256", &["--restart"])]
    {
        let first = args(out, "3", gradients);
        let taken_up = (gradients, more.len()) == ("256", 0);
        let mut child = started(&gq, &first);
        let moments = gq.path(&format!("{out}.measurements/moments-0002-000.safetensors"));
        assert!(until(&mut child, || moments.exists()), "it was over before it could be killed");
        child.kill().unwrap();
        child.wait().unwrap();
        let resumed = gq.run(&[&args(out, "3", "256")[..], more].concat());
        let said = shown(&resumed);
        assert_eq!(resumed.status.code(), Some(0), "{said}");
        assert_eq!(said.contains("layers are done and only run"), taken_up, "{said}");
        assert!(fs::read(gq.path(out)).unwrap() == fs::read(gq.path("whole.gq")).unwrap(), "{out} differs");
    }
    assert_eq!(names(gq.dir.path()), ["m.gq", "n.gq", "o.gq", "whole.gq"]);
}

#[test]
fn an_evaluation_says_that_nothing_is_kept() {
    let gq = Gq::new();
    let demo = testdata("demo");
    // Long enough that a busy machine sends the signal before the reference's logits are whole.
    fs::write(gq.path("text"), fs::read_to_string(testdata("demo/eval.txt")).unwrap().repeat(8)).unwrap();
    let args = ["eval", &demo, "--reference", &demo, "--text", "text", "--cache", "cache"];
    let args = [&args[..], &SLOW].concat();
    let mut child = started(&gq, &args);
    let logits = |name: &String| name.ends_with(".partial") && !name.starts_with("digests");
    let begun = || gq.path("cache").is_dir() && names(&gq.path("cache")).iter().any(logits);
    assert!(until(&mut child, begun), "it was over before it could be interrupted");
    let code = interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains("nothing is kept but what cache holds; the same command begins again"), "{said}");
    // Digests of files are whole by then, and are what may stay.
    let kept = names(&gq.path("cache"));
    assert!(kept.iter().all(|name| name == "digests.json"), "{kept:?}");
}

#[test]
fn a_release_goes_on() {
    let gq = Gq::new();
    fs::copy(testdata("demo/eval.txt"), gq.path("eval.txt")).unwrap();
    let recipe = "base_model = \"someone/demo\"\n[card]\nlicense = \"mit\"\n[evaluation]\ntext = \"eval.txt\"\n\
                  ctx = 64\nwindows = 2\n[[variant]]\nencoding = \"tt4\"\n[[variant]]\nbits = 3\n";
    fs::write(gq.path("recipe.toml"), recipe).unwrap();
    let demo = testdata("demo");
    let args = ["release", &demo, "--recipe", "recipe.toml", "-o", "out", "--cache", "cache"];
    let args = [&args[..], &SLOW].concat();
    let mut child = started(&gq, &args);
    let begun =
        || gq.path("out").is_dir() && names(&gq.path("out")).iter().any(|name| name.ends_with(".partial"));
    assert!(until(&mut child, begun), "it was over before it could be interrupted");
    let code = interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains("what is done is kept in out/.gq-release ("), "{said}");
    assert!(said.contains(&format!("the same command continues: gq {}", args.join(" "))), "{said}");
    // Nothing looks finished that is not.
    assert!(names(&gq.path("out")).iter().all(|name| !name.ends_with(".gq")), "{:?}", names(&gq.path("out")));
    gq.ok(&args);
    gq.ok(&["verify", "out"]);
    assert!(!gq.path("out/.gq-release").exists());
}

#[test]
fn a_pull_goes_on() {
    let (gq, hub) = (Gq::new(), LoopbackHub::start());
    let large = noise(5, 400_000);
    let config = fs::read(testdata("tiny/llama/config.json")).unwrap();
    assert!(config.len() < 16_384);
    let files = [("config.json", config.clone(), false), ("model.safetensors", large.clone(), true)];
    hub.commit("org/large", "main", &files);
    hub.faults().drip = Some((1000, Duration::from_millis(5)));
    let args = ["pull", "org/large", "--streams", "1", "--chunk", "16384"];
    let command = || {
        let mut command = gq.command();
        command.env("HF_HOME", gq.path("hf")).env("HF_ENDPOINT", hub.endpoint()).args(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let mut child = command().spawn().unwrap();
    assert!(until(&mut child, || hub.served_so_far() > 50_000), "it was over before it could be interrupted");
    let code = interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains("what is done is kept in") && said.contains("models--org--large"), "{said}");
    assert!(said.contains(&format!("the same command continues: gq {}", args.join(" "))), "{said}");
    let snapshots = gq.path("hf/hub/models--org--large/snapshots");
    let there = |name: &str| {
        let commits = fs::read_dir(&snapshots).into_iter().flatten();
        commits.map(|commit| commit.unwrap().path().join(name)).find(|path| path.exists())
    };
    assert_eq!(there("model.safetensors"), None);
    let before = hub.served_bytes();
    assert!(before > 50_000);
    *hub.faults() = Default::default();
    let resumed = command().output().unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", shown(&resumed));
    assert!(fs::read(there("model.safetensors").unwrap()).unwrap() == large);
    // What was fetched before is not fetched again: two whole chunks at least.
    let (again, all) = (hub.served_bytes() - before, large.len() as u64);
    assert!(again <= all - 2 * 16_384 + config.len() as u64, "{again} bytes served again of {all}");
}

#[test]
fn outputs_of_an_evaluation_leave_nothing() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let args = ["eval", &demo, "--reference", &demo, "--text", &text, "--cache-limit", "0"];
    let args = [&args[..], &["--save-outputs", "out.safetensors"], &SLOW].concat();
    let mut child = started(&gq, &args);
    let begun = || !names(gq.dir.path()).is_empty();
    assert!(until(&mut child, begun), "it was over before it could be interrupted");
    let code = interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let said = shown(&output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains("nothing is kept; the same command begins again"), "{said}");
    assert!(names(gq.dir.path()).is_empty(), "{:?}", names(gq.dir.path()));
}

/// A second run of the same command is refused, and neither that nor an interruption of it touches what the first writes.
#[test]
fn a_second_run_leaves_the_first_one_alone() {
    let gq = Gq::new();
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    for (kind, out, held) in [
        ("--gguf", "m.gguf", "m.gguf.unchecked.partial"),
        ("--safetensors", "m", "m.unchecked.partial/.gq-export"),
    ] {
        let held = gq.path(held);
        fs::create_dir_all(held.parent().unwrap()).unwrap();
        fs::write(&held, "of another run").unwrap();
        let other = fs::File::open(&held).unwrap();
        other.lock().unwrap();
        let said = gq.fails(4, &["export", &demo, kind, "-o", out, "--no-measure"]);
        assert!(said.contains("another gq is writing this output"), "{said}");
        assert_eq!(fs::read(&held).unwrap(), b"of another run");
        // What nobody writes any more is begun again.
        drop(other);
        gq.ok(&["export", &demo, kind, "-o", out, "--no-measure"]);
        assert!(gq.path(out).exists() && !held.exists());
    }
    // One that begins to write later than the other is interrupted while it measures.
    gq.ok(&["convert", &demo, "-o", "r.gq", "-e", "tq3", "--no-grid"]);
    let args = [
        &["improve", "--scales", "r.gq", "--reference", &demo, "--calibration", &text, "-o", "new.gq"][..],
        &SLOW,
    ];
    let mut second = started(&gq, &args.concat());
    let mapped = is_mapped(&second, &gq.path("r.gq"));
    assert!(until(&mut second, mapped), "it was over before it could be interrupted");
    let others = ["new.gq.unchecked", "new.gq.unchecked.partial"].map(|name| gq.path(name));
    others.iter().for_each(|path| fs::write(path, "of another run").unwrap());
    let code = interrupt(&second);
    let output = second.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(code), "{}", shown(&output));
    for path in others {
        assert_eq!(fs::read(&path).unwrap(), b"of another run");
    }
}
