//! Experts in place of the MLP: a checkpoint with one matrix for each expert through every command that reads or writes
//! weights.

use crate::adapters::{read, tensors, write};
use crate::run::{Gq, testdata};

const EXPERTS: &str = "model.layers.1.mlp.experts.";

/// Largest error of the logits that the reference has for the tiny checkpoint.
fn error(gq: &Gq, model: &str) -> f64 {
    let outputs = format!("{}/reference.safetensors", testdata("tiny/qwen3-moe"));
    let report = gq.json(&["eval", model, "--reference", &outputs, "--activations", "f32"]);
    report["logits"]["max_abs_error"].as_f64().unwrap()
}

#[test]
fn one_matrix_an_expert_goes_in_and_comes_out() {
    let gq = Gq::new();
    let source = testdata("tiny/qwen3-moe");
    let convert = |from: &str, to: &str| {
        let exact = ["--encoding", "exact", "--embedding", "exact", "--head", "exact"];
        gq.ok(&[&["convert", from, "-o", to][..], &exact].concat());
    };
    convert(&source, "exact.gq");
    assert!(error(&gq, "exact.gq") < 3e-4);
    // As the Hub has them: transformers before 5 and other engines read no others.
    for from in [source.as_str(), "exact.gq"] {
        gq.ok(&["export", from, "--safetensors", "--no-measure", "-o", "folder", "--force"]);
        let mut there = tensors(&gq.path("folder/model.safetensors"));
        let mut expected = Vec::new();
        for file in std::fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            if name.starts_with("model-") {
                expected.extend(tensors(&file));
            }
        }
        there.sort();
        expected.sort();
        assert!(there == expected, "the same names, shapes and values");
        std::fs::remove_dir_all(gq.path("folder")).unwrap();
    }
    gq.ok(&["export", "exact.gq", "--gguf", "--type", "F32", "--no-measure", "-o", "m.gguf"]);
    assert!(error(&gq, "m.gguf") < 3e-4);
    convert("m.gguf", "back.gq");
    assert!(error(&gq, "back.gq") < 3e-4);
    let shown = gq.json(&["inspect", "back.gq", "--tensors"]).to_string();
    assert!(shown.contains(&format!("{EXPERTS}gate_up_proj")) && shown.contains("Qwen3Moe"), "{shown}");
}

#[test]
fn codes_of_experts_stay_close() {
    let gq = Gq::new();
    let source = testdata("tiny/qwen3-moe");
    let outputs = format!("{source}/reference.safetensors");
    for (encoding, limit) in [("tq8", 0.1), ("tt6", 0.5)] {
        gq.ok(&["convert", &source, "-o", "m.gq", "--encoding", encoding, "--no-grid", "--force"]);
        let report = gq.json(&["eval", "m.gq", "--reference", &outputs, "--activations", "f32"]);
        let kld = report["kld"]["mean"].as_f64().unwrap();
        assert!(kld < limit, "{encoding}: {kld}");
    }
}

/// What llama.cpp's graph has no place for is refused by the key that says it.
#[test]
fn graphs_that_a_gguf_has_no_place_for_are_refused() {
    let gq = Gq::new();
    let export = |source: &str| gq.fails(3, &["export", source, "--gguf", "--no-measure", "-o", "m.gguf"]);
    let shown = export(&testdata("tiny/qwen3-moe-mixed"));
    assert!(shown.contains("decoder_sparse_step 1 and no mlp_only_layers"), "{shown}");
    let copy = gq.path("raw");
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(testdata("tiny/qwen3-moe")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
    }
    let mut config = read(&copy.join("config.json"));
    config["norm_topk_prob"] = false.into();
    write(&copy.join("config.json"), &config);
    let shown = export("raw");
    assert!(shown.contains("\"norm_topk_prob\" is \"false\", supported: true"), "{shown}");
}
