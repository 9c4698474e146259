//! Gemma 4, text: two head sizes, proportional rotary embedding on full layers, shared caches, K = V layers,
//! per-layer embeddings, experts next to a dense MLP.

use super::shared::{
    Defaults, LayerType, SpecialTokens, activation, check_head_dim, check_heads, inverse_sqrt, layer_types,
    quantization, rope_index,
};
use super::tensors::{
    ATTENTION_NORM, DOWN, EMBEDDING, FINAL_NORM, FREQUENCIES, GATE, HEAD, KEY, KEY_BIAS, KEY_NORM,
    LAYER_FREQUENCIES, MLP_NORM, OUTPUT, OUTPUT_BIAS, POST_ATTENTION_NORM, POST_MLP_NORM, QUERY, QUERY_BIAS,
    QUERY_NORM, UP, VALUE, VALUE_BIAS,
};
use super::{FamilyFile, ModelType};
use crate::config::{Around, Fields, RopeParameters, check_factors, rope_spec};
use crate::declared::{Declared, Dim, Part, When};
use crate::gguf::{GgufRules, RopeFactors};
use crate::{
    Activation, AttentionSpec, ConfigError, Family, LayerSpec, MlpSpec, ModelSpec, MoeSpec, NormPlacement,
    PerLayerEmbedding, Role, RopeKind, RouterSpec, limits,
};
use serde_json::Value;

mod stored;

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "gemma4",
    model_types: &[
        ModelType { name: "gemma4_text", read: text_spec, architecture: Some("Gemma4ForCausalLM") },
        ModelType { name: "gemma4", read: wrapper_spec, architecture: None },
        ModelType { name: "gemma4_unified_text", read: text_spec, architecture: None },
        ModelType { name: "gemma4_unified", read: wrapper_spec, architecture: None },
    ],
    tensors: TENSORS,
    gguf: GgufRules {
        config: stored::config,
        metadata: stored::metadata,
        activation: ("hidden_activation", Activation::GELU_TANH),
        score_width: |_, _| 1,
        attention_bias: false,
        pads_vocabulary: false,
        windows: true,
        loads: |_| Ok(()),
        sliding_rope: true,
        rope_factors: RopeFactors::Always,
        yarn_truncates: true,
        yarn_keys: false,
    },
};

