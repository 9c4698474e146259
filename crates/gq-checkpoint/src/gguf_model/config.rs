//! Metadata to the `config.json` that the same model has on the Hub.

use super::special_names::{ends_of_generation, is_harmony};
use crate::Family;
use crate::declared::Part;
use crate::family::FamilyFile;
use crate::gguf::{Array, Gguf, GgufError, Keys, Value as Metadatum};
use crate::keys::IgnoredKey;
use serde_json::{Value, json};

/// The family of `general.architecture`.
pub(super) fn family(gguf: &Gguf) -> Result<Family, GgufError> {
    let key = "general.architecture";
    let value = gguf.metadata().get(key).ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })?;
    let name = value.as_str().unwrap_or_default();
    Family::ALL.into_iter().find(|family| family.name() == name).ok_or_else(|| GgufError::Unsupported {
        key: key.to_owned(),
        actual: name.to_owned(),
        supported: Family::ALL.map(Family::name).join(", "),
    })
}

/// The configuration, as the Hub's tools would write it, and keys that do not matter; unknown ones are refused unless
/// they are accepted by name.
pub(super) fn config_json(gguf: &Gguf, accepted: &[String]) -> Result<(Value, Vec<IgnoredKey>), GgufError> {
    let family = family(gguf)?;
    let keys = Keys::new(gguf, family.name());
    let config = graph(gguf, family, &keys)?;
    Ok((config, keys.finish(family, accepted)?))
}

fn graph(gguf: &Gguf, family: Family, keys: &Keys<'_>) -> Result<Value, GgufError> {
    let FamilyFile { tensors, gguf: rules, .. } = family.file();
    let mut config = (rules.config)(gguf, keys)?;
    keys.must_be_true("attention.causal")?;
    config.insert("vocab_size".into(), json!(gguf.rows_of(tensors, Part::Embedding)?));
    config.insert("tie_word_embeddings".into(), json!(!gguf.has(tensors, Part::Head, None)));
    keys.opt_int("vocab_size")?;
    let token = |name: &str| token_id(gguf, &format!("tokenizer.ggml.{name}_token_id"));
    config.insert("bos_token_id".into(), json!(token("bos")));
    config.insert("eos_token_id".into(), ends(gguf));
    config.insert("pad_token_id".into(), json!(token("padding")));
    Ok(Value::Object(config))
}

/// Tokens that end generation: one number, or a list of them. Harmony has more than the keys have room for; llama.cpp
/// knows them by their spelling.
fn ends(gguf: &Gguf) -> Value {
    let names = ["eos", "eot", "eom"].map(|name| format!("tokenizer.ggml.{name}_token_id"));
    let mut ends: Vec<u64> = names.iter().filter_map(|key| token_id(gguf, key)).collect();
    ends.dedup();
    let tokens = gguf.metadata().get("tokenizer.ggml.tokens").and_then(Metadatum::as_array);
    let tokens = tokens.and_then(Array::as_strings).unwrap_or_default();
    if is_harmony(|token| tokens.iter().any(|there| there == token)) {
        let spelled = ends_of_generation(gguf.metadata()).into_iter().map(u64::from);
        let more: Vec<u64> = spelled.filter(|id| !ends.contains(id)).collect();
        ends.extend(more);
    }
    match ends[..] {
        [] => Value::Null,
        [one] => json!(one),
        _ => json!(ends),
    }
}

