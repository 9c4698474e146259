//! Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: Llama with fused projections, heads of which a part turns, and frequencies that
//! are others in long contexts.

use super::shared::{
    Defaults, SpecialTokens, activation, check_head_dim, check_heads, head_dim_or_quotient, quantization,
};
use super::tensors::{
    ATTENTION_NORM, DOWN, EMBEDDING, FINAL_NORM, FREQUENCIES, GATE, HEAD, KEY, LAYER_FREQUENCIES, OUTPUT,
    PRE_MLP_NORM, QUERY, UP, VALUE,
};
use super::{FamilyFile, ModelType, rotary};
use crate::config::{Around, Fields, OfPhi, RopeParameters, check_factors, rope_spec};
use crate::declared::{Declared, Fused, Layout, Part};
use crate::gguf::{
    Gguf, GgufError, GgufRules, Keys, RopeFactors, Set, StoredRope, common, full_layer, int, number, object,
};
use crate::{
    Activation, AttentionSpec, ConfigError, Family, LayerSpec, MlpSpec, ModelSpec, NormPlacement, RopeKind,
    limits,
};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "phi3";
/// Context before the extension, where the configuration does not say it on top.
const ORIGINAL: f64 = 4096.0;

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "phi3",
    model_types: &[ModelType { name: MODEL_TYPE, read: spec, architecture: Some("Phi3ForCausalLM") }],
    tensors: TENSORS,
    gguf: GgufRules {
        config: gguf_config,
        metadata: gguf_metadata,
        activation: ("hidden_act", Activation::SILU),
        score_width: |_, attention| attention.head_dim,
        attention_bias: false,
        pads_vocabulary: true,
        windows: false,
        loads: gguf_loads,
        sliding_rope: false,
        rope_factors: RopeFactors::ShortAndLong,
        yarn_truncates: true,
        yarn_keys: false,
    },
};

const QKV: Layout = Layout::Fused(&Fused {
    hub: "model.layers.N.self_attn.qkv_proj.weight",
    gguf: "blk.N.attn_qkv.weight",
    parts: &[Part::Query, Part::Key, Part::Value],
});
const GATE_UP: Layout = Layout::Fused(&Fused {
    hub: "model.layers.N.mlp.gate_up_proj.weight",
    gguf: "blk.N.ffn_up.weight",
    parts: &[Part::Gate, Part::Up],
});

const TENSORS: &[Declared] = &[
    EMBEDDING,
    ATTENTION_NORM,
    QUERY.stored(QKV),
    KEY.stored(QKV),
    VALUE.stored(QKV),
    OUTPUT,
    PRE_MLP_NORM,
    Declared { gguf: None, ..GATE.stored(GATE_UP) },
    Declared { gguf: None, ..UP.stored(GATE_UP) },
    DOWN,
    LAYER_FREQUENCIES,
    FINAL_NORM,
    HEAD,
    FREQUENCIES,
];

/// Sizes have to be there: the class's own are those of one published model.
fn spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let hidden_size = fields.int("hidden_size", 2..=limits::HIDDEN)?;
    let heads = fields.int("num_attention_heads", 1..=limits::HEADS)?;
    let kv_heads = fields.opt_int("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(heads);
    let head_dim = head_dim_or_quotient(fields, hidden_size, heads)?;
    let attention = AttentionSpec {
        window: fields.opt_int("sliding_window", 1..=limits::POSITIONS)?,
        ..AttentionSpec::new(heads, kv_heads, head_dim)
    };
    check_heads(0, &attention)?;
    // Keys of the publisher's own code, which the class does not read.
    ["attention_bias", "mlp_bias", "lm_head_bias"].into_iter().try_for_each(|key| fields.must_be_off(key))?;
    for key in ["full_attn_mod", "interpolate_factor"] {
        fields.opt_int(key, 1..=1)?;
    }
    let mlp = MlpSpec {
        width: fields.int("intermediate_size", 1..=limits::WIDTH)?,
        activation: activation(fields, "hidden_act", Activation::SILU)?,
        bias: false,
    };
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(4096);
    let rope = rope(fields, max_positions, head_dim)?;
    let absent = Defaults { bos: Some(1), eos: Some(32_000), pad: Some(32_000) };
    let tokens = SpecialTokens::read(fields, absent)?;
    let layer =
        LayerSpec { attention, mlp: Some(mlp), moe: None, norms: NormPlacement::Pre, layer_scalar: false };
    let spec = ModelSpec {
        family: Family::Phi3,
        vocab_size: fields.int("vocab_size", 1..=limits::VOCAB)?,
        hidden_size,
        layers: vec![layer; fields.int("num_hidden_layers", 1..=limits::LAYERS)?],
        ropes: vec![rope_spec(&rope, head_dim)],
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
        quantization: quantization(fields)?,
    };
    fields.finish(MODEL_TYPE)?;
    Ok(spec)
}

