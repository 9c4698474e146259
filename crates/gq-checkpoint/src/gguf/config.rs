//! Metadata to the `config.json` that the same model has on the Hub.

use super::keys::Keys;
use super::names::ROPE_FREQS;
use super::{Gguf, GgufError, Value as Metadatum};
use crate::Family;
use serde_json::{Map, Value, json};

/// Where Gemma 3 has full layers, if the file does not say: every sixth.
const GEMMA3_PERIOD: usize = 6;
/// The one Gemma 3 whose queries are not scaled by their own width is known by its depth.
const GEMMA3_27B_LAYERS: usize = 62;

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

/// The configuration, as the Hub's tools would write it.
pub(super) fn config_json(gguf: &Gguf) -> Result<Value, GgufError> {
    let family = family(gguf)?;
    let keys = Keys::new(gguf, family.name());
    let mut config = match family {
        Family::Llama => llama(gguf, &keys)?,
        Family::Gemma3 => gemma3(gguf, &keys)?,
        Family::Gemma4 => gemma4(gguf, &keys)?,
    };
    config.insert("vocab_size".into(), json!(rows(gguf, "token_embd.weight")?));
    config.insert("tie_word_embeddings".into(), json!(gguf.tensor("output.weight").is_none()));
    keys.opt_int("vocab_size")?;
    keys.finish()?;
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
    let config = object(json!({
        "hidden_size": keys.int("embedding_length")?,
        "num_hidden_layers": layers,
        "num_attention_heads": keys.int("attention.head_count")?,
        "rms_norm_eps": keys.float("attention.layer_norm_rms_epsilon")?,
        "max_position_embeddings": keys.int("context_length")?,
    }));
    Ok(Common { layers: layers as usize, config })
}

fn number(config: &Map<String, Value>, key: &str) -> u64 {
    config.get(key).and_then(Value::as_u64).unwrap_or(0)
}

/// Width of heads, which must be that of keys, of values and of their rotary part.
fn head_dim(keys: &Keys<'_>, config: &Map<String, Value>) -> Result<u64, GgufError> {
    let heads = number(config, "num_attention_heads").max(1);
    let dim = keys.opt_int("attention.key_length")?.unwrap_or(number(config, "hidden_size") / heads);
    keys.only("attention.value_length", dim)?;
    keys.only("rope.dimension_count", dim)?;
    Ok(dim)
}

fn llama(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let Common { mut config, .. } = common(keys)?;
    keys.only("expert_count", 0)?;
    keys.only("expert_used_count", 0)?;
    let dim = head_dim(keys, &config)?;
    let heads = number(&config, "num_attention_heads");
    let theta = keys.opt_float("rope.freq_base")?.unwrap_or(10_000.0);
    let bias = |part: &str| gguf.tensor(&format!("blk.0.{part}.bias")).is_some();
    config.extend(object(json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": keys.int("feed_forward_length")?,
        "num_key_value_heads": keys.opt_int("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": dim,
        "hidden_act": "silu",
        "rope_parameters": llama_rope(gguf, keys, theta, dim as usize)?,
        "attention_bias": bias("attn_q"),
        "mlp_bias": bias("ffn_up"),
    })));
    Ok(config)
}

/// Scaling of frequencies by `rope.scaling.*`.
fn rope_scaling(keys: &Keys<'_>, theta: f64) -> Result<Value, GgufError> {
    let kind = keys.opt_text("rope.scaling.type")?;
    let factor = keys.opt_float("rope.scaling.factor")?;
    let original = keys.opt_int("rope.scaling.original_context_length")?;
    keys.opt_text("rope.scaling.finetuned").ok(); // whether training continued on it: no part of the graph
    let attention = keys.opt_float("rope.scaling.attn_factor")?;
    let yarn = |name: &str| keys.opt_float(&format!("rope.scaling.{name}"));
    let (fast, slow) = (yarn("yarn_beta_fast")?, yarn("yarn_beta_slow")?);
    let yarn_attention = yarn("yarn_attn_factor")?;
    match (kind, factor) {
        (None | Some("none"), _) => Ok(json!({"rope_type": "default", "rope_theta": theta})),
        (Some("linear"), Some(factor)) => {
            Ok(json!({"rope_type": "linear", "rope_theta": theta, "factor": factor}))
        }
        (Some("yarn"), Some(factor)) => {
            let mut rope = json!({"rope_type": "yarn", "rope_theta": theta, "factor": factor});
            let parts = [
                ("original_max_position_embeddings", original.map(|v| json!(v))),
                ("attention_factor", attention.or(yarn_attention).map(|v| json!(v))),
                ("beta_fast", fast.map(|v| json!(v))),
                ("beta_slow", slow.map(|v| json!(v))),
            ];
            for (key, value) in parts.into_iter().filter_map(|(key, value)| Some((key, value?))) {
                rope[key] = value;
            }
            Ok(rope)
        }
        (Some(_), None) => Err(keys.missing("rope.scaling.factor")),
        (Some(kind), _) => Err(GgufError::Unsupported {
            key: keys.name("rope.scaling.type"),
            actual: kind.to_owned(),
            supported: "none, linear, yarn".to_owned(),
        }),
    }
}

