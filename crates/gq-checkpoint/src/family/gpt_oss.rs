//! GPT-OSS: windows on every second layer, a score of each head that stands for no position, experts in every layer with
//! biases and a gate that is cut.

use super::shared::{
    Defaults, LayerType, SpecialTokens, check_head_dim, layer_types, quantization, said_heads,
};
use super::tensors::{
    ATTENTION_NORM, EMBEDDING, FINAL_NORM, FREQUENCIES, HEAD, KEY, KEY_BIAS, LAYER_FREQUENCIES, OUTPUT,
    OUTPUT_BIAS, QUERY, QUERY_BIAS, VALUE, VALUE_BIAS,
};
use super::{FamilyFile, ModelType, rotary};
use crate::config::{Fields, RopeParameters, rope_spec};
use crate::declared::{Declared, Dim, Layout, Part, When};
use crate::gguf::{
    Array, Gguf, GgufError, GgufRules, Keys, RopeFactors, Set, StoredRope, Value as Metadatum, head_widths,
    int, named_types, object, own_factor, pattern, window, with_heads,
};
use crate::{
    Activation, AttentionSpec, ConfigError, Curve, Family, LayerSpec, ModelSpec, MoeSpec, NormPlacement,
    Role, RopeKind, RouterSpec, Scoring, limits,
};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "gpt_oss";
/// Where a GGUF has full layers, if it does not say: every second.
const PERIOD: usize = 2;
/// The gate of the published models: `x sigmoid(1.702 x)`, cut at 7, times the up value and one.
const GATE: Activation =
    Activation { curve: Curve::Swish { alpha: 1.702 }, limit: Some(7.0), up_offset: 1.0 };

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "gpt-oss",
    model_types: &[ModelType { name: MODEL_TYPE, read: spec, architecture: Some("GptOssForCausalLM") }],
    tensors: TENSORS,
    gguf: GgufRules {
        config: gguf_config,
        metadata: gguf_metadata,
        activation: ("swiglu_limit", GATE),
        score_width: |_, attention| attention.head_dim,
        attention_bias: true,
        pads_vocabulary: true,
        windows: true,
        loads: gguf_loads,
        sliding_rope: false,
        rope_factors: RopeFactors::Never,
        yarn_truncates: false,
        yarn_keys: false,
    },
};

#[rustfmt::skip]
const TENSORS: &[Declared] = &[
    EMBEDDING,
    ATTENTION_NORM,
    QUERY,
    QUERY_BIAS.when(&[When::AttentionBias]),
    KEY,
    KEY_BIAS.when(&[When::AttentionBias]),
    VALUE,
    VALUE_BIAS.when(&[When::AttentionBias]),
    Declared::new(Part::Sinks, "model.layers.N.self_attn.sinks", "blk.N.attn_sinks.weight", Role::Scalar, &[Dim::Heads]),
    OUTPUT,
    OUTPUT_BIAS.when(&[When::AttentionBias]),
    Declared::norm(Part::MlpNorm, "model.layers.N.post_attention_layernorm.weight", "blk.N.post_attention_norm.weight", &[Dim::Hidden]),
    Declared::new(Part::Router, "model.layers.N.mlp.router.weight", "blk.N.ffn_gate_inp.weight", Role::Router, &[Dim::Experts, Dim::Hidden])
        .spelled(&["model.layers.N.mlp.router.linear.weight"]),
    Declared::new(Part::RouterBias, "model.layers.N.mlp.router.bias", "blk.N.ffn_gate_inp.bias", Role::Bias, &[Dim::Experts])
        .spelled(&["model.layers.N.mlp.router.linear.bias"]),
    Declared::new(Part::ExpertGateUp, "model.layers.N.mlp.experts.gate_up_proj", "blk.N.ffn_gate_up_exps.weight", Role::ExpertGateUp, &[Dim::Experts, Dim::ExpertGateUp, Dim::Hidden])
        .stored(Layout::Transposed { alternating: true, gguf: &["blk.N.ffn_gate_exps.weight", "blk.N.ffn_up_exps.weight"] }),
    Declared::new(Part::ExpertGateUpBias, "model.layers.N.mlp.experts.gate_up_proj_bias", "blk.N.ffn_gate_up_exps.bias", Role::Bias, &[Dim::Experts, Dim::Two, Dim::Expert])
        .stored(Layout::Transposed { alternating: false, gguf: &["blk.N.ffn_gate_exps.bias", "blk.N.ffn_up_exps.bias"] }),
    Declared::new(Part::ExpertDown, "model.layers.N.mlp.experts.down_proj", "blk.N.ffn_down_exps.weight", Role::ExpertDown, &[Dim::Experts, Dim::Hidden, Dim::Expert])
        .stored(Layout::Transposed { alternating: false, gguf: &[] }),
    Declared::new(Part::ExpertDownBias, "model.layers.N.mlp.experts.down_proj_bias", "blk.N.ffn_down_exps.bias", Role::Bias, &[Dim::Experts, Dim::Hidden]),
    LAYER_FREQUENCIES,
    FINAL_NORM,
    HEAD,
    FREQUENCIES,
];

