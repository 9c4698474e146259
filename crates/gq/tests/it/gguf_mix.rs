//! `gq convert --format gguf`: a budget spent over block types, rounded with the inputs in view.

use crate::run::{Gq, testdata};
use serde_json::Value;

/// Mean divergence from the demo model.
fn divergence(gq: &Gq, model: &str) -> f64 {
    let (demo, text) = (testdata("demo"), testdata("demo/eval.txt"));
    let how =
        ["--text", &text, "--ctx", "128", "--windows", "4", "--cache-limit", "0", "--activations", "f32"];
    gq.json(&[&["eval", model, "--reference", &demo][..], &how].concat())["kld"]["mean"].as_f64().unwrap()
}

fn bytes(gq: &Gq, file: &str) -> Vec<u8> {
    std::fs::read(gq.dir.path().join(file)).unwrap()
}

#[test]
fn a_calibrated_mix_is_closer_than_nearest_at_the_same_bytes() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let size = 1_900_000;
    let asked = ["convert", &demo, "--format", "gguf", "--size", "1.9MB"];
    let convert = |more: &[&str]| gq.json(&[&asked[..], more].concat());
    let made = convert(&["-o", "mix.gguf", "--keep-measurements"]);
    let written = bytes(&gq, "mix.gguf");
    let said = made["file_bytes"].as_u64().unwrap();
    assert!(said == written.len() as u64 && said <= size && said as f64 >= 0.99 * size as f64, "{made}");
    assert_eq!((&made["seen"]["checked"], &made["uncalibrated"]), (&Value::Bool(true), &Value::Null));
    // It loads, and text falls into the same tokens.
    let tokens = |model: &str| gq.ok(&["run", model, "-p", "It is a fine day", "-n", "1", "--temp", "0"]);
    assert!(!tokens("mix.gguf").is_empty());
    let nearest = convert(&["-o", "nearest.gguf", "--calibration", "none"]);
    assert_eq!(nearest["uncalibrated"], "asked");
    assert!(nearest["file_bytes"].as_u64().unwrap() <= size);
    let (fed, nearest) = (divergence(&gq, "mix.gguf"), divergence(&gq, "nearest.gguf"));
    println!("{fed:.5} {nearest:.5}");
    assert!(fed < 0.8 * nearest, "{fed} {nearest}");
    // The same bytes on one thread and on several, from the measurements that were kept.
    let kept = ["--measurements", "mix.gguf.measurements"];
    for threads in ["1", "2"] {
        let file = format!("again{threads}.gguf");
        gq.ok(&[&["--threads", threads][..], &asked, &kept, &["-o", &file]].concat());
        assert!(bytes(&gq, &file) == written, "on {threads} threads");
    }
    let said = gq.fails(2, &[&asked[..], &kept, &["-o", "mix.gguf"]].concat());
    assert!(said.contains("--force"), "{said}");
}

#[test]
fn what_cannot_be_is_refused_by_name_before_anything_is_measured() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let refused =
        |options: &[&str]| gq.fails(2, &[&["convert", &demo, "-o", "m.gguf"][..], options].concat());
    let said = refused(&["--format", "gguf", "--bits", "4"]);
    assert!(said.contains("--bits is not for --format gguf") && said.contains("--size or --bpw"), "{said}");
    let said = refused(&["--drop-nfc"]);
    assert!(said.contains("--drop-nfc") && said.contains("--format gguf"), "{said}");
    // The budget that is named works.
    for (option, asked) in [("--size", "700kB"), ("--bpw", "1.5")] {
        let said = refused(&["--format", "gguf", option, asked]);
        let works = said.split(" works").next().and_then(|said| said.rsplit(&format!(": {option} ")).next());
        let works = works.unwrap_or_else(|| panic!("{said}"));
        let convert = ["convert", &demo, "--format", "gguf", option, works, "--calibration", "none"];
        let planned = gq.json(&[&convert[..], &["--dry-run"]].concat());
        assert!(planned["file_bytes"].as_u64().is_some(), "{planned}");
        assert!(std::fs::read_dir(gq.dir.path()).unwrap().next().is_none());
    }
}