fn token_id(gguf: &Gguf, key: &str) -> Option<u64> {
    gguf.metadata().get(key).and_then(Metadatum::as_u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::{GgmlType, GgufWriter, Metadata, NewTensor};
    use crate::keys::{GGUF_KEYS, GGUF_UNREAD};
    use std::collections::BTreeSet;

    /// A file with this metadata below the architecture and an embedding.
    fn file(dir: &std::path::Path, family: &str, keys: &[(&str, Metadatum)]) -> Gguf {
        let mut metadata = Metadata::default();
        metadata.set("general.architecture", Metadatum::String(family.to_owned()));
        let four = |key: &str| (key.to_owned(), Metadatum::U32(4));
        let plain =
            ["block_count", "context_length", "feed_forward_length", "attention.head_count"].map(four);
        let swa =
            ["attention.key_length_swa", "attention.value_length_swa", "attention.sliding_window"].map(four);
        let length = ("embedding_length".to_owned(), Metadatum::U32(16));
        let eps = ("attention.layer_norm_rms_epsilon".to_owned(), Metadatum::F32(1e-5));
        let own = keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
        let swa = swa.into_iter().filter(|_| family.starts_with("gemma"));
        let experts = ["expert_count", "expert_used_count"].map(four);
        let sparse = ["qwen3moe", "gpt-oss"].contains(&family);
        let window = ["expert_feed_forward_length", "attention.sliding_window"].map(four);
        let window = window.into_iter().filter(|_| family == "gpt-oss");
        let experts = experts.into_iter().filter(|_| sparse).chain(window);
        for (key, value) in plain.into_iter().chain(swa).chain(experts).chain([length, eps]).chain(own) {
            let whole = ["tokenizer.", "general.", "elsewhere."].iter().any(|part| key.starts_with(part));
            metadata.set(&if whole { key } else { format!("{family}.{key}") }, value);
        }
        if family == "gemma4" {
            metadata
                .set("gemma4.attention.sliding_window_pattern", Metadatum::Array(Array::Bool(vec![true; 4])));
            metadata.set("gemma4.embedding_length_per_layer_input", Metadatum::U32(0));
        }
        let tensor =
            NewTensor { name: "token_embd.weight".to_owned(), shape: vec![2, 16], kind: GgmlType::F32 };
        let path = dir.join("file.gguf");
        let mut writer = GgufWriter::create(&path, &metadata, std::slice::from_ref(&tensor)).unwrap();
        writer.append(&[0; 128]).unwrap();
        writer.finish().unwrap();
        Gguf::open(&path).unwrap()
    }

    /// What is asked for has a row, and every row below the architecture is asked for.
    #[test]
    fn the_table_of_keys_is_what_the_reader_asks_for() {
        let dir = tempfile::tempdir().unwrap();
        for family in Family::ALL {
            let gguf = file(dir.path(), family.name(), &[]);
            let keys = Keys::new(&gguf, family.name());
            graph(&gguf, family, &keys).unwrap();
            let whole = |key: &str| {
                ["general.", "tokenizer.", "split.", "quantize."].iter().any(|part| key.starts_with(part))
            };
            let rows = GGUF_KEYS.iter().filter(|row| row.families.contains(&family) && !whole(row.key));
            let rows: BTreeSet<String> = rows.map(|row| row.key.to_owned()).collect();
            assert_eq!(keys.asked(), rows, "{}", family.name());
        }
    }

    /// As llama.cpp has them: `<|return|>`, `<|call|>` and `<|endoftext|>`, and not the end of a message.
    #[test]
    fn answers_in_harmony_end_at_calls_too() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = ["<|end|>", "<|endoftext|>", "<|return|>", "a", "<|call|>"].map(str::to_owned).to_vec();
        let eos = ("tokenizer.ggml.eos_token_id", Metadatum::U32(2));
        let list = |tokens| ("tokenizer.ggml.tokens", Metadatum::Array(Array::String(tokens)));
        let gguf = file(dir.path(), "gpt-oss", &[list(tokens.clone()), eos.clone()]);
        assert_eq!(config_json(&gguf, &[]).unwrap().0["eos_token_id"], json!([2, 1, 4]));
        let gguf = file(dir.path(), "gpt-oss", &[list(tokens[..4].to_vec()), eos]);
        assert_eq!(config_json(&gguf, &[]).unwrap().0["eos_token_id"], json!(2));
    }

    /// By llama.cpp's logits of such files (scripts/sweep_gguf.py).
    #[test]
    fn keys_of_yarn_that_mistral_alone_has() {
        let dir = tempfile::tempdir().unwrap();
        let float = Metadatum::F32;
        let yarn = || {
            let kind = ("rope.scaling.type", Metadatum::String("yarn".to_owned()));
            vec![
                kind,
                ("rope.scaling.factor", float(8.0)),
                ("rope.scaling.original_context_length", Metadatum::U32(2)),
            ]
        };
        let read = |keys: &[(&str, Metadatum)]| {
            config_json(&file(dir.path(), "mistral3", keys), &[]).map(|(config, _)| config)
        };
        let own = 1.0 + 0.1 * 8f64.ln();
        let log = |m: f32| ("rope.scaling.yarn_log_multiplier", float(m));
        let attention = ("rope.scaling.attn_factor", float(0.5));
        let factor = |rope: &Value| rope["attention_factor"].as_f64().unwrap();
        // Without the key, and with 0, the factor is that of every family.
        for keys in [yarn(), [yarn(), vec![log(0.0)]].concat()] {
            let config = read(&keys).unwrap();
            let rope = &config["rope_parameters"];
            assert_eq!(
                (&config["model_type"], &rope["llama_4_scaling_beta"]),
                (&json!("ministral3"), &json!(0.0))
            );
            assert!(rope.get("mscale").is_none() && rope.get("attention_factor").is_none(), "{rope}");
        }
        for m in [0.5f32, 1.0] {
            let rope = &read(&[yarn(), vec![log(m)]].concat()).unwrap()["rope_parameters"];
            assert_eq!((&rope["mscale"], &rope["mscale_all_dim"]), (&json!(1.0), &json!(f64::from(m))));
            let rope = &read(&[yarn(), vec![log(m), attention.clone()]].concat()).unwrap()["rope_parameters"];
            let divisor = 1.0 + 0.1 * f64::from(m) * 8f64.ln();
            assert!(
                (factor(rope) - 0.5 * own / divisor).abs() < 1e-12 && rope.get("mscale").is_none(),
                "{rope}"
            );
        }
        let rope = &read(&[yarn(), vec![attention]].concat()).unwrap()["rope_parameters"];
        assert!((factor(rope) - 0.5 * own).abs() < 1e-12, "{rope}");
        let betas =
            [("rope.scaling.yarn_beta_fast", float(4.0)), ("rope.scaling.yarn_beta_slow", float(0.25))];
        let rope = &read(&[yarn(), betas.to_vec()].concat()).unwrap()["rope_parameters"];
        assert_eq!((&rope["beta_fast"], &rope["beta_slow"]), (&json!(4.0), &json!(0.25)));
        for wrong in [log(-1.0), ("rope.scaling.yarn_beta_fast", float(0.0))] {
            let error = read(&[yarn(), vec![wrong.clone()]].concat()).unwrap_err().to_string();
            assert!(error.contains(wrong.0), "{error}");
        }
    }

    #[test]
    fn a_mistral_without_yarn_has_a_file_of_that_name_too() {
        let dir = tempfile::tempdir().unwrap();
        let grows = ("attention.temperature_scale", Metadatum::F32(0.1));
        for keys in [vec![], vec![("attention.temperature_scale", Metadatum::F32(0.0))]] {
            let (config, _) = config_json(&file(dir.path(), "mistral3", &keys), &[]).unwrap();
            assert_eq!((&config["model_type"], &config["sliding_window"]), (&json!("mistral"), &Value::Null));
            assert_eq!(config["rope_parameters"]["rope_type"], "default");
            assert_eq!(crate::parse_config(&config.to_string()).unwrap().family, Family::Llama);
        }
        let error = config_json(&file(dir.path(), "mistral3", &[grows]), &[]).unwrap_err().to_string();
        assert!(error.contains("attention.temperature_scale"), "{error}");
    }

    /// What is written for a rotary embedding comes back as it.
    #[test]
    fn yarn_of_mistral_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        for more in [
            json!({"mscale": 1.0, "mscale_all_dim": 1.0}),
            json!({"mscale": 1.0, "mscale_all_dim": 0.5}),
            json!({"attention_factor": 1.75}),
            json!({"beta_fast": 4.0, "beta_slow": 0.25}),
        ] {
            let mut config = json!({"model_type": "ministral3", "hidden_size": 16, "intermediate_size": 4,
                "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32,
                "vocab_size": 2, "max_position_embeddings": 256, "rope_parameters": {"rope_type": "yarn",
                "rope_theta": 500.0, "factor": 8.0, "original_max_position_embeddings": 16,
                "llama_4_scaling_beta": 0.5}});
            for (key, value) in more.as_object().unwrap() {
                config["rope_parameters"][key] = value.clone();
            }
            let spec = crate::parse_config(&config.to_string()).unwrap();
            let mut keys = Vec::new();
            let mut set = |key: &str, value: Metadatum| keys.push((key.to_owned(), value));
            super::super::export_rope::stored_keys(&spec)
                .unwrap()
                .into_iter()
                .for_each(|(key, value)| set(key, value));
            (spec.family.file().gguf.metadata)(&mut set, &spec);
            let mut keys: Vec<_> = keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            keys.push(("context_length", Metadatum::U32(256)));
            let (back, _) = config_json(&file(dir.path(), "mistral3", &keys), &[]).unwrap();
            let back = crate::parse_config(&back.to_string()).unwrap();
            assert_eq!(back.ropes[0].attention_factor, spec.ropes[0].attention_factor, "{more}");
            assert_eq!(back.ropes, spec.ropes, "{more}");
            assert_eq!(back.layers[0].attention.query_growth, spec.layers[0].attention.query_growth);
        }
    }

    #[test]
    fn keys_that_the_engine_does_not_read_are_named_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        for family in Family::ALL {
            for (key, _) in GGUF_UNREAD.iter().filter(|(_, families)| families.contains(&family)) {
                let gguf = file(dir.path(), family.name(), &[(key, Metadatum::F32(0.5))]);
                let (_, ignored) = config_json(&gguf, &[]).unwrap();
                let name = format!("{}.{key}", family.name());
                assert_eq!(ignored, [IgnoredKey { key: name, why: crate::keys::Ignored::Unread }]);
            }
            let gguf = file(dir.path(), family.name(), &[("attention.new_thing", Metadatum::F32(0.5))]);
            let name = format!("{}.attention.new_thing", family.name());
            let error = config_json(&gguf, &[]).unwrap_err();
            assert!(matches!(error, GgufError::UnknownKey { key, .. } if key == name));
            for accepted in ["attention.new_thing".to_owned(), name.clone()] {
                let (_, ignored) = config_json(&gguf, &[accepted]).unwrap();
                assert_eq!(ignored[0].key, name);
            }
            for (key, why) in [
                ("elsewhere.thing", crate::keys::Ignored::Unread),
                ("tokenizer.ggml.suppress_tokens", crate::keys::Ignored::Unapplied),
            ] {
                let gguf = file(dir.path(), family.name(), &[(key, Metadatum::F32(0.5))]);
                let (_, ignored) = config_json(&gguf, &[]).unwrap();
                assert_eq!(ignored, [IgnoredKey { key: key.to_owned(), why }]);
            }
            let key = "tokenizer.ggml.new_thing";
            let gguf = file(dir.path(), family.name(), &[(key, Metadatum::F32(0.5))]);
            let error = config_json(&gguf, &[]).unwrap_err();
            assert!(matches!(error, GgufError::UnknownKey { key: named, .. } if named == key));
            let (_, ignored) = config_json(&gguf, &[key.to_owned()]).unwrap();
            assert_eq!(ignored[0].key, key);
            let gguf = file(dir.path(), family.name(), &[("general.new_thing", Metadatum::F32(0.5))]);
            assert_eq!(config_json(&gguf, &[]).unwrap().1, []);
            let gguf = file(dir.path(), family.name(), &[("attention.causal", Metadatum::Bool(false))]);
            assert!(matches!(config_json(&gguf, &[]), Err(GgufError::Unsupported { .. })));
        }
    }
}
