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

#[test]
fn types_are_those_of_a_mix_of_llama_quantize() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let convert = ["convert", &demo, "--format", "gguf", "--calibration", "none"];
    let made = gq.json(&[&convert[..], &["--like", "q4_k_m"]].concat());
    assert!(made["output"].as_str().unwrap().ends_with("-Q4_K_M-uncalibrated.gguf"), "{made}");
    let kinds = |role: &str| -> Vec<String> {
        let types = made["types"].as_array().unwrap().iter().filter(|kind| kind["role"] == role);
        types.map(|kind| kind["type"].as_str().unwrap().to_owned()).collect()
    };
    // Widths of 192, 352 and 128 have no blocks of 256: what llama-quantize falls back to.
    assert_eq!((kinds("gate"), kinds("query")), (vec!["Q5_0".to_owned()], vec!["Q5_0".to_owned()]));
    assert_eq!(kinds("down"), ["Q5_0", "Q8_0"]);
    assert_eq!(kinds("embedding"), ["Q8_0"]);
    for (option, value) in [("--size", "2MB"), ("--bpw", "4")] {
        let said = gq.fails(2, &[&convert[..], &["--like", "Q4_K_M", option, value]].concat());
        assert!(said.contains("--like") && said.contains(option), "{said}");
    }
    let said = gq.fails(2, &[&convert[..], &["--like", "IQ2_M"]].concat());
    assert!(said.contains("Q2_K"), "{said}");
    let said = gq.fails(2, &["convert", &demo, "--like", "Q4_K_M"]);
    assert!(said.contains("--like is for --format gguf"), "{said}");
}

#[test]
fn an_importance_matrix_is_written_and_rounded_by() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let calibrate = ["calibrate", &demo, "-o", "m", "--calibration-tokens", "4096", "--trial-tokens", "0"];
    let calibrate = [&calibrate[..], &["--gradient-tokens", "0", "--imatrix"]].concat();
    gq.ok(&calibrate);
    let first = bytes(&gq, "m/imatrix.gguf");
    assert!(!first.is_empty());
    // Of measurements that are finished it is made at once.
    std::fs::remove_file(gq.path("m/imatrix.gguf")).unwrap();
    assert!(gq.json(&calibrate)["file_bytes"] == first.len());
    assert!(bytes(&gq, "m/imatrix.gguf") == first);

    let convert = ["convert", &demo, "--format", "gguf", "--like", "Q4_0"];
    let made = gq.json(&[&convert[..], &["--imatrix", "m/imatrix.gguf", "-o", "by.gguf"]].concat());
    assert_eq!(made["uncalibrated"], "importance matrix");
    gq.ok(&[&convert[..], &["--calibration", "none", "-o", "plain.gguf"]].concat());
    let (by, plain) = (divergence(&gq, "by.gguf"), divergence(&gq, "plain.gguf"));
    // Inputs of this model's columns are much alike: other codes, as close.
    assert!(bytes(&gq, "by.gguf") != bytes(&gq, "plain.gguf") && by < 1.1 * plain, "{by} {plain}");
    // Of other models, of other kinds of files, and where it says nothing.
    let other = testdata("tiny/llama");
    let tiny = ["convert", &other, "--format", "gguf", "--imatrix", "m/imatrix.gguf", "-o", "o.gguf"];
    assert!(gq.fails(3, &tiny).contains("another model"));
    let said = gq.fails(3, &[&convert[..], &["--imatrix", "by.gguf", "-o", "o.gguf"]].concat());
    assert!(said.contains("imatrix"), "{said}");
    for options in
        [&["--gradient-tokens", "8"][..], &["--trial-tokens", "8"], &["--restart"], &["--keep-measurements"]]
    {
        let by = [&convert[..], &["--imatrix", "m/imatrix.gguf", "-o", "o.gguf"], options].concat();
        let said = gq.fails(2, &by);
        assert!(said.contains(options[0]) && said.contains("--imatrix"), "{said}");
    }
    let said = gq.fails(2, &["convert", &demo, "--imatrix", "m/imatrix.gguf", "-o", "o.gq"]);
    assert!(said.contains("--imatrix is for --format gguf and compressed-tensors"), "{said}");
}

/// Types are chosen by some rows; what another row shows not to hold it gets a wider one, and the budget is spent again.
#[test]
fn a_type_that_does_not_hold_a_tensor_is_widened_within_the_budget() {
    let (gq, demo) = (Gq::new(), testdata("demo"));
    let dir = gq.path("wide");
    std::fs::create_dir(&dir).unwrap();
    for entry in std::fs::read_dir(&demo).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
    }
    let checkpoint = gq_checkpoint::Checkpoint::open(&demo).unwrap();
    let down = "model.layers.2.mlp.down_proj.weight";
    let tensor = checkpoint.tensor(down).unwrap();
    let mut weights = std::fs::read(dir.join("model.safetensors")).unwrap();
    // Of 192 rows every sixth is tried, so not the second.
    let row = &mut weights[tensor.offset as usize + tensor.row_bytes()..][..tensor.row_bytes()];
    let [_, _, low, high] = 1e8f32.to_le_bytes();
    row.as_chunks_mut::<2>().0.iter_mut().for_each(|value| *value = [low, high]);
    std::fs::write(dir.join("model.safetensors"), weights).unwrap();
    let convert = ["convert", "wide", "--format", "gguf", "--calibration", "none", "--no-check"];
    for budget in [["--size", "2.2MB"], ["--like", "Q8_0"]] {
        let made = gq.json(&[&convert[..], &budget, &["-o", "m.gguf", "--force"]].concat());
        let widened = made["widened"].as_array().unwrap();
        assert!(widened.len() == 1 && widened[0]["tensor"] == down, "{made}");
        assert!(widened[0]["type"] == "BF16" || widened[0]["type"] == "F32", "{made}");
        let size = bytes(&gq, "m.gguf").len();
        assert!(made["file_bytes"] == size && (budget[0] == "--like" || size <= 2_200_000), "{made}");
    }
}