/// Llama 3.1 scales each frequency; the file has the factors, the configuration what they were made from.
fn llama_rope(gguf: &Gguf, keys: &Keys<'_>, theta: f64, dim: usize) -> Result<Value, GgufError> {
    let Some(factors) = rope_factors(gguf)? else { return rope_scaling(keys, theta) };
    let unsupported = || GgufError::Unsupported {
        key: ROPE_FREQS.to_owned(),
        actual: "factors on rotary frequencies".to_owned(),
        supported: "those of Llama 3.1 with low and high factors 1 and 4".to_owned(),
    };
    if factors.len() * 2 != dim {
        return Err(unsupported());
    }
    let factor = factors.iter().copied().fold(1.0f32, f32::max);
    if factor == 1.0 {
        return rope_scaling(keys, theta);
    }
    // The original context is a power of two.
    let original = (4..=24).map(|n| 1u64 << n).find(|&original| {
        let made = (0..dim / 2).map(|i| llama3_factor(theta, dim, i, f64::from(factor), original as f64));
        made.zip(&factors).all(|(made, &stored)| (made / f64::from(stored) - 1.0).abs() < 2e-4)
    });
    let original = original.ok_or_else(unsupported)?;
    Ok(json!({"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": 1.0,
              "high_freq_factor": 4.0, "original_max_position_embeddings": original}))
}

/// The divisor of frequency i.
pub(super) fn llama3_factor(theta: f64, dim: usize, i: usize, factor: f64, original: f64) -> f64 {
    let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / dim as f64);
    if wavelength < original / 4.0 {
        1.0
    } else if wavelength > original {
        factor
    } else {
        let smooth = (original / wavelength - 1.0) / 3.0;
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}

fn rope_factors(gguf: &Gguf) -> Result<Option<Vec<f32>>, GgufError> {
    let Some(tensor) = gguf.tensor(ROPE_FREQS) else { return Ok(None) };
    if tensor.info.rows() != 1 || tensor.info.cols() > crate::limits::HEAD_DIM as usize {
        let dims = tensor.info.shape.iter().map(|&dim| dim as u64).collect();
        return Err(GgufError::Dims { name: ROPE_FREQS.to_owned(), dims });
    }
    let mut factors = vec![0.0; tensor.info.cols()];
    gguf.read_rows_f32(tensor, 0..1, &mut factors)?;
    Ok(Some(factors))
}

fn layer_types(sliding: &[bool]) -> Value {
    sliding.iter().map(|&sliding| if sliding { "sliding_attention" } else { "full_attention" }).collect()
}

fn gemma3(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let Common { layers, mut config } = common(keys)?;
    let dim = head_dim(keys, &config)?;
    let heads = number(&config, "num_attention_heads").max(1);
    let pattern = keys.opt_pattern("attention.sliding_window_pattern", layers)?;
    let sliding = pattern.unwrap_or_else(|| (1..=layers).map(|n| n % GEMMA3_PERIOD != 0).collect());
    let scalar = if layers == GEMMA3_27B_LAYERS { number(&config, "hidden_size") / heads } else { dim };
    let theta = keys.opt_float("rope.freq_base")?.unwrap_or(1_000_000.0);
    let local = keys.opt_float("rope.freq_base_swa")?.unwrap_or(10_000.0);
    config.extend(object(json!({
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "intermediate_size": keys.int("feed_forward_length")?,
        "num_key_value_heads": keys.opt_int("attention.head_count_kv")?.unwrap_or(heads),
        "head_dim": dim,
        "query_pre_attn_scalar": scalar,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": gguf.tensor("blk.0.attn_q.bias").is_some(),
        "attn_logit_softcapping": null,
        "final_logit_softcapping": keys.opt_float("final_logit_softcapping")?,
        "sliding_window": keys.int("attention.sliding_window")?,
        "layer_types": layer_types(&sliding),
        "rope_parameters": {
            "full_attention": rope_scaling(keys, theta)?,
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
    })));
    Ok(config)
}

fn gemma4(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let Common { layers, mut config } = common(keys)?;
    let full_dim = head_dim(keys, &config)?;
    let dim = keys.int("attention.key_length_swa")?;
    keys.only("attention.value_length_swa", dim)?;
    keys.only("rope.dimension_count_swa", dim)?;
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
    let rope = gemma4_rope(gguf, keys, full_dim)?;
    let experts = keys.opt_int("expert_count")?.unwrap_or(0);
    let per_layer = keys.opt_int("embedding_length_per_layer_input")?.unwrap_or(0);
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
        "final_logit_softcapping": keys.opt_float("final_logit_softcapping")?,
        "sliding_window": keys.int("attention.sliding_window")?,
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

/// On full layers a part of the pairs turns: their factors are 1, those of the others enormous.
fn gemma4_rope(gguf: &Gguf, keys: &Keys<'_>, full_dim: u64) -> Result<Value, GgufError> {
    let theta = keys.opt_float("rope.freq_base")?.unwrap_or(1_000_000.0);
    let local = keys.opt_float("rope.freq_base_swa")?.unwrap_or(10_000.0);
    let factors = rope_factors(gguf)?.unwrap_or_else(|| vec![1.0; full_dim as usize / 2]);
    let turning = factors.iter().take_while(|&&factor| factor == 1.0).count();
    if factors.len() as u64 * 2 != full_dim || factors[turning..].iter().any(|&factor| factor < 1e20) {
        return Err(GgufError::Unsupported {
            key: ROPE_FREQS.to_owned(),
            actual: "factors on rotary frequencies".to_owned(),
            supported: "1 for pairs that turn, 1e30 for those that do not".to_owned(),
        });
    }
    let fraction = turning as f64 / factors.len() as f64;
    Ok(json!({
        "full_attention": {"rope_type": "proportional", "rope_theta": theta, "partial_rotary_factor": fraction},
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }))
}