#[rustfmt::skip]
const TENSORS: &[Declared] = &[
    EMBEDDING,
    Declared::new(Part::PerLayerTable, "model.embed_tokens_per_layer.weight", "per_layer_token_embd.weight", Role::PerLayerTable, &[Dim::PerLayerVocab, Dim::PerLayerAll]),
    Declared::new(Part::PerLayerModelProjection, "model.per_layer_model_projection.weight", "per_layer_model_proj.weight", Role::PerLayerProjection, &[Dim::PerLayerAll, Dim::Hidden]),
    Declared::norm(Part::PerLayerModelNorm, "model.per_layer_projection_norm.weight", "per_layer_proj_norm.weight", &[Dim::PerLayer]),
    ATTENTION_NORM,
    QUERY,
    QUERY_BIAS.when(&[When::AttentionBias]),
    KEY.when(&[When::OwnCache]),
    KEY_BIAS.when(&[When::OwnCache, When::AttentionBias]),
    VALUE.when(&[When::OwnCache, When::OwnValues]),
    VALUE_BIAS.when(&[When::OwnCache, When::OwnValues, When::AttentionBias]),
    QUERY_NORM,
    KEY_NORM,
    Declared::unused(Part::ValueNorm, "model.layers.N.self_attn.v_norm.weight", &[When::OwnCache, When::Never]),
    OUTPUT,
    OUTPUT_BIAS.when(&[When::AttentionBias]),
    POST_ATTENTION_NORM,
    MLP_NORM,
    GATE,
    UP,
    DOWN,
    Declared::norm(Part::DenseNorm, "model.layers.N.post_feedforward_layernorm_1.weight", "blk.N.post_ffw_norm_1.weight", &[Dim::Hidden]).when(EXPERTS),
    Declared::new(Part::RouterScale, "model.layers.N.router.scale", "blk.N.ffn_gate_inp.scale", Role::Scalar, &[Dim::Hidden]).when(EXPERTS),
    Declared::new(Part::Router, "model.layers.N.router.proj.weight", "blk.N.ffn_gate_inp.weight", Role::Router, &[Dim::Experts, Dim::Hidden]),
    Declared::new(Part::ExpertScale, "model.layers.N.router.per_expert_scale", "blk.N.ffn_down_exps.scale", Role::Scalar, &[Dim::Experts]),
    Declared::norm(Part::ExpertNorm, "model.layers.N.pre_feedforward_layernorm_2.weight", "blk.N.pre_ffw_norm_2.weight", &[Dim::Hidden]).when(EXPERTS),
    Declared::new(Part::ExpertGateUp, "model.layers.N.experts.gate_up_proj", "blk.N.ffn_gate_up_exps.weight", Role::ExpertGateUp, &[Dim::Experts, Dim::ExpertGateUp, Dim::Hidden]),
    Declared::new(Part::ExpertDown, "model.layers.N.experts.down_proj", "blk.N.ffn_down_exps.weight", Role::ExpertDown, &[Dim::Experts, Dim::Hidden, Dim::Expert]),
    Declared::norm(Part::PostExpertNorm, "model.layers.N.post_feedforward_layernorm_2.weight", "blk.N.post_ffw_norm_2.weight", &[Dim::Hidden]).when(EXPERTS),
    POST_MLP_NORM,
    Declared::new(Part::PerLayerGate, "model.layers.N.per_layer_input_gate.weight", "blk.N.inp_gate.weight", Role::PerLayerGate, &[Dim::PerLayer, Dim::Hidden]),
    Declared::new(Part::PerLayerProjection, "model.layers.N.per_layer_projection.weight", "blk.N.proj.weight", Role::PerLayerProjection, &[Dim::Hidden, Dim::PerLayer]),
    Declared::norm(Part::PerLayerNorm, "model.layers.N.post_per_layer_input_norm.weight", "blk.N.post_norm.weight", &[Dim::Hidden]).when(&[When::PerLayer]),
    Declared::new(Part::LayerScalar, "model.layers.N.layer_scalar", "blk.N.layer_output_scale.weight", Role::Scalar, &[Dim::One]).when(&[When::LayerScalar]),
    LAYER_FREQUENCIES,
    FINAL_NORM,
    HEAD,
    FREQUENCIES,
];

/// Of a layer with experts.
const EXPERTS: &[When] = &[When::Experts];

/// Every sixth layer is full where `layer_types` is absent.
const PATTERN: usize = 6;

/// Keys of the wrapper that concern images, video and sound.
const WRAPPER_IRRELEVANT: &[&str] = &[
    "vision_config",
    "audio_config",
    "boi_token_id",
    "eoi_token_id",
    "boa_token_id",
    "eoa_token_id",
    "eoa_token_index",
    "image_token_id",
    "video_token_id",
    "audio_token_id",
    "vision_soft_tokens_per_image",
    "audio_soft_tokens_per_image",
    "audio_ms_per_token",
];

/// `Gemma4ForConditionalGeneration` and the unified variant: the text part, under `text_config`.
fn wrapper_spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let text = fields.opt_object("text_config")?.ok_or_else(|| fields.missing("text_config"))?;
    let unified = fields.string("model_type")? == "gemma4_unified";
    text.one_of("model_type", "gemma4_text, gemma4_unified_text")?;
    let mut spec = spec(&text, unified)?;
    fields.irrelevant(WRAPPER_IRRELEVANT);
    let inner = SpecialTokens { bos: spec.bos, eos: spec.eos, pad: spec.pad };
    let tokens = SpecialTokens::read(fields, Defaults::default())?.or(inner);
    (spec.bos, spec.eos, spec.pad) = (tokens.bos, tokens.eos, tokens.pad);
    spec.tied_head = fields.opt_bool("tie_word_embeddings")?.unwrap_or(spec.tied_head);
    spec.quantization = quantization(fields)?.or(spec.quantization);
    fields.finish("gemma4")?;
    Ok(spec)
}

/// `Gemma4ForCausalLM`.
fn text_spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let unified = fields.string("model_type")? == "gemma4_unified_text";
    spec(fields, unified)
}

