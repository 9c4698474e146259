//! Releases: complete, reproducible, taken up after kills, and found out when something is wrong.

use crate::run::{Gq, testdata};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const RECIPE: &str = r#"
name = "demo"
base_model = "someone/demo"
repo = "me/demo-gq"
[card]
license = "apache-2.0"
language = ["no"]
[evaluation]
text = "eval.txt"
ctx = 64
windows = 4
fail_above = ["kld=2"]
[[variant]]
bits = 6
fail_above = ["kld=0.1", "ppl-ratio=1.1"]
[[variant]]
name = "small"
encoding = "tq2-g32"
per_layer_table = "tq2"
"#;

fn folder(recipe: &str) -> Gq {
    let gq = Gq::new();
    std::fs::copy(testdata("demo/eval.txt"), gq.path("eval.txt")).unwrap();
    std::fs::write(gq.path("release.toml"), recipe).unwrap();
    gq
}

fn args<'a>(source: &'a str, out: &'a str) -> Vec<&'a str> {
    vec!["release", source, "--recipe", "release.toml", "-o", out, "--cache", "cache"]
}

/// Digests of a folder's files.
fn digests(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let digest = |entry: std::fs::DirEntry| {
        let bytes = std::fs::read(entry.path()).unwrap();
        (entry.file_name().into_string().unwrap(), Sha256::digest(bytes).to_vec())
    };
    entries.map(digest).collect()
}

#[test]
fn a_release_is_complete_and_the_same_every_time() {
    let gq = folder(RECIPE);
    let demo = testdata("demo");
    let shown = gq.ok(&args(&demo, "out"));
    assert!(shown.contains("demo-tq6.gq") && shown.contains("of 1.1 ok"), "{shown}");
    // The last line counts all the time.
    assert!(shown.lines().last().unwrap().starts_with("out: in "), "{shown}");
    let names: Vec<String> = digests(&gq.path("out")).into_keys().collect();
    let expected = [
        "README.md",
        "SHA256SUMS",
        "demo-small.eval.json",
        "demo-small.gq",
        "demo-small.tensors.json",
        "demo-tq6.eval.json",
        "demo-tq6.gq",
        "demo-tq6.tensors.json",
        "release.json",
        "report.html",
    ];
    assert_eq!(names, expected);
    // Again with other threads and without kept logits: the same bytes.
    gq.ok(&[
        "release",
        &demo,
        "--recipe",
        "release.toml",
        "-o",
        "again",
        "--cache-limit",
        "0",
        "--threads",
        "1",
    ]);
    assert_eq!(digests(&gq.path("out")), digests(&gq.path("again")));
    // Again in the same folder: nothing to do.
    let report = gq.json(&args(&demo, "out"));
    assert_eq!(
        (report["passed"].as_bool(), report["variants"][1]["name"].as_str()),
        (Some(true), Some("small"))
    );

    let card = std::fs::read_to_string(gq.path("out/README.md")).unwrap();
    let (head, body) = card.strip_prefix("---\n").unwrap().split_once("\n---\n").unwrap();
    for line in [
        "base_model: someone/demo",
        "base_model_relation: quantized",
        "library_name: gq",
        "license: apache-2.0",
        "- \"no\"",
        "- quantized",
    ] {
        assert!(head.lines().any(|l| l == line), "{head}");
    }
    let entry = &report["variants"][0];
    let bytes = std::fs::metadata(gq.path("out/demo-tq6.gq")).unwrap().len();
    assert_eq!(entry["bytes"].as_u64(), Some(bytes));
    let row =
        body.lines().find(|line| line.contains("demo-tq6.gq |") || line.contains("(demo-tq6.gq)")).unwrap();
    let ppl = format!("{:.3}", entry["ppl"].as_f64().unwrap());
    let top1 = format!("{:.1} %", 100.0 * entry["top1"].as_f64().unwrap());
    assert!(row.contains(&ppl) && row.contains(&top1), "{row}");
    assert!(body.contains("gq run hf://me/demo-gq/demo-tq6.gq --chat"), "{body}");
    let exported = "gq export hf://me/demo-gq/demo-tq6.gq --gguf --type Q8_0 --ollama -o demo-tq6.gguf\n\
                    llama-cli -m demo-tq6.gguf -p 'Why is the sky blue?'\nollama create demo-tq6 -f demo-tq6.Modelfile && ollama run demo-tq6";
    assert!(body.contains(exported), "{body}");
    // The lines do what they say.
    let line = exported.lines().next().unwrap().replace("hf://me/demo-gq/", "out/");
    let arguments: Vec<&str> = line.split(' ').skip(1).collect();
    gq.ok(&arguments);
    assert!(gq.path("demo-tq6.gguf").exists() && gq.path("demo-tq6.Modelfile").exists());
    let page = std::fs::read_to_string(gq.path("out/report.html")).unwrap();
    for part in ["Size against divergence", "Along the window", "Error of single tensors", "demo-small.gq"] {
        assert!(page.contains(part), "{part}");
    }
    // No machine in it.
    for name in names.iter().filter(|name| !name.ends_with(".gq")) {
        let text = std::fs::read_to_string(gq.path("out").join(name)).unwrap();
        assert!(!text.contains(gq.dir.path().to_str().unwrap()), "{name}");
    }
    let verified = gq.json(&["verify", "out"]);
    assert_eq!((verified["ok"].as_bool(), verified["files"].as_u64()), (Some(true), Some(9)));
}

