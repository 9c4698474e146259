//! Metadata to the `config.json` that the same model has on the Hub.

use super::keys::Keys;
use super::rope::{FREQ_BASE, Stored};
use super::{Gguf, GgufError, Value as Metadatum};
use crate::Family;
use crate::keys::IgnoredKey;
use serde_json::{Map, Value, json};

/// Where Gemma 3 has full layers, if the file does not say: every sixth.
const GEMMA3_PERIOD: usize = 6;
/// The one Gemma 3 whose queries are not scaled by their own width is known by its depth.
const GEMMA3_27B_LAYERS: usize = 62;
/// What llama.cpp caps Gemma 4's logits with, if the file does not say.
const GEMMA4_SOFTCAP: f64 = 30.0;

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
    let mut config = match family {
        Family::Llama => llama(gguf, keys)?,
        Family::Gemma3 => gemma3(gguf, keys)?,
        Family::Gemma4 => gemma4(gguf, keys)?,
    };
    keys.must_be_true("attention.causal")?;
    config.insert("vocab_size".into(), json!(rows(gguf, "token_embd.weight")?));
    config.insert("tie_word_embeddings".into(), json!(gguf.tensor("output.weight").is_none()));
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

fn rows(gguf: &Gguf, name: &str) -> Result<usize, GgufError> {
    let tensor = gguf.tensor(name).ok_or_else(|| GgufError::MissingKey { key: name.to_owned() })?;
    Ok(tensor.info.rows())
}

struct Common {
    layers: usize,
    config: Map<String, Value>,
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// What all families say alike.
fn common(keys: &Keys<'_>) -> Result<Common, GgufError> {
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
    Ok(Common { layers, config })
}

fn number(config: &Map<String, Value>, key: &str) -> u64 {
    config.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Width of heads, which must be that of keys, of values and of their rotary part.
fn head_dim(keys: &Keys<'_>, config: &Map<String, Value>) -> Result<u64, GgufError> {
    let heads = number(config, "num_attention_heads").max(1);
    let derived = number(config, "hidden_size") / heads;
    let dim = keys.opt_int("attention.key_length")?.unwrap_or(derived);
    keys.same("attention.value_length", dim, derived)?;
    keys.same("rope.dimension_count", dim, dim)?;
    Ok(dim)
}

fn llama(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let Common { layers, mut config } = common(keys)?;
    keys.only("expert_count", 0)?;
    keys.only("expert_used_count", 0)?;
    let dim = head_dim(keys, &config)?;
    let heads = number(&config, "num_attention_heads");
    let bias = |part: &str| gguf.tensor(&format!("blk.0.{part}.bias")).is_some();
    config.extend(object(json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": keys.alike("feed_forward_length", layers)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        "num_key_value_heads": keys.alike("attention.head_count_kv", layers)?.unwrap_or(heads),
        "head_dim": dim,
        "hidden_act": "silu",
        "rope_parameters": Stored::read(gguf, keys)?.parameters(dim)?,
        "attention_bias": bias("attn_q"),
        "mlp_bias": bias("ffn_up"),
    })));
    Ok(config)
}

fn layer_types(sliding: &[bool]) -> Value {
    sliding.iter().map(|&sliding| if sliding { "sliding_attention" } else { "full_attention" }).collect()
}

