//! Metadata to the `config.json` that the same model has on the Hub.

use crate::Family;
use crate::declared::Part;
use crate::family::FamilyFile;
use crate::gguf::{Gguf, GgufError, Keys, Value as Metadatum};
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

/// Tokens that end generation: one number, or a list of them.
fn ends(gguf: &Gguf) -> Value {
    let names = ["eos", "eot", "eom"].map(|name| format!("tokenizer.ggml.{name}_token_id"));
    let mut ends: Vec<u64> = names.iter().filter_map(|key| token_id(gguf, key)).collect();
    ends.dedup();
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
    use crate::gguf::{Array, GgmlType, GgufWriter, Metadata, NewTensor};
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
