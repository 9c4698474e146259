//! Mistral and Ministral 3 through conversion and GGUF.

use crate::adapters::{read, write};
use crate::run::{Gq, testdata};
use serde_json::json;

/// Largest error of the logits, by the reference of a tiny checkpoint.
fn error(gq: &Gq, model: &str, of: &str) -> f64 {
    let outputs = format!("{}/reference.safetensors", testdata(of));
    let report = gq.json(&["eval", model, "--reference", &outputs, "--activations", "f32"]);
    report["logits"]["max_abs_error"].as_f64().unwrap()
}

#[test]
fn queries_that_grow_go_to_a_gguf_and_back() {
    let gq = Gq::new();
    let (source, exact) = (testdata("tiny/ministral3"), ["--encoding", "exact", "--embedding", "exact"]);
    gq.ok(&[&["convert", &source, "-o", "exact.gq"][..], &exact].concat());
    gq.ok(&["export", "exact.gq", "--gguf", "--type", "F32", "--no-measure", "-o", "m.gguf"]);
    gq.ok(&[&["convert", "m.gguf", "-o", "back.gq"][..], &exact].concat());
    for file in ["exact.gq", "m.gguf", "back.gq"] {
        assert!(error(&gq, file, "tiny/ministral3") < 1e-4, "{file}");
    }
    let shown = gq.json(&["inspect", "m.gguf"]).to_string();
    assert!(shown.contains("\"family\":\"Mistral3\""), "{shown}");
}

/// A copy of a tiny checkpoint in a folder, with its configuration changed.
fn copied(gq: &Gq, name: &str, to: &str, change: impl Fn(&mut serde_json::Value)) {
    let copy = gq.path(to);
    std::fs::create_dir(&copy).unwrap();
    for entry in std::fs::read_dir(testdata(name)).unwrap().map(|entry| entry.unwrap()) {
        let file = entry.file_name();
        if !file.to_string_lossy().starts_with("reference") {
            std::fs::copy(entry.path(), copy.join(file)).unwrap();
        }
    }
    let mut config = read(&copy.join("config.json"));
    change(&mut config);
    write(&copy.join("config.json"), &config);
}

#[test]
fn a_window_that_a_gguf_has_no_place_for_is_refused() {
    let gq = Gq::new();
    let source = testdata("tiny/mistral");
    let shown = gq.fails(3, &["export", &source, "--gguf", "--no-measure", "-o", "m.gguf"]);
    assert!(shown.contains("sliding_window") && shown.contains("has no windows"), "{shown}");
    copied(&gq, "tiny/mistral", "full", |config| config["sliding_window"] = json!(null));
    gq.ok(&["export", "full", "--gguf", "--type", "F32", "--no-measure", "-o", "m.gguf"]);
    // Files with vision towers have the text part in a wrapper.
    copied(&gq, "tiny/mistral", "wrapped", |config| {
        let text = config.clone();
        *config = json!({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
            "text_config": text, "vision_config": {}, "image_token_index": 10, "tie_word_embeddings": false});
    });
    assert!(error(&gq, "wrapped", "tiny/mistral") < 1e-4);
}
