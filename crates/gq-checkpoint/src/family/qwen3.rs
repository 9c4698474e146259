//! Qwen3, dense: Llama with norms of each head's queries and keys before they turn, and heads of a width of their own.

use super::shared::{
    Defaults, SpecialTokens, activation, check_head_dim, full_layers_only, quantization, said_heads,
};
use super::tensors::{
    ATTENTION_NORM, DOWN, EMBEDDING, FINAL_NORM, FREQUENCIES, GATE, HEAD, KEY, KEY_NORM, LAYER_FREQUENCIES,
    OUTPUT, PRE_MLP_NORM, QUERY, QUERY_NORM, UP, VALUE,
};
use super::{FamilyFile, ModelType, rotary};
use crate::config::{Fields, rope_spec};
use crate::declared::Declared;
use crate::gguf::{
    Gguf, GgufError, GgufRules, Keys, RopeFactors, Set, StoredRope, head_widths, object, with_heads,
};
use crate::{
    Activation, AttentionSpec, ConfigError, Family, LayerSpec, MlpSpec, ModelSpec, MoeSpec, NormPlacement,
    limits,
};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "qwen3";

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "qwen3",
    model_types: &[ModelType { name: MODEL_TYPE, read: spec, architecture: Some("Qwen3ForCausalLM") }],
    tensors: TENSORS,
    gguf: GgufRules { config: gguf_config, ..RULES },
};

/// What the dense and the sparse models' files have alike.
pub(super) const RULES: GgufRules = GgufRules {
    config: gguf_config,
    metadata: gguf_metadata,
    activation: ("hidden_act", Activation::SILU),
    score_width: |_, attention| attention.head_dim,
    attention_bias: false,
    pads_vocabulary: true,
    windows: false,
    loads: |_| Ok(()),
    sliding_rope: false,
    rope_factors: RopeFactors::Never,
    yarn_truncates: true,
    yarn_keys: false,
};

const TENSORS: &[Declared] = &[
    EMBEDDING,
    ATTENTION_NORM,
    QUERY,
    QUERY_NORM,
    KEY,
    KEY_NORM,
    VALUE,
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

/// The second half of a layer.
pub(super) type FeedForward = (Option<MlpSpec>, Option<MoeSpec>);

fn spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let dim = fields.int("head_dim", 2..=limits::HEAD_DIM)?;
    let width = fields.int("intermediate_size", 1..=limits::WIDTH)?;
    let mlp = MlpSpec { width, activation: gate(fields)?, bias: false };
    layered(fields, Family::Qwen3, MODEL_TYPE, dim, |_| (Some(mlp), None))
}

/// The activation of the MLP's and the experts' gates.
pub(super) fn gate(fields: &Fields<'_>) -> Result<Activation, ConfigError> {
    activation(fields, "hidden_act", Activation::SILU)
}

/// What the dense and the sparse models' configurations have alike, with each layer's second half.
///
/// Sizes and theta have to be there: the reference's own are none that was published.
pub(super) fn layered(
    fields: &Fields<'_>,
    family: Family,
    model_type: &'static str,
    head_dim: usize,
    feed_forward: impl Fn(usize) -> FeedForward,
) -> Result<ModelSpec, ConfigError> {
    check_head_dim(fields, "head_dim", head_dim)?;
    let count = fields.int("num_hidden_layers", 1..=limits::LAYERS)?;
    let attention = AttentionSpec { qk_norm: true, ..said_heads(fields, head_dim)? };
    fields.must_be_off("attention_bias")?;
    full_layers_only(fields, count)?;
    let max_positions = fields.int("max_position_embeddings", 1..=limits::POSITIONS)?;
    rotary::must_have_theta(fields)?;
    let rope = rotary::of_heads(fields, max_positions, model_type, head_dim)?;
    let tokens = SpecialTokens::read(fields, Defaults::default())?;
    let norms = NormPlacement::Pre;
    let layer = |(mlp, moe)| LayerSpec { attention: attention.clone(), mlp, moe, norms, layer_scalar: false };
    let spec = ModelSpec {
        family,
        vocab_size: fields.int("vocab_size", 1..=limits::VOCAB)?,
        hidden_size: fields.int("hidden_size", 2..=limits::HIDDEN)?,
        layers: (0..count).map(|index| layer(feed_forward(index))).collect(),
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
    fields.finish(model_type)?;
    Ok(spec)
}

fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config) = stored(gguf, keys, "Qwen3ForCausalLM", MODEL_TYPE, FILE.name)?;
    let width = keys.alike("feed_forward_length", layers)?;
    let width = width.ok_or_else(|| keys.missing("feed_forward_length"))?;
    config.insert("intermediate_size".into(), json!(width));
    Ok(config)
}

/// What a GGUF says, as `config.json`, but for the second half of layers; and the number of these.
pub(super) fn stored(
    gguf: &Gguf,
    keys: &Keys<'_>,
    class: &str,
    model_type: &str,
    architecture: &'static str,
) -> Result<(usize, Map<String, Value>), GgufError> {
    let (layers, mut config, dim) = with_heads(keys)?;
    config.extend(object(json!({
        "architectures": [class],
        "model_type": model_type,
        "hidden_act": "silu",
        "rope_parameters": StoredRope::read(gguf, keys)?.without_factors(architecture)?.parameters(dim)?,
    })));
    Ok((layers, config))
}

/// Keys of these architectures alone: the width of heads.
pub(super) fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    head_widths(set, spec);
}
