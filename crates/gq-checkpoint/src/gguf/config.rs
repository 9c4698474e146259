//! Metadata to the `config.json` that the same model has on the Hub.

use super::export_meta::Set;
use super::keys::Keys;
use super::names::gguf_name_of;
use super::rope::RopeFactors;
use super::{Gguf, GgufError, Value as Metadatum};
use crate::declared::{Declared, Part};
use crate::family::FamilyFile;
use crate::keys::IgnoredKey;
use crate::{Activation, AttentionSpec, Family, ModelSpec};
use serde_json::{Map, Value, json};

/// Reads a GGUF's metadata as keys of `config.json`.
type ConfigOf = fn(&Gguf, &Keys<'_>) -> Result<Map<String, Value>, GgufError>;

/// How one family stands in a GGUF.
pub(crate) struct GgufRules {
    /// Metadata to the keys of `config.json` that are this family's.
    pub(crate) config: ConfigOf,
    /// Writes the keys that are this family's.
    pub(crate) metadata: fn(&mut Set<'_>, &ModelSpec),
    /// The activation that engines take, and the key of `config.json` that says so.
    pub(crate) activation: (&'static str, Activation),
    /// Engines scale scores by the inverse root of this.
    pub(crate) score_width: fn(&ModelSpec, &AttentionSpec) -> usize,
    /// Whether engines add biases of attention.
    pub(crate) attention_bias: bool,
    /// Whether rows of the embedding beyond the vocabulary get tokens that stand for nothing.
    pub(crate) pads_vocabulary: bool,
    /// Whether engines give layers windows.
    pub(crate) windows: bool,
    /// Whether sliding layers have rotary keys of their own.
    pub(crate) sliding_rope: bool,
    /// Whether the ramp of a YaRN that keys describe begins and ends at whole pairs in the models that these files are of.
    pub(crate) yarn_truncates: bool,
    /// Whether engines multiply cosines and sines by `1 + 0.1 ln(factor)` where keys say YaRN.
    pub(crate) yarn_factor: bool,
    /// Whether engines read divisors of rotary frequencies from a tensor.
    pub(crate) rope_factors: RopeFactors,
}

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

pub(super) fn token_id(gguf: &Gguf, key: &str) -> Option<u64> {
    gguf.metadata().get(key).and_then(Metadatum::as_u64)
}

impl Gguf {
    /// Whether the file has this part of a family's model, or of one of its layers.
    pub(crate) fn has(&self, list: &[Declared], part: Part, layer: impl Into<Option<usize>>) -> bool {
        gguf_name_of(list, part, layer.into()).is_some_and(|name| self.tensor(&name).is_some())
    }

    /// Rows of a part of the model.
    pub(crate) fn rows_of(&self, list: &[Declared], part: Part) -> Result<usize, GgufError> {
        let name = gguf_name_of(list, part, None).unwrap_or_default();
        let tensor = self.tensor(&name).ok_or(GgufError::MissingKey { key: name })?;
        Ok(tensor.info.rows())
    }
}

/// The fields of an object.
pub(crate) fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// What all families say alike: number of layers, and keys of the configuration.
pub(crate) fn common(keys: &Keys<'_>) -> Result<(usize, Map<String, Value>), GgufError> {
    let layers = keys.int("block_count")?;
    if layers == 0 || layers > crate::limits::LAYERS {
        return Err(keys.contradiction("block_count", format!("{layers} layers")));
    }
    let layers = layers as usize;
    let config = object(json!({
        "hidden_size": keys.int("embedding_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": keys.alike("attention.head_count", layers)?.ok_or_else(|| keys.missing("attention.head_count"))?,
        "rms_norm_eps": keys.float("attention.layer_norm_rms_epsilon")?,
        "max_position_embeddings": keys.int("context_length")?,
    }));
    Ok((layers, config))
}

/// A whole number of a configuration.
pub(crate) fn number(config: &Map<String, Value>, key: &str) -> u64 {
    config.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Width of heads, which must be that of keys, of values and of their rotary part.
pub(crate) fn head_dim(keys: &Keys<'_>, config: &Map<String, Value>) -> Result<u64, GgufError> {
    let heads = number(config, "num_attention_heads").max(1);
    let derived = number(config, "hidden_size") / heads;
    let dim = keys.opt_int("attention.key_length")?.unwrap_or(derived);
    keys.same("attention.value_length", dim, derived)?;
    keys.same("rope.dimension_count", dim, dim)?;
    Ok(dim)
}

/// Types of layers by name, from whether they slide.
pub(crate) fn named_types(sliding: &[bool]) -> Value {
    sliding.iter().map(|&sliding| if sliding { "sliding_attention" } else { "full_attention" }).collect()
}

/// A cap of 0 is none.
pub(crate) fn softcap(keys: &Keys<'_>, absent: f64) -> Result<Option<f64>, GgufError> {
    let cap = keys.opt_float("final_logit_softcapping")?.unwrap_or(absent);
    Ok(Some(cap).filter(|cap| *cap != 0.0))
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
            metadata.set(&format!("{family}.{key}"), value);
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
            let whole =
                |key: &str| ["general.", "tokenizer.", "split."].iter().any(|part| key.starts_with(part));
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
            let gguf = file(dir.path(), family.name(), &[("attention.causal", Metadatum::Bool(false))]);
            assert!(matches!(config_json(&gguf, &[]), Err(GgufError::Unsupported { .. })));
        }
    }
}