/// Absent fields have the defaults of the reference, which wrapped files rely on.
fn spec(fields: &Fields<'_>, unified: bool) -> Result<ModelSpec, ConfigError> {
    let model_type = if unified { "gemma4_unified_text" } else { "gemma4_text" };
    fields.irrelevant(&["model_type", "hidden_act"]); // of the activations, hidden_activation is read
    let hidden_size = fields.opt_int("hidden_size", 2..=limits::HIDDEN)?.unwrap_or(2304);
    let positions = if unified { 262_144 } else { 131_072 };
    let max_positions =
        fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(positions);
    let layers = layers(fields, unified, max_positions, model_type)?;
    let per_layer_embedding = per_layer_embedding(fields, hidden_size, if unified { 0 } else { 256 })?;
    let tokens = SpecialTokens::read(fields, Defaults::GEMMA)?;
    match fields.value("use_bidirectional_attention") {
        // "vision": image tokens only, text stays causal.
        None | Some(Value::Bool(false)) => {}
        Some(Value::String(whom)) if whom == "vision" => {}
        Some(value) => return Err(fields.unsupported("use_bidirectional_attention", value, "null, vision")),
    }
    let spec = ModelSpec {
        family: Family::Gemma4,
        vocab_size: fields.opt_int("vocab_size", 1..=limits::VOCAB)?.unwrap_or(262_144),
        hidden_size,
        layers: layers.list,
        ropes: layers.ropes,
        norm_eps: fields.opt_float("rms_norm_eps", 0.0..=1.0)?.unwrap_or(1e-6) as f32,
        norm_plus_one: false,
        embed_scale: Some((hidden_size as f64).sqrt() as f32),
        final_softcap: fields.opt_float("final_logit_softcapping", 1e-3..=1e9)?.map(|cap| cap as f32),
        tied_head: fields.bool_or("tie_word_embeddings", true)?,
        max_positions,
        bos: tokens.bos,
        eos: tokens.eos,
        pad: tokens.pad,
        per_layer_embedding,
        quantization: quantization(fields)?,
    };
    fields.finish(model_type)?;
    Ok(spec)
}

struct Layers {
    list: Vec<LayerSpec>,
    ropes: Vec<crate::RopeSpec>,
}

fn layers(
    fields: &Fields<'_>,
    unified: bool,
    max_positions: usize,
    model_type: &str,
) -> Result<Layers, ConfigError> {
    let hidden_size = fields.opt_int("hidden_size", 2..=limits::HIDDEN)?.unwrap_or(2304);
    let count = fields.opt_int("num_hidden_layers", 1..=limits::LAYERS)?.unwrap_or(30);
    let mut types = layer_types(fields, count, PATTERN)?;
    if let Some(last) = types.last_mut() {
        *last = LayerType::Full; // The reference forces it.
    }
    let window = fields.opt_int("sliding_window", 1..=limits::POSITIONS)?;
    let window = window.unwrap_or(if unified { 1024 } else { 512 });
    let k_eq_v = fields.bool_or("attention_k_eq_v", false)?;
    let bias = fields.bool_or("attention_bias", false)?;
    let heads = fields.opt_int("num_attention_heads", 1..=limits::HEADS)?.unwrap_or(8);
    let shapes = head_shapes(fields, &types, k_eq_v)?;
    let shared = fields.opt_int("num_kv_shared_layers", 0..=count as u64)?.unwrap_or(0);
    let width = fields.opt_int("intermediate_size", 1..=limits::WIDTH / 2)?.unwrap_or(9216);
    let double = fields.bool_or("use_double_wide_mlp", false)?;
    let activation = activation(fields, "hidden_activation", Activation::GELU_TANH)?;
    let moe = moe(fields, hidden_size, activation)?;
    let [sliding, full] = ropes(fields, max_positions, model_type)?;

    let mut ropes = Vec::new();
    let mut list = Vec::with_capacity(count);
    for (layer, (&layer_type, shape)) in types.iter().zip(shapes).enumerate() {
        let is_shared = layer >= count - shared;
        let kv_shared_with = is_shared.then(|| cache_of(&types, count - shared, layer)).transpose()?;
        let parameters = if layer_type == LayerType::Full { &full } else { &sliding };
        check_factors(fields, parameters, shape.head_dim)?;
        let attention = AttentionSpec {
            window: (layer_type == LayerType::Sliding).then_some(window),
            rope: rope_index(&mut ropes, rope_spec(parameters, shape.head_dim)),
            scale: 1.0,
            qk_norm: true,
            v_norm: true,
            k_eq_v: k_eq_v && layer_type == LayerType::Full,
            kv_shared_with,
            bias,
            ..AttentionSpec::new(heads, shape.kv_heads, shape.head_dim)
        };
        check_heads(layer, &attention)?;
        let width = if double && is_shared { 2 * width } else { width };
        let mlp = Some(MlpSpec { width, activation, bias: false });
        list.push(LayerSpec { attention, mlp, moe, norms: NormPlacement::PreAndPost, layer_scalar: true });
    }
    check_shared_shapes(fields, &list)?;
    Ok(Layers { list, ropes })
}