/// Sizes have to be there: the class's own are those of one published model.
fn spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let dim = fields.int("head_dim", 2..=limits::HEAD_DIM)?;
    check_head_dim(fields, "head_dim", dim)?;
    let count = fields.int("num_hidden_layers", 1..=limits::LAYERS)?;
    let heads = said_heads(fields, dim)?;
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(131_072);
    let types = layer_types(fields, count, PERIOD)?;
    let window = fields.opt_int("sliding_window", 1..=limits::POSITIONS)?;
    let window = match window {
        None if types.contains(&LayerType::Sliding) => return Err(fields.missing("sliding_window")),
        window => window,
    };
    rotary::must_have_theta(fields)?;
    let rope = rope(fields, max_positions, dim)?;
    let attention = AttentionSpec { bias: biases(fields)?, sinks: true, ..heads };
    let moe = experts(fields)?;
    let layer = |layer_type: &LayerType| LayerSpec {
        attention: AttentionSpec {
            window: window.filter(|_| *layer_type == LayerType::Sliding),
            ..attention.clone()
        },
        mlp: None,
        moe: Some(moe),
        norms: NormPlacement::Pre,
        layer_scalar: false,
    };
    let tokens = SpecialTokens::read(fields, Defaults::default())?;
    fields.irrelevant(&["hidden_act", "initial_context_length"]); // what the reference writes, but does not read
    let spec = ModelSpec {
        family: Family::GptOss,
        vocab_size: fields.int("vocab_size", 1..=limits::VOCAB)?,
        hidden_size: fields.int("hidden_size", 2..=limits::HIDDEN)?,
        layers: types.iter().map(layer).collect(),
        ropes: vec![rope_spec(&rope, dim)],
        norm_eps: fields.opt_float("rms_norm_eps", 0.0..=1.0)?.unwrap_or(1e-5) as f32,
        norm_plus_one: false,
        embed_scale: None,
        final_softcap: None,
        tied_head: fields.bool_or("tie_word_embeddings", false)?,
        max_positions,
        bos: tokens.bos,
        eos: tokens.eos,
        pad: tokens.pad,
        per_layer_embedding: None,
        quantization: stored_as(fields)?,
    };
    fields.finish(MODEL_TYPE)?;
    Ok(spec)
}

/// Rotary keys. Where neither spelling says anything they are those of the published models, as in the class.
fn rope(fields: &Fields<'_>, max_positions: usize, dim: usize) -> Result<RopeParameters, ConfigError> {
    let empty = fields.opt_object("rope_scaling")?.is_none_or(|old| old.keys().next().is_none());
    if fields.opt_object("rope_parameters")?.is_some() || !empty {
        return rotary::of_heads(fields, max_positions, MODEL_TYPE, dim);
    }
    let theta = fields.opt_float("rope_theta", 1.0..=1e12)?.ok_or_else(|| fields.missing("rope_theta"))?;
    let kind = RopeKind::Yarn {
        factor: 32.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        original_max_positions: fields
            .opt_float("original_max_position_embeddings", 1.0..=1e9)?
            .unwrap_or(4096.0),
        truncate: false,
    };
    Ok(RopeParameters { kind, attention_factor: own_factor(32.0), ..RopeParameters::default(theta) })
}

/// Every projection of attention has a bias: engines need them.
fn biases(fields: &Fields<'_>) -> Result<bool, ConfigError> {
    match fields.bool_or("attention_bias", true)? {
        true => Ok(true),
        false => Err(fields.unsupported("attention_bias", &Value::Bool(false), "true")),
    }
}

