//! Mistral and Ministral 3 through conversion and GGUF.

use crate::adapters::{read, save, tensors, write};
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

/// As Mistral Small 3.2 and Devstral are published.
#[test]
fn a_tokenizer_in_mistrals_own_format_is_refused_with_what_to_do() {
    let gq = Gq::new();
    copied(&gq, "tiny/ministral3", "m", |_| ());
    gq.ok(&["inspect", "m"]);
    std::fs::write(gq.path("m/tekken.json"), "{}").unwrap();
    for args in [&["inspect", "m"][..], &["convert", "m", "-o", "m.gq", "--bits", "4"]] {
        let said = gq.fails(3, args);
        assert!(said.contains("tekken.json") && said.contains("convert_tekken_tokenizer"), "{said}");
    }
    gq.ok(&["convert", "m", "-o", "m.gq", "--bits", "4", "--no-check"]);
}

/// The text part's key says nothing: in the reference the wrapper's default ties the head where the file has none.
#[test]
fn a_wrapper_without_a_word_about_its_head_ties_it() {
    let gq = Gq::new();
    // The one has two tensors in its file, which differ; the other has no head.
    for name in ["mistral", "ministral3"] {
        copied(&gq, &format!("tiny/{name}"), name, |config| {
            let mut text = config.clone();
            text["tie_word_embeddings"] = json!(false);
            *config = json!({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
                "text_config": text, "vision_config": {}, "image_token_index": 10});
        });
        assert!(error(&gq, name, &format!("tiny/{name}")) < 1e-4, "{name}");
    }
}

/// As Mistral Small 3 is published, and as transformers 5 saves it again.
#[test]
fn the_tower_of_a_wrapper_is_carried_along_on_request() {
    let gq = Gq::new();
    for (folder, text, head, tower) in [
        ("published", "language_model.model.", "language_model.lm_head.", ""),
        ("resaved", "model.language_model.", "lm_head.", "model."),
    ] {
        copied(&gq, "tiny/mistral", folder, |config| {
            *config = json!({"architectures": ["Mistral3ForConditionalGeneration"], "model_type": "mistral3",
                "text_config": config.clone(), "vision_config": {}, "image_token_index": 10,
                "tie_word_embeddings": false});
        });
        let path = gq.path(folder).join("model.safetensors");
        let mut list = tensors(&path);
        for (name, ..) in &mut list {
            *name = match name.strip_prefix("model.") {
                Some(rest) => format!("{text}{rest}"),
                None => name.replace("lm_head.", head),
            };
        }
        let bytes =
            |count: usize| (0..2 * count).map(|at| if at % 2 == 0 { at as u8 } else { 0x3F }).collect();
        let towers = [
            ("vision_tower.patch_conv.weight", vec![4, 3, 2, 2]),
            ("vision_tower.transformer.layers.0.attention.q_proj.weight", vec![4, 8]),
            ("vision_tower.ln_pre.weight", vec![4]),
            ("multi_modal_projector.norm.weight", vec![4]),
            ("multi_modal_projector.patch_merger.merging_layer.weight", vec![4, 16]),
            ("multi_modal_projector.linear_1.weight", vec![8, 4]),
        ];
        for (name, shape) in &towers {
            let data = bytes(shape.iter().product());
            list.push((format!("{tower}{name}"), "BF16".to_owned(), shape.clone(), data));
        }
        save(&list, &path);
        let named = |file: &str| -> Vec<(String, String)> {
            let shown = gq.json(&["inspect", file, "--tensors"]);
            let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
            let tensors = shown["tensors"].as_array().unwrap().iter();
            let is_tower = |name: &str| towers.iter().any(|(tower, _)| name.ends_with(tower));
            tensors.map(|t| (text(&t["name"]), text(&t["encoding"]))).filter(|t| is_tower(&t.0)).collect()
        };
        let exact = ["--encoding", "exact", "--embedding", "exact", "--head", "exact"];
        let convert = [&["convert", folder, "-o", "m.gq", "--force"][..], &exact].concat();
        gq.ok(&convert);
        assert_eq!(named("m.gq"), []);
        gq.ok(&[&convert[..], &["--keep-towers"]].concat());
        let kept = named("m.gq");
        assert!(
            kept.len() == towers.len() && kept.iter().all(|(_, encoding)| encoding == "bf16"),
            "{kept:?}"
        );
        assert!(error(&gq, "m.gq", "tiny/mistral") < 1e-4);
    }
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