/// The last layer of the same type that has its own keys and values.
fn cache_of(types: &[LayerType], own: usize, layer: usize) -> Result<usize, ConfigError> {
    let layer_type = types.get(layer).copied().unwrap_or(LayerType::Full);
    let maker = types.iter().take(own).rposition(|made| *made == layer_type);
    maker.ok_or_else(|| ConfigError::NoSharedCache { layer, layer_type: layer_type.name().to_owned() })
}

/// A layer can only read a cache of its own shape.
fn check_shared_shapes(fields: &Fields<'_>, layers: &[LayerSpec]) -> Result<(), ConfigError> {
    let shape = |layer: &LayerSpec| (layer.attention.kv_heads, layer.attention.head_dim);
    for (index, layer) in layers.iter().enumerate() {
        let maker = layer.attention.kv_shared_with.and_then(|maker| Some((maker, layers.get(maker)?)));
        let Some((maker, made)) = maker else { continue };
        if shape(made) != shape(layer) {
            let shown = |layer: &LayerSpec| {
                let (kv_heads, head_dim) = shape(layer);
                format!("{kv_heads} x {head_dim}")
            };
            return Err(ConfigError::Disagree {
                field: fields.path(&format!("per_layer_config.{index}")),
                value: shown(layer),
                other: fields.path(&format!("per_layer_config.{maker}")),
                other_value: shown(made),
            });
        }
    }
    Ok(())
}

/// Heads of one layer's keys and values.
#[derive(Clone, Copy, Default)]
struct HeadShape {
    head_dim: usize,
    kv_heads: usize,
}