/// Experts of every layer: the largest scores chosen, and a softmax over those alone.
fn experts(fields: &Fields<'_>) -> Result<MoeSpec, ConfigError> {
    let experts = fields.int("num_local_experts", 1..=limits::EXPERTS)?;
    let top_k = fields.opt_int("num_experts_per_tok", 1..=experts as u64)?;
    let older = fields.opt_int("experts_per_token", 1..=experts as u64)?;
    let top_k = match (top_k, older) {
        (Some(top_k), Some(older)) if top_k != older => {
            return Err(ConfigError::Disagree {
                field: fields.path("num_experts_per_tok"),
                value: top_k.to_string(),
                other: fields.path("experts_per_token"),
                other_value: older.to_string(),
            });
        }
        (top_k, older) => top_k.or(older).ok_or_else(|| fields.missing("num_experts_per_tok"))?,
    };
    let alpha = fields.opt_float("swiglu_alpha", 1e-3..=1e3)?.unwrap_or(1.702) as f32;
    let limit = fields.opt_float("swiglu_limit", 1e-3..=1e9)?.unwrap_or(7.0) as f32;
    let router = RouterSpec { scoring: Scoring::SoftmaxOfChosen, ..RouterSpec::softmax(top_k) };
    Ok(MoeSpec {
        experts,
        width: fields.int("intermediate_size", 1..=limits::WIDTH / 2)?,
        activation: Activation { curve: Curve::Swish { alpha }, limit: Some(limit), ..GATE },
        router,
        input_scale: None,
        shared_width: None,
    })
}

/// How weights were stored: as MXFP4 where the experts' tensors are codes, whatever is listed not to be.
fn stored_as(fields: &Fields<'_>) -> Result<Option<String>, ConfigError> {
    let config = fields.opt_object("quantization_config")?;
    match config.and_then(|config| config.value("quant_method")) {
        Some(method) if method == "mxfp4" => Ok(Some("mxfp4".to_owned())),
        _ => quantization(fields),
    }
}

/// What a GGUF says, as `config.json`.
fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config, dim) = with_heads(keys)?;
    let rope = StoredRope::read(gguf, keys)?.without_factors(FILE.name)?;
    keys.same_float("rope.freq_base_swa", rope.theta())?;
    let mut rope = rope.parameters(dim)?;
    if rope["rope_type"] == "yarn" {
        rope["truncate"] = json!(false);
    }
    let sliding = keys.opt_pattern("attention.sliding_window_pattern", layers)?;
    let sliding = sliding.unwrap_or_else(|| (1..=layers).map(|n| n % PERIOD != 0).collect());
    keys.alike("feed_forward_length", layers)?;
    let width = keys.alike("expert_feed_forward_length", layers)?;
    config.extend(object(json!({
        "architectures": ["GptOssForCausalLM"],
        "model_type": MODEL_TYPE,
        "intermediate_size": width.ok_or_else(|| keys.missing("expert_feed_forward_length"))?,
        "num_local_experts": keys.int("expert_count")?,
        "num_experts_per_tok": keys.int("expert_used_count")?,
        "sliding_window": keys.int("attention.sliding_window")?,
        "layer_types": named_types(&sliding),
        "rope_parameters": rope,
    })));
    Ok(config)
}

/// llama.cpp asserts that a layer has a window, and looks for a head.
fn gguf_loads(spec: &ModelSpec) -> Result<(), GgufError> {
    let unsupported = |key: &str, actual: &str, supported: &str| GgufError::Unsupported {
        key: key.to_owned(),
        actual: actual.to_owned(),
        supported: supported.to_owned(),
    };
    if !pattern(spec).contains(&true) {
        return Err(unsupported("layer_types", "full_attention for all", "a layer with a window"));
    }
    match spec.tied_head {
        true => Err(unsupported("tie_word_embeddings", "true", "false: the engine wants a head")),
        false => Ok(()),
    }
}

/// Keys of this architecture alone.
fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    head_widths(set, spec);
    set("attention.sliding_window", int(window(spec).unwrap_or(spec.max_positions)));
    let sliding = pattern(spec);
    if sliding.iter().enumerate().any(|(i, &sliding)| sliding != ((i + 1) % PERIOD != 0)) {
        set("attention.sliding_window_pattern", Metadatum::Array(Array::Bool(sliding)));
    }
    if let Some(moe) = spec.layers.iter().find_map(|layer| layer.moe) {
        set("expert_feed_forward_length", int(moe.width));
    }
}
