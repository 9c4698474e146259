//! Layouts that adapters are published in: read, or refused with a true sentence.

use crate::adapters::*;
use crate::run::{Gq, testdata};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// One way to write an adapter: name, changes of configuration and tensors, and what `gq plan` says to it.
type Way = (&'static str, fn(&mut Value), fn(&mut Vec<Tensor>), Option<&'static str>);

#[test]
fn layouts_of_adapters_are_read_or_refused_with_a_true_sentence() {
    let gq = Gq::new();
    let ways: [Way; 14] = [
        ("as it is", |_| {}, |_| {}, None),
        (
            "excluded by a pattern",
            |c| c["exclude_modules"] = r".*layers\.0\..*".into(),
            |t| t.retain(|t| !t.0.contains("layers.0.")),
            None,
        ),
        (
            "excluded by name",
            |c| c["exclude_modules"] = json!(["down_proj"]),
            |t| t.retain(|t| !t.0.contains("down_proj")),
            None,
        ),
        (
            "excluded and there",
            |c| c["exclude_modules"] = json!(["down_proj"]),
            |_| {},
            Some("exclude_modules takes it out"),
        ),
        (
            "adapter's name inside",
            |_| {},
            |t| t.iter_mut().for_each(|t| t.0 = t.0.replace(".weight", ".default.weight")),
            None,
        ),
        (
            "without prefix",
            |_| {},
            |t| t.iter_mut().for_each(|t| t.0 = t.0.replace("base_model.model.", "")),
            None,
        ),
        (
            "prefix twice",
            |_| {},
            |t| t.iter_mut().for_each(|t| t.0 = format!("base_model.model.{}", t.0)),
            None,
        ),
        (
            "a head that all-linear leaves out",
            |c| c["target_modules"] = "all-linear".into(),
            |t| {
                t.push((
                    "base_model.model.lm_head.lora_A.weight".into(),
                    "F32".into(),
                    vec![4, 96],
                    vec![0; 4 * 4 * 96],
                ));
                t.push((
                    "base_model.model.lm_head.lora_B.weight".into(),
                    "F32".into(),
                    vec![288, 4],
                    vec![0; 4 * 4 * 288],
                ));
            },
            Some("all-linear leaves the head out"),
        ),
        ("no alpha", |c| c["lora_alpha"] = Value::Null, |_| {}, Some("is \"null\", expected a number")),
        (
            "parts not gathered",
            |_| {},
            |t| {
                t[0].2 = vec![0];
                t[0].3.clear();
            },
            Some("saved before the parts on several devices were gathered"),
        ),
        (
            "pissa",
            |c| c["init_lora_weights"] = "pissa".into(),
            |_| {},
            Some("the others change the base weights"),
        ),
        ("biases that are not there", |c| c["bias"] = "lora_only".into(), |_| {}, None),
        (
            "a bias without a place",
            |c| c["lora_bias"] = true.into(),
            |t| {
                let name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias".into();
                t.push((name, "F32".into(), vec![96], vec![0; 4 * 96]));
            },
            Some("which the checkpoint has no place for"),
        ),
        (
            "token rows",
            |c| c["trainable_token_indices"] = json!({"embed_tokens": [5, 9]}),
            |t| {
                let name = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta".into();
                t.push((name, "F32".into(), vec![2, 96], vec![0; 4 * 2 * 96]));
            },
            None,
        ),
    ];
    let llama = testdata("tiny/llama");
    for (name, configuration, weights, expected) in ways {
        let dir = gq.path(&name.replace(' ', "-"));
        copy("lora/plain", &dir);
        let mut config = read(&dir.join("adapter_config.json"));
        configuration(&mut config);
        write(&dir.join("adapter_config.json"), &config);
        let path = dir.join("adapter_model.safetensors");
        let mut list = tensors(&path);
        weights(&mut list);
        save(&list, &path);
        let args = ["plan", &llama, "--lora", dir.to_str().unwrap()];
        match expected {
            None => drop(gq.ok(&args)),
            Some(sentence) => {
                let shown = gq.fails(3, &args);
                assert!(
                    shown.contains(sentence) && !shown.contains("trained on another model"),
                    "{name}: {shown}"
                );
            }
        }
    }
    let dir = gq.path("pickle");
    fs::create_dir(&dir).unwrap();
    fs::copy(testdata("lora/plain/adapter_config.json"), dir.join("adapter_config.json")).unwrap();
    fs::write(dir.join("adapter_model.bin"), b"PK\x03\x04").unwrap();
    let shown = gq.fails(3, &["plan", &llama, "--lora", dir.to_str().unwrap()]);
    assert!(shown.contains("a Python pickle") && shown.contains("weights_only=True"), "{shown}");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 48544\n";
    fs::write(dir.join("adapter_model.safetensors"), pointer).unwrap();
    let shown = gq.fails(3, &["plan", &llama, "--lora", dir.to_str().unwrap()]);
    assert!(shown.contains("a Git LFS pointer") && shown.contains("git lfs pull"), "{shown}");
}

#[test]
fn an_adapter_of_mlx_is_merged_as_the_same_one_of_peft() {
    let gq = Gq::new();
    let dir = gq.path("mlx");
    fs::create_dir(&dir).unwrap();
    let turned = |(name, dtype, shape, bytes): Tensor| {
        let name = name.replace("base_model.model.", "");
        let name = name.replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b");
        let (rows, cols) = (shape[0], shape[1]);
        let at = |i: usize| {
            let (row, col) = (i / rows, i % rows);
            bytes[4 * (col * cols + row)..][..4].to_vec()
        };
        (name, dtype, vec![cols, rows], (0..rows * cols).flat_map(at).collect())
    };
    let path = testdata("lora/plain/adapter_model.safetensors");
    let list: Vec<_> = tensors(Path::new(&path)).into_iter().map(turned).collect();
    save(&list, &dir.join("adapters.safetensors"));
    let config = |keys: Value| {
        let parameters = json!({"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": keys});
        let config = json!({"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters, "model": "tiny"});
        write(&dir.join("adapter_config.json"), &config);
    };
    let (llama, plain) = (testdata("tiny/llama"), testdata("lora/plain"));
    config(Value::Null);
    let mlx = dir.to_str().unwrap();
    gq.ok(&["convert", &llama, "--lora", mlx, "-o", "mlx.gq", "--bits", "8"]);
    gq.ok(&["convert", &llama, "--lora", &plain, "-o", "peft.gq", "--bits", "8"]);
    let payload = |file: &str| gq.json(&["inspect", file])["payload_sha256"].clone();
    assert_eq!(payload("mlx.gq"), payload("peft.gq"));
    config(json!(["self_attn.q_proj"]));
    let shown = gq.fails(3, &["plan", &llama, "--lora", mlx]);
    assert!(
        shown.contains("lora_parameters.keys does not name it") && shown.contains("model.layers.0.mlp"),
        "{shown}"
    );
}
