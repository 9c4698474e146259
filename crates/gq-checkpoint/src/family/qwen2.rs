//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values alone.

use super::shared::{
    Defaults, SpecialTokens, activation, check_heads, full_layers_only, head_dim_or_quotient, quantization,
};
use super::tensors::{
    ATTENTION_NORM, DOWN, EMBEDDING, FINAL_NORM, FREQUENCIES, GATE, HEAD, KEY, KEY_BIAS, LAYER_FREQUENCIES,
    OUTPUT, PRE_MLP_NORM, QUERY, QUERY_BIAS, UP, VALUE, VALUE_BIAS,
};
use super::{FamilyFile, ModelType, rotary};
use crate::config::{Fields, rope_spec};
use crate::declared::Declared;
use crate::gguf::{
    Gguf, GgufError, GgufRules, Keys, RopeFactors, Set, StoredRope, head_widths, object, with_heads,
};
use crate::{
    Activation, AttentionSpec, ConfigError, Family, LayerSpec, MlpSpec, ModelSpec, NormPlacement, limits,
};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "qwen2";

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "qwen2",
    model_types: &[ModelType { name: MODEL_TYPE, read: spec, architecture: Some("Qwen2ForCausalLM") }],
    tensors: TENSORS,
    gguf: GgufRules {
        config: gguf_config,
        metadata: gguf_metadata,
        activation: ("hidden_act", Activation::SILU),
        score_width: |_, attention| attention.head_dim,
        attention_bias: true,
        pads_vocabulary: true,
        windows: false,
        loads: |_| Ok(()),
        sliding_rope: false,
        rope_factors: RopeFactors::Never,
        yarn_truncates: true,
        yarn_keys: false,
    },
};

const TENSORS: &[Declared] = &[
    EMBEDDING,
    ATTENTION_NORM,
    QUERY,
    QUERY_BIAS,
    KEY,
    KEY_BIAS,
    VALUE,
    VALUE_BIAS,
    OUTPUT,
    PRE_MLP_NORM,
    GATE,
    UP,
    DOWN,
    LAYER_FREQUENCIES,
    FINAL_NORM,
    HEAD,
    FREQUENCIES,
];

/// Absent fields have the defaults of the reference.
fn spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let hidden_size = fields.opt_int("hidden_size", 2..=limits::HIDDEN)?.unwrap_or(4096);
    let layers = fields.opt_int("num_hidden_layers", 1..=limits::LAYERS)?.unwrap_or(32);
    let heads = fields.opt_int("num_attention_heads", 1..=limits::HEADS)?.unwrap_or(32);
    let head_dim = head_dim_or_quotient(fields, hidden_size, heads)?;
    full_layers_only(fields, layers)?;
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(32_768);
    let kv_heads = kv_heads(fields, heads)?;
    let attention = AttentionSpec { bias: true, ..AttentionSpec::new(heads, kv_heads, head_dim) };
    check_heads(0, &attention)?;
    let mlp = MlpSpec {
        width: fields.opt_int("intermediate_size", 1..=limits::WIDTH)?.unwrap_or(22_016),
        activation: activation(fields, "hidden_act", Activation::SILU)?,
        bias: false,
    };
    let tokens = SpecialTokens::read(fields, Defaults::default())?;
    let layer =
        LayerSpec { attention, mlp: Some(mlp), moe: None, norms: NormPlacement::Pre, layer_scalar: false };
    let rope = rotary::of_heads(fields, max_positions, MODEL_TYPE, head_dim)?;
    let spec = ModelSpec {
        family: Family::Qwen2,
        vocab_size: fields.opt_int("vocab_size", 1..=limits::VOCAB)?.unwrap_or(151_936),
        hidden_size,
        layers: vec![layer; layers],
        ropes: vec![rope_spec(&rope, head_dim)],
        norm_eps: fields.opt_float("rms_norm_eps", 0.0..=1.0)?.unwrap_or(1e-6) as f32,
        norm_plus_one: false,
        embed_scale: None,
        final_softcap: None,
        tied_head: fields.bool_or("tie_word_embeddings", false)?,
        max_positions,
        bos: tokens.bos,
        eos: tokens.eos,
        pad: tokens.pad,
        per_layer_embedding: None,
        quantization: quantization(fields)?,
    };
    fields.finish(MODEL_TYPE)?;
    Ok(spec)
}

/// A null says as many as query heads, as in the reference.
fn kv_heads(fields: &Fields<'_>, heads: usize) -> Result<usize, ConfigError> {
    let absent = if fields.has("num_key_value_heads") { heads } else { 32 };
    Ok(fields.opt_int("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(absent))
}

/// What a GGUF says, as `config.json`.
fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config, dim) = with_heads(keys)?;
    config.extend(object(json!({
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": MODEL_TYPE,
        "intermediate_size": keys.alike("feed_forward_length", layers)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        "hidden_act": "silu",
        "rope_parameters": StoredRope::read(gguf, keys)?.without_factors(FILE.name)?.parameters(dim)?,
    })));
    Ok(config)
}

/// Keys of this architecture alone: none, and the width of heads where readers do not derive it.
fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    if spec.layers.iter().any(|layer| layer.attention.q_width() != spec.hidden_size) {
        head_widths(set, spec);
    }
}
