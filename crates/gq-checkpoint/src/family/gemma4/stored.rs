//! Gemma 4 in a GGUF: metadata to `config.json`, and back.

use super::TENSORS;
use crate::gguf::{
    Array, FREQ_BASE, Gguf, GgufError, Keys, Set, StoredRope, Value as Metadatum, common, full_layer,
    head_dim, head_widths, int, named_types, number, object, pattern, softcap, window,
};
use crate::{ModelSpec, Part};
use serde_json::{Map, Value, json};

/// What llama.cpp caps logits with, if the file does not say.
const SOFTCAP: f64 = 30.0;

/// What a GGUF says, as `config.json`.
pub(super) fn config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config) = common(keys)?;
    let full_dim = head_dim(keys, &config)?;
    let dim = keys.int("attention.key_length_swa")?;
    keys.same("attention.value_length_swa", dim, 0)?;
    keys.same("rope.dimension_count_swa", dim, full_dim)?;
    let key = "attention.sliding_window_pattern";
    let sliding = keys.opt_pattern(key, layers)?.ok_or_else(|| keys.missing(key))?;
    let shared = keys.opt_int("attention.shared_kv_layers")?.unwrap_or(0) as usize;
    let full_has_values = (0..layers)
        .filter(|&i| !sliding[i] && i + shared < layers)
        .any(|i| gguf.has(TENSORS, Part::Value, i));
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
        "full_attention": StoredRope::read(gguf, keys)?.without_attention(keys)?.partial_parameters(full_dim)?,
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
        "final_logit_softcapping": softcap(keys, SOFTCAP)?,
        "sliding_window": window,
        "layer_types": named_types(&sliding),
        "rope_parameters": rope,
        "enable_moe_block": experts > 0,
        "num_experts": experts,
        "top_k_experts": keys.opt_int("expert_used_count")?.unwrap_or(0),
        "moe_intermediate_size": keys.opt_int("expert_feed_forward_length")?.unwrap_or(0),
        "hidden_size_per_layer_input": per_layer,
    })));
    if per_layer > 0 {
        let rows = gguf.rows_of(TENSORS, Part::PerLayerTable)?;
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

/// Keys of this architecture alone.
pub(super) fn metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    head_widths(set, spec);
    let full_dim = full_layer(spec).map_or(0, |layer| layer.attention.head_dim);
    // Readers take 30 where the key is absent, and no cap for 0.
    set("final_logit_softcapping", Metadatum::F32(spec.final_softcap.unwrap_or(0.0)));
    set("attention.sliding_window", int(window(spec).unwrap_or(spec.max_positions)));
    let shared = spec.layers.iter().filter(|layer| layer.attention.kv_shared_with.is_some()).count();
    set("attention.shared_kv_layers", int(shared));
    set("embedding_length_per_layer_input", int(spec.per_layer_embedding.map_or(0, |ple| ple.width)));
    set("attention.sliding_window_pattern", Metadatum::Array(Array::Bool(pattern(spec))));
    let sliding = spec.layers.iter().find(|layer| layer.attention.window.is_some());
    let dim = int(sliding.map_or(full_dim, |layer| layer.attention.head_dim));
    set("attention.key_length_swa", dim.clone());
    set("attention.value_length_swa", dim.clone());
    if let Some(moe) = spec.layers.first().and_then(|layer| layer.moe) {
        set("expert_feed_forward_length", int(moe.width));
    }
    set("rope.dimension_count", int(full_dim));
    set("rope.dimension_count_swa", dim);
}