#[test]
fn its_models_are_those_of_single_conversions_in_one_pass() {
    let gq = folder(RECIPE);
    let demo = testdata("demo");
    let notes = gq.run(&args(&demo, "out")).stderr;
    let notes = String::from_utf8(notes).unwrap();
    assert!(notes.contains("one pass over the source for demo-tq6.gq, demo-small.gq"), "{notes}");
    gq.ok(&["convert", &demo, "-o", "a.gq", "--bits", "6"]);
    gq.ok(&["convert", &demo, "-o", "b.gq", "--encoding", "tq2-g32", "--per-layer-table", "tq2"]);
    for (release, single) in [("out/demo-tq6.gq", "a.gq"), ("out/demo-small.gq", "b.gq")] {
        assert!(std::fs::read(gq.path(release)).unwrap() == std::fs::read(gq.path(single)).unwrap());
    }
}

#[test]
fn killed_at_twenty_moments_it_finishes_with_the_same_bytes() {
    let gq = folder(RECIPE);
    let demo = testdata("demo");
    let started = std::time::Instant::now();
    gq.ok(&args(&demo, "whole"));
    let whole = started.elapsed().as_millis() as u64;
    let arguments = args(&demo, "out");
    let (mut random, mut kills) = (7u64, 0);
    for _ in 0..20 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let mut command = gq.command();
        command.args(&arguments).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        // Short enough that not everything is done after a few.
        std::thread::sleep(Duration::from_millis((random >> 33) % (whole / 4).max(10)));
        kills += u64::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
    }
    gq.ok(&arguments);
    assert!(kills >= 3, "only {kills} kills hit a running release");
    assert_eq!(digests(&gq.path("whole")), digests(&gq.path("out")));
    gq.ok(&["verify", "out"]);
}

#[test]
fn an_exceeded_limit_is_exit_code_1_and_everything_is_there() {
    let gq = folder(&RECIPE.replace("kld=0.1", "kld=0.0000001"));
    let demo = testdata("demo");
    for _ in 0..2 {
        let told = gq.fails(1, &args(&demo, "out"));
        assert!(told.contains("demo-tq6.gq: kld is 0.") && told.contains("the limit is 0.0000001"), "{told}");
    }
    let shown = gq.ok(&["verify", "out"]);
    assert!(shown.contains("a limit of its recipe is exceeded"), "{shown}");
    let document = gq.run(&[&args(&demo, "out")[..], &["--json"]].concat());
    let document: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["passed"], false);
}

#[test]
fn whatever_is_changed_is_found_out() {
    let gq = folder(RECIPE);
    let demo = testdata("demo");
    gq.ok(&args(&demo, "out"));
    let sums = std::fs::read_to_string(gq.path("out/SHA256SUMS")).unwrap();
    let sum = |name: &str| {
        let bytes = std::fs::read(gq.path("out").join(name)).unwrap();
        Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()
    };
    // One byte of every file.
    for name in digests(&gq.path("out")).into_keys().filter(|name| name != "SHA256SUMS") {
        let path = gq.path("out").join(&name);
        let bytes = std::fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        let at = changed.len() / 2;
        changed[at] ^= 1;
        std::fs::write(&path, changed).unwrap();
        let told = gq.fails(1, &["verify", "out"]);
        assert!(told.contains(&name) && told.contains("SHA256SUMS says"), "{told}");
        std::fs::write(&path, bytes).unwrap();
    }
    // A figure that is changed together with its checksum.
    for (name, from, to) in [
        ("release.json", "\"passed\": true", "\"passed\": false"),
        ("demo-tq6.tensors.json", "\"role\": \"norm\"", "\"role\": \"Norm\""),
        ("demo-tq6.eval.json", "\"top1\": 0.", "\"top1\": 0.0"),
    ] {
        let path = gq.path("out").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let before = sum(name);
        assert!(text.contains(from), "{name}");
        std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
        std::fs::write(gq.path("out/SHA256SUMS"), sums.replace(&before, &sum(name))).unwrap();
        gq.fails(1, &["verify", "out"]);
        std::fs::write(&path, text).unwrap();
        std::fs::write(gq.path("out/SHA256SUMS"), &sums).unwrap();
    }
    std::fs::write(gq.path("out/extra.txt"), "x").unwrap();
    assert!(gq.fails(1, &["verify", "out"]).contains("extra.txt: it is not in SHA256SUMS"));
    std::fs::remove_file(gq.path("out/extra.txt")).unwrap();
    std::fs::remove_file(gq.path("out/demo-small.gq")).unwrap();
    assert!(gq.fails(1, &["verify", "out"]).contains("demo-small.gq: it is missing"));
    assert!(gq.fails(3, &["verify", "cache"]).contains("neither a .gq file nor a release"));
}

