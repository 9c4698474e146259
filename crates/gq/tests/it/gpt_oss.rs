//! GPT-OSS through every command that reads or writes weights: its experts are kept as they are stored.

use crate::adapters::tensors;
use crate::run::{Gq, testdata};

fn source() -> String {
    testdata("tiny/gpt-oss")
}

/// Largest error of the logits, by the reference of a tiny checkpoint.
fn error(gq: &Gq, model: &str, of: &str) -> f64 {
    let outputs = format!("{}/reference.safetensors", testdata(of));
    let report = gq.json(&["eval", model, "--reference", &outputs, "--activations", "f32"]);
    report["logits"]["max_abs_error"].as_f64().unwrap()
}

/// Encodings of the experts of a file.
fn of_experts(gq: &Gq, file: &str) -> Vec<String> {
    let shown = gq.json(&["inspect", file, "--tensors"]);
    let tensors = shown["tensors"].as_array().unwrap().iter();
    let experts = tensors.filter(|t| {
        let name = t["name"].as_str().unwrap();
        name.ends_with("experts.gate_up_proj") || name.ends_with("experts.down_proj")
    });
    experts.map(|tensor| tensor["encoding"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn experts_stay_as_they_are_stored_and_nothing_is_lost() {
    let gq = Gq::new();
    let kept =
        ["--encoding", "grid", "--embedding", "exact", "--head", "exact", "--override", "self_attn=exact"];
    gq.ok(&[&["convert", &source(), "-o", "kept.gq"][..], &kept].concat());
    assert_eq!(of_experts(&gq, "kept.gq"), vec!["mxfp4"; 6]);
    assert!(error(&gq, "kept.gq", "tiny/gpt-oss") < 1e-4);
    let provenance = gq.json(&["inspect", "kept.gq"]).to_string();
    assert!(provenance.contains("MXFP4 x "), "{provenance}");
    // By bits, as a matter of course.
    gq.ok(&["convert", &source(), "-o", "m.gq", "--bpw", "4.25", "--calibration", "none"]);
    assert_eq!(of_experts(&gq, "m.gq"), vec!["mxfp4"; 6]);
}

#[test]
fn experts_are_rounded_again_when_that_is_asked_for_alone() {
    let gq = Gq::new();
    let asked = ["convert", &source(), "-o", "m.gq", "--bits", "3"];
    let shown = gq.fails(2, &asked);
    assert!(
        shown.contains("stored as mxfp4 in the source") && shown.contains("--allow-requantize"),
        "{shown}"
    );
    let shown = gq.fails(2, &["plan", &source(), "--bits", "3"]);
    assert!(shown.contains("stored as mxfp4"), "{shown}");
    gq.ok(&[&asked[..], &["--allow-requantize"]].concat());
    assert!(of_experts(&gq, "m.gq").iter().all(|encoding| encoding != "mxfp4"));
}

#[test]
fn a_gguf_has_the_blocks_and_a_resave_the_transposed_matrices() {
    let gq = Gq::new();
    gq.ok(&["export", &source(), "--gguf", "--no-measure", "-o", "m.gguf"]);
    assert!(error(&gq, "m.gguf", "tiny/gpt-oss") < 5e-2, "f16 next to the blocks");
    let exact = ["--encoding", "exact", "--embedding", "exact", "--head", "exact"];
    let resaved = testdata("tiny/gpt-oss-resaved");
    gq.ok(&[&["convert", &resaved, "-o", "exact.gq"][..], &exact].concat());
    assert!(error(&gq, "exact.gq", "tiny/gpt-oss-resaved") < 1e-4);
    for from in [resaved.as_str(), "exact.gq"] {
        gq.ok(&["export", from, "--safetensors", "--no-measure", "-o", "folder"]);
        let mut there = tensors(&gq.path("folder/model.safetensors"));
        let mut expected = tensors(format!("{resaved}/model.safetensors").as_ref());
        there.sort();
        expected.sort();
        assert!(there == expected, "the same names, shapes and values");
        std::fs::remove_dir_all(gq.path("folder")).unwrap();
    }
    // The gate of another model than those that llama.cpp knows.
    let shown = gq.fails(3, &["export", &resaved, "--gguf", "--no-measure", "-o", "other.gguf"]);
    assert!(shown.contains("swiglu_limit"), "{shown}");
}