/// Rotary keys: plain, or LongRoPE around the original context that stands on top, whatever the parameters say of it.
fn rope(fields: &Fields<'_>, max_positions: usize, head_dim: usize) -> Result<RopeParameters, ConfigError> {
    let theta = fields.opt_float("rope_theta", 1.0..=1e12)?;
    let fraction = fields.opt_float("partial_rotary_factor", 0.0..=1.0)?;
    let original = fields.opt_float("original_max_position_embeddings", 1.0..=1e9)?.unwrap_or(ORIGINAL);
    let of_phi = OfPhi { rotary_fraction: fraction.unwrap_or(1.0) };
    let default = rotary::DEFAULT_THETA;
    let around = Around {
        theta: Some(theta.unwrap_or(default)),
        max_positions,
        original: Some(original),
        of_phi: Some(of_phi),
    };
    let read = |key: &str| {
        let object = fields.opt_object(key)?;
        object.map(|object| RopeParameters::read(&object, around, MODEL_TYPE)).transpose()
    };
    let (new, old) = (read("rope_parameters")?, read("rope_scaling")?);
    let theta = rotary::Theta { key: "rope_theta", said: theta, default };
    let mut rope = rotary::agreed(fields, theta, "rope_parameters", new, old)?;
    if fields.opt_object("rope_parameters")?.is_none() && fields.opt_object("rope_scaling")?.is_none() {
        rope.rotary_fraction = of_phi.rotary_fraction;
    }
    if !matches!(rope.kind, RopeKind::Default | RopeKind::Factors) {
        let key = if fields.value("rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
        let value = Value::from("another rope_type");
        return Err(fields.unsupported(key, &value, "default, longrope"));
    }
    let turning = (rope.rotary_fraction * head_dim as f64) as usize;
    if turning == 0 {
        let value = Value::from(rope.rotary_fraction);
        return Err(fields.unsupported("partial_rotary_factor", &value, "a part of a head of two or more"));
    }
    check_head_dim(fields, "partial_rotary_factor", turning)?;
    check_factors(fields, &rope, head_dim)?;
    Ok(rope)
}

/// What a GGUF says, as `config.json`. llama.cpp does not read a part of this: which list of factors counts it decides by
/// the context that it is started with.
fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config) = common(keys)?;
    let heads = number(&config, "num_attention_heads");
    let derived = number(&config, "hidden_size") / heads.max(1);
    let dim = keys.opt_int("attention.key_length")?.unwrap_or(derived);
    keys.same("attention.value_length", dim, derived)?;
    let turning = keys.opt_int("rope.dimension_count")?.unwrap_or(dim);
    if turning == 0 || turning > dim || turning % 2 != 0 {
        let fault = format!("{turning} dimensions of heads that are {dim} wide");
        return Err(keys.contradiction("rope.dimension_count", fault));
    }
    let rope = StoredRope::read(gguf, keys)?.without_factors(FILE.name)?;
    let original = keys.opt_int("rope.scaling.original_context_length")?.filter(|length| *length > 0);
    let mut parameters = rope.parameters_of_both(gguf, turning)?;
    parameters["partial_rotary_factor"] = json!(fraction(turning, dim));
    let window = keys.opt_int("attention.sliding_window")?.filter(|window| *window > 0);
    config.extend(object(json!({
        "architectures": ["Phi3ForCausalLM"],
        "model_type": MODEL_TYPE,
        "num_key_value_heads": keys.alike("attention.head_count_kv", layers)?.unwrap_or(heads),
        "head_dim": dim,
        "intermediate_size": keys.alike("feed_forward_length", layers)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        "hidden_act": "silu",
        "original_max_position_embeddings": original.unwrap_or(keys.int("context_length")?),
        "rope_parameters": parameters,
        "sliding_window": window,
    })));
    Ok(config)
}

/// The part of a head that is cut back to so many dimensions.
fn fraction(turning: u64, dim: u64) -> f64 {
    let fraction = turning as f64 / dim.max(1) as f64;
    match (fraction * dim as f64) as u64 == turning {
        true => fraction,
        false => (turning as f64 + 0.5) / dim as f64,
    }
}

/// llama.cpp's output projection is as wide as the residual stream on both sides.
fn gguf_loads(spec: &ModelSpec) -> Result<(), GgufError> {
    let width = full_layer(spec).map_or(0, |layer| layer.attention.q_width());
    match width == spec.hidden_size {
        true => Ok(()),
        false => Err(GgufError::Unsupported {
            key: "head_dim".to_owned(),
            actual: format!("{width} for all heads"),
            supported: format!("the hidden size, {}", spec.hidden_size),
        }),
    }
}

/// Keys of this architecture alone. The engine reads no window: one that is as long as the longest text is named as the
/// converter names it, a shorter one is refused.
fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    set("vocab_size", int(spec.vocab_size));
    let rope = spec.ropes.first();
    set("rope.dimension_count", int(rope.map_or(0, crate::RopeSpec::turning)));
    let original = spec.short_context().unwrap_or(spec.max_positions);
    set("rope.scaling.original_context_length", int(original));
    let window = full_layer(spec).and_then(|layer| layer.attention.window);
    set("attention.sliding_window", int(window.unwrap_or(0)));
}