#[test]
fn another_recipe_does_not_mix_with_what_is_there() {
    let gq = folder(RECIPE);
    let demo = testdata("demo");
    gq.ok(&args(&demo, "out"));
    std::fs::write(gq.path("release.toml"), RECIPE.replace("bits = 6", "bits = 5")).unwrap();
    let told = gq.fails(2, &args(&demo, "out"));
    assert!(told.contains("another variants") && told.contains("--restart"), "{told}");
    gq.ok(&[&args(&demo, "out")[..], &["--restart"]].concat());
    let names: Vec<String> = digests(&gq.path("out")).into_keys().collect();
    assert!(
        names.contains(&"demo-tq5.gq".to_owned()) && !names.contains(&"demo-tq6.gq".to_owned()),
        "{names:?}"
    );
    gq.ok(&["verify", "out"]);
    std::fs::create_dir(gq.path("mine")).unwrap();
    std::fs::write(gq.path("mine/thesis.txt"), "x").unwrap();
    let told = gq.fails(2, &args(&demo, "mine"));
    assert!(told.contains("not empty"), "{told}");
    for (recipe, message) in [
        (RECIPE.replace("ctx = 64", "ctx = 64\nctxx = 1"), "release.toml: line 11: unknown field `ctxx`"),
        (RECIPE.replace("base_model = \"someone/demo\"\n", ""), "base_model is missing"),
        (RECIPE.replace("license = \"apache-2.0\"\n", ""), "card.license is missing"),
    ] {
        std::fs::write(gq.path("release.toml"), recipe).unwrap();
        let told = gq.fails(3, &args(&demo, "new"));
        assert!(told.contains(message) && told.contains("docs/RELEASE.md"), "{told}");
    }
    assert!(!gq.path("new").exists());
}

#[test]
fn adapters_are_part_of_a_release() {
    let adapter = testdata("lora/demo");
    let recipe = RECIPE.replace("[card]", &format!("[[lora]]\npath = {adapter:?}\nweight = 0.5\n[card]"));
    let gq = folder(&recipe);
    gq.ok(&args(&testdata("demo"), "out"));
    let manifest = std::fs::read_to_string(gq.path("out/release.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["inputs"]["adapters"][0]["weight"], 0.5);
    assert!(manifest["variants"][0]["kld"].as_f64().unwrap() < 0.05, "measured against the merged model");
    let card = std::fs::read_to_string(gq.path("out/README.md")).unwrap();
    assert!(card.contains("`demo` (weight 0.5)") && card.contains("- lora\n"), "{card}");
}

#[test]
fn measurements_are_part_of_a_release() {
    let recipe = RECIPE
        .replace("[card]", "measurements = \"demo.measurements\"\n[card]")
        .replace("bits = 6", "bpw = 3.5");
    let gq = folder(&recipe);
    let demo = testdata("demo");
    let text = testdata("demo/eval.txt");
    let small = ["--calibration-tokens", "512", "--calibration-ctx", "128", "--gradient-tokens", "256"];
    gq.ok(&[&["calibrate", &demo, "-o", "demo.measurements", "--calibration", &text][..], &small].concat());
    gq.ok(&args(&demo, "out"));
    gq.ok(&args(&demo, "again"));
    assert_eq!(digests(&gq.path("out")), digests(&gq.path("again")));
    let entry = gq.json(&args(&demo, "out"))["variants"][0].clone();
    assert_eq!(entry["file"], "demo-3.5bpw.gq");
    assert!((3.0..=3.501).contains(&entry["body_bits"].as_f64().unwrap()), "{entry}");
    gq.ok(&["verify", "out"]);
    // Measurements of the model alone do not fit the model with an adapter.
    let adapter = testdata("lora/demo");
    std::fs::write(
        gq.path("release.toml"),
        recipe.replace("[card]", &format!("[[lora]]\npath = {adapter:?}\n[card]")),
    )
    .unwrap();
    let told = gq.fails(3, &args(&demo, "merged"));
    assert!(told.contains("measured on another checkpoint") && told.contains("adapter demo"), "{told}");
    gq.ok(&[
        &[
            "calibrate",
            &demo,
            "-o",
            "demo.measurements",
            "--force",
            "--calibration",
            &text,
            "--lora",
            &adapter,
        ][..],
        &small,
    ]
    .concat());
    gq.ok(&args(&demo, "merged"));
}