fn gemma3(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let Common { layers, mut config } = common(keys)?;
    let dim = head_dim(keys, &config)?;
    for key in ["attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"] {
        keys.same(key, dim, dim)?;
    }
    let heads = number(&config, "num_attention_heads").max(1);
    let pattern = keys.opt_pattern("attention.sliding_window_pattern", layers)?;
    let sliding = pattern.unwrap_or_else(|| (1..=layers).map(|n| n % GEMMA3_PERIOD != 0).collect());
    let scalar = if layers == GEMMA3_27B_LAYERS { number(&config, "hidden_size") / heads } else { dim };
    // A window of 0 is none.
    let window = keys.opt_int("attention.sliding_window")?.filter(|window| *window > 0);
    let sliding = if window.is_some() { sliding } else { vec![false; layers] };
    let local = keys.opt_float("rope.freq_base_swa")?.unwrap_or(FREQ_BASE);
    let rope = Stored::read(gguf, keys)?.without_factors()?;
    let rope = if window.is_some() { rope.without_attention(keys)? } else { rope };
    config.extend(object(json!({
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "intermediate_size": keys.alike("feed_forward_length", layers)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        "num_key_value_heads": keys.alike("attention.head_count_kv", layers)?.unwrap_or(heads),
        "head_dim": dim,
        "query_pre_attn_scalar": scalar,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": gguf.tensor("blk.0.attn_q.bias").is_some(),
        "attn_logit_softcapping": null,
        "final_logit_softcapping": softcap(keys, 0.0)?,
        "layer_types": layer_types(&sliding),
        "rope_parameters": {
            "full_attention": rope.parameters(dim)?,
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    })));
    if let Some(window) = window {
        config.insert("sliding_window".into(), json!(window));
    }
    Ok(config)
}

/// A cap of 0 is none.
fn softcap(keys: &Keys<'_>, absent: f64) -> Result<Option<f64>, GgufError> {
    let cap = keys.opt_float("final_logit_softcapping")?.unwrap_or(absent);
    Ok(Some(cap).filter(|cap| *cap != 0.0))
}

fn gemma4(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let Common { layers, mut config } = common(keys)?;
    let full_dim = head_dim(keys, &config)?;
    let dim = keys.int("attention.key_length_swa")?;
    keys.same("attention.value_length_swa", dim, 0)?;
    keys.same("rope.dimension_count_swa", dim, full_dim)?;
    let key = "attention.sliding_window_pattern";
    let sliding = keys.opt_pattern(key, layers)?.ok_or_else(|| keys.missing(key))?;
    let shared = keys.opt_int("attention.shared_kv_layers")?.unwrap_or(0) as usize;
    let full_has_values = (0..layers)
        .filter(|&i| !sliding[i] && i + shared < layers)
        .any(|i| gguf.tensor(&format!("blk.{i}.attn_v.weight")).is_some());
    let (kv, full_kv) = kv_heads(keys, &sliding, number(&config, "num_attention_heads"))?;
    if full_has_values && kv != full_kv {
        return Err(
            keys.contradiction("attention.head_count_kv", "full layers differ, but have their own values")
        );
    }
    let (width, double) = mlp_width(keys, layers, shared)?;
    let window = keys.int("attention.sliding_window")?;
    if window == 0 {
        return Err(keys.contradiction("attention.sliding_window", "0 tokens"));
    }
    let local = keys.opt_float("rope.freq_base_swa")?.unwrap_or(FREQ_BASE);
    let rope = json!({
        "full_attention": Stored::read(gguf, keys)?.without_attention(keys)?.partial_parameters(full_dim)?,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    });
    let experts = keys.opt_int("expert_count")?.unwrap_or(0);
    let per_layer = keys.int("embedding_length_per_layer_input")?;
    config.extend(object(json!({
        "architectures": ["Gemma4ForCausalLM"],
        "model_type": "gemma4_text",
        "intermediate_size": width,
        "use_double_wide_mlp": double,
        "num_key_value_heads": kv,
        "num_global_key_value_heads": full_kv,
        "attention_k_eq_v": !full_has_values,
        "num_kv_shared_layers": shared,
        "head_dim": dim,
        "global_head_dim": full_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": false,
        "final_logit_softcapping": softcap(keys, GEMMA4_SOFTCAP)?,
        "sliding_window": window,
        "layer_types": layer_types(&sliding),
        "rope_parameters": rope,
        "enable_moe_block": experts > 0,
        "num_experts": experts,
        "top_k_experts": keys.opt_int("expert_used_count")?.unwrap_or(0),
        "moe_intermediate_size": keys.opt_int("expert_feed_forward_length")?.unwrap_or(0),
        "hidden_size_per_layer_input": per_layer,
    })));
    if per_layer > 0 {
        let rows = rows(gguf, "per_layer_token_embd.weight")?;
        config.insert("vocab_size_per_layer_input".into(), json!(rows));
    }
    Ok(config)
}

/// Key-value heads of sliding and of full layers.
fn kv_heads(keys: &Keys<'_>, sliding: &[bool], heads: u64) -> Result<(u64, u64), GgufError> {
    let key = "attention.head_count_kv";
    let list = keys.opt_ints(key, sliding.len())?.unwrap_or_else(|| vec![heads; sliding.len()]);
    let of = |kind: bool| {
        let mut own =
            list.iter().zip(sliding).filter(|(_, sliding)| **sliding == kind).map(|(heads, _)| *heads);
        let first = own.next();
        match own.all(|heads| Some(heads) == first) {
            true => Ok(first),
            false => Err(keys.contradiction(key, "layers of one kind differ")),
        }
    };
    let (sliding, full) = (of(true)?, of(false)?);
    let any = sliding.or(full).unwrap_or(heads);
    Ok((sliding.unwrap_or(any), full.unwrap_or(any)))
}

/// Width of the MLP, and whether layers that share caches have twice as much.
fn mlp_width(keys: &Keys<'_>, layers: usize, shared: usize) -> Result<(u64, bool), GgufError> {
    let key = "feed_forward_length";
    let list = keys.opt_ints(key, layers)?.ok_or_else(|| keys.missing(key))?;
    let own = layers.saturating_sub(shared);
    let width = list[0];
    let double = own > 0 && shared > 0 && list[own] == 2 * width;
    let expected = |layer: usize| if double && layer >= own { 2 * width } else { width };
    match list.iter().enumerate().all(|(layer, &w)| w == expected(layer)) {
        true => Ok((width, double)),
        false => {
            Err(keys.contradiction(key, "neither one width nor twice as much on layers that share caches"))
        }
    }
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
        let swa = swa.into_iter().filter(|_| family != "llama");
        for (key, value) in plain.into_iter().chain(swa).chain([length, eps]).chain(own) {
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