/// Both spellings: `global_head_dim` and `num_global_key_value_heads` for all full layers (the latter only with
/// K = V), or `per_layer_config` with what differs in single layers. Where both stand they must agree.
fn head_shapes(
    fields: &Fields<'_>,
    types: &[LayerType],
    k_eq_v: bool,
) -> Result<Vec<HeadShape>, ConfigError> {
    let head_dim = fields.opt_int("head_dim", 2..=limits::HEAD_DIM)?.unwrap_or(256);
    let kv_heads = fields.opt_int("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(4);
    check_head_dim(fields, "head_dim", head_dim)?;
    let global_dim = fields.opt_int("global_head_dim", 2..=limits::HEAD_DIM)?;
    let global_kv = fields.opt_int("num_global_key_value_heads", 1..=limits::HEADS)?.filter(|_| k_eq_v);
    let plain = HeadShape { head_dim, kv_heads };
    let Some(config) = fields.opt_object("per_layer_config")? else {
        let full = HeadShape { head_dim: global_dim.unwrap_or(512), kv_heads: global_kv.unwrap_or(kv_heads) };
        check_head_dim(fields, "global_head_dim", full.head_dim)?;
        let of = |layer_type: &LayerType| if *layer_type == LayerType::Full { full } else { plain };
        return Ok(types.iter().map(of).collect());
    };
    let mut shapes = vec![plain; types.len()];
    let mut seen = vec![false; types.len()];
    for key in config.keys() {
        let layer = key.bytes().all(|b| b.is_ascii_digit()).then(|| key.parse::<usize>().ok()).flatten();
        let place = layer.and_then(|layer| Some((layer, seen.get_mut(layer)?, shapes.get_mut(layer)?)));
        let Some((layer, seen, shape)) = place else {
            let value = Value::from(key);
            return Err(config.unsupported(key, &value, "numbers of layers"));
        };
        if std::mem::replace(seen, true) {
            return Err(ConfigError::Disagree {
                field: config.path(key),
                value: "an entry".to_owned(),
                other: config.path(&layer.to_string()),
                other_value: "another entry".to_owned(),
            });
        }
        let Some(overrides) = config.opt_object(key)? else { continue };
        shape.head_dim = overrides.opt_int("head_dim", 2..=limits::HEAD_DIM)?.unwrap_or(head_dim);
        shape.kv_heads = overrides.opt_int("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(kv_heads);
        check_head_dim(&overrides, "head_dim", shape.head_dim)?;
        overrides.finish("gemma4_text")?;
    }
    let full = types.iter().zip(&shapes).enumerate().filter(|(_, (kind, _))| **kind == LayerType::Full);
    for (layer, (_, shape)) in full {
        agree(fields, "global_head_dim", global_dim, layer, "head_dim", shape.head_dim)?;
        agree(fields, "num_global_key_value_heads", global_kv, layer, "num_key_value_heads", shape.kv_heads)?;
    }
    Ok(shapes)
}

fn agree(
    fields: &Fields<'_>,
    global_key: &str,
    global: Option<usize>,
    layer: usize,
    key: &str,
    value: usize,
) -> Result<(), ConfigError> {
    match global {
        Some(global) if global != value => Err(ConfigError::Disagree {
            field: fields.path(global_key),
            value: global.to_string(),
            other: fields.path(&format!("per_layer_config.{layer}.{key}")),
            other_value: value.to_string(),
        }),
        _ => Ok(()),
    }
}

/// Rotary embeddings of sliding and full layers.
fn ropes(
    fields: &Fields<'_>,
    max_positions: usize,
    model_type: &str,
) -> Result<[RopeParameters; 2], ConfigError> {
    if let Some(value) = fields.value("rope_scaling") {
        return Err(fields.unsupported("rope_scaling", value, "rope_parameters"));
    }
    let Some(both) = fields.opt_object("rope_parameters")? else {
        let kind = RopeKind::Proportional { rotary_fraction: 0.25, factor: 1.0 };
        let full = RopeParameters { kind, ..RopeParameters::default(1_000_000.0) };
        return Ok([RopeParameters::default(10_000.0), full]);
    };
    let read = |layer_type: LayerType| {
        let part = both.opt_object(layer_type.name())?.ok_or_else(|| both.missing(layer_type.name()))?;
        let around = Around { theta: None, max_positions, original: None, of_phi: None };
        RopeParameters::read(&part, around, model_type)
    };
    let ropes = [read(LayerType::Sliding)?, read(LayerType::Full)?];
    both.finish(model_type)?;
    Ok(ropes)
}

fn moe(
    fields: &Fields<'_>,
    hidden_size: usize,
    activation: Activation,
) -> Result<Option<MoeSpec>, ConfigError> {
    let experts = fields.opt_int("num_experts", 0..=limits::EXPERTS)?;
    let top_k = fields.opt_int("top_k_experts", 0..=experts.unwrap_or(0) as u64)?;
    let width = fields.opt_int("moe_intermediate_size", 0..=limits::WIDTH / 2)?;
    if !fields.bool_or("enable_moe_block", false)? {
        return Ok(None);
    }
    let required =
        |key: &str, value: Option<usize>| value.filter(|n| *n > 0).ok_or_else(|| fields.missing(key));
    Ok(Some(MoeSpec {
        experts: required("num_experts", experts)?,
        router: RouterSpec::softmax(required("top_k_experts", top_k)?),
        width: required("moe_intermediate_size", width)?,
        activation,
        input_scale: Some(inverse_sqrt(hidden_size as f64)),
        shared_width: None,
    }))
}

fn per_layer_embedding(
    fields: &Fields<'_>,
    hidden_size: usize,
    default_width: usize,
) -> Result<Option<PerLayerEmbedding>, ConfigError> {
    let width = fields.opt_int("hidden_size_per_layer_input", 0..=limits::HIDDEN)?.unwrap_or(default_width);
    let vocab_size = fields.opt_int("vocab_size_per_layer_input", 0..=limits::VOCAB)?.unwrap_or(262_144);
    if width == 0 {
        return Ok(None);
    }
    Ok(Some(PerLayerEmbedding {
        vocab_size,
        width,
        table_scale: (width as f64).sqrt() as f32,
        projection_scale: inverse_sqrt(hidden_size as f64),
        sum_scale: inverse_sqrt(2.0),
        activation: activation(fields, "hidden_activation", Activation::GELU_TANH)?,
    }))
}
