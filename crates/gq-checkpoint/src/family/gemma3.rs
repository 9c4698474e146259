//! Gemma 3, text: sliding and full layers with their own rotary embeddings, norms around both halves.

use super::rotary::{Theta, agreed};
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
use crate::declared::{Declared, Layout, Part, When};
use crate::gguf::{
    Array, FREQ_BASE, Gguf, GgufError, GgufRules, Keys, RopeFactors, Set, StoredRope, Value as Metadatum,
    common, head_dim, head_widths, int, named_types, number, object, pattern, softcap, window,
};
use crate::{
    Activation, AttentionSpec, ConfigError, Family, LayerSpec, MlpSpec, ModelSpec, NormPlacement, limits,
};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "gemma3_text";
/// Where a GGUF has full layers, if it does not say: every sixth.
const PERIOD: usize = 6;
/// The one model whose queries are not scaled by their own width is known by its depth.
const LAYERS_OF_27B: usize = 62;

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "gemma3",
    model_types: &[
        ModelType { name: MODEL_TYPE, read: text_spec, architecture: Some("Gemma3ForCausalLM") },
        ModelType { name: "gemma3", read: wrapper_spec, architecture: None },
    ],
    tensors: TENSORS,
    gguf: GgufRules {
        config: gguf_config,
        metadata: gguf_metadata,
        activation: ("hidden_activation", Activation::GELU_TANH),
        score_width: |spec, attention| match spec.layers.len() {
            LAYERS_OF_27B => spec.hidden_size / attention.heads.max(1),
            _ => attention.head_dim,
        },
        attention_bias: false,
        pads_vocabulary: false,
        windows: true,
        loads: |_| Ok(()),
        sliding_rope: true,
        rope_factors: RopeFactors::Never,
        yarn_truncates: true,
        yarn_keys: false,
    },
};

const TENSORS: &[Declared] = &[
    EMBEDDING,
    ATTENTION_NORM.stored(Layout::PlusOne),
    QUERY,
    QUERY_BIAS.when(&[When::AttentionBias]),
    KEY,
    KEY_BIAS.when(&[When::AttentionBias]),
    VALUE,
    VALUE_BIAS.when(&[When::AttentionBias]),
    QUERY_NORM.stored(Layout::PlusOne),
    KEY_NORM.stored(Layout::PlusOne),
    OUTPUT,
    OUTPUT_BIAS.when(&[When::AttentionBias]),
    POST_ATTENTION_NORM.stored(Layout::PlusOne),
    MLP_NORM.stored(Layout::PlusOne),
    GATE,
    UP,
    DOWN,
    POST_MLP_NORM.stored(Layout::PlusOne),
    LAYER_FREQUENCIES,
    FINAL_NORM.stored(Layout::PlusOne),
    HEAD,
    FREQUENCIES,
];

/// Keys of the wrapper that concern images or repeat the text part's.
const WRAPPER_IRRELEVANT: &[&str] = &[
    "vision_config",
    "mm_tokens_per_image",
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "boi_token_id",
    "eoi_token_id",
    "image_token_id",
];

/// `Gemma3ForConditionalGeneration`: the text part, under `text_config`.
fn wrapper_spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let text = fields.opt_object("text_config")?.ok_or_else(|| fields.missing("text_config"))?;
    text.one_of("model_type", "gemma3_text")?;
    let mut spec = text_spec(&text)?;
    fields.irrelevant(WRAPPER_IRRELEVANT);
    let inner = SpecialTokens { bos: spec.bos, eos: spec.eos, pad: spec.pad };
    let tokens = SpecialTokens::read(fields, Defaults::default())?.or(inner);
    (spec.bos, spec.eos, spec.pad) = (tokens.bos, tokens.eos, tokens.pad);
    spec.tied_head = fields.opt_bool("tie_word_embeddings")?.unwrap_or(spec.tied_head);
    spec.quantization = quantization(fields)?.or(spec.quantization);
    fields.finish("gemma3")?;
    Ok(spec)
}

/// `Gemma3ForCausalLM`. Absent fields have the defaults of the reference, which wrapped files rely on.
fn text_spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let hidden_size = fields.opt_int("hidden_size", 2..=limits::HIDDEN)?.unwrap_or(2304);
    let layers = fields.opt_int("num_hidden_layers", 1..=limits::LAYERS)?.unwrap_or(26);
    let head_dim = fields.opt_int("head_dim", 2..=limits::HEAD_DIM)?.unwrap_or(256);
    check_head_dim(fields, "head_dim", head_dim)?;
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(131_072);
    let pattern = fields.opt_int("sliding_window_pattern", 1..=limits::LAYERS)?;
    let pattern = pattern.unwrap_or(6);
    fields.irrelevant(&["hidden_act", "_sliding_window_pattern"]); // what the reference writes, but does not read
    let window = fields.opt_int("sliding_window", 1..=limits::POSITIONS)?.unwrap_or(4096);
    let types = layer_types(fields, layers, pattern)?;
    let ropes =
        [rope(fields, LayerType::Sliding, max_positions)?, rope(fields, LayerType::Full, max_positions)?];
    fields.irrelevant(&["rope_parameters"]);
    ropes.iter().try_for_each(|rope| check_factors(fields, rope, head_dim))?;
    if let Some(value) = fields.value("attn_logit_softcapping") {
        let supported = "null: the reference has the key, but does not apply it";
        return Err(fields.unsupported("attn_logit_softcapping", value, supported));
    }
    let query_scalar = fields.opt_float("query_pre_attn_scalar", 1e-3..=1e9)?.unwrap_or(256.0);
    let heads = fields.opt_int("num_attention_heads", 1..=limits::HEADS)?.unwrap_or(8);
    let kv_heads = fields.opt_int("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(4);
    let attention = AttentionSpec {
        scale: inverse_sqrt(query_scalar),
        qk_norm: true,
        bias: fields.bool_or("attention_bias", false)?,
        ..AttentionSpec::new(heads, kv_heads, head_dim)
    };
    check_heads(0, &attention)?;
    let mlp = MlpSpec {
        width: fields.opt_int("intermediate_size", 1..=limits::WIDTH)?.unwrap_or(9216),
        activation: activation(fields, "hidden_activation", Activation::GELU_TANH)?,
        bias: false,
    };
    let mut used = Vec::new();
    let layer = |layer_type: &LayerType| {
        let [sliding, full] = &ropes;
        let (parameters, window) = match layer_type {
            LayerType::Sliding => (sliding, Some(window)),
            LayerType::Full => (full, None),
        };
        let rope = rope_index(&mut used, rope_spec(parameters, head_dim));
        let attention = AttentionSpec { window, rope, ..attention.clone() };
        LayerSpec {
            attention,
            mlp: Some(mlp),
            moe: None,
            norms: NormPlacement::PreAndPost,
            layer_scalar: false,
        }
    };
    let layers = types.iter().map(layer).collect();
    let tokens = SpecialTokens::read(fields, Defaults::GEMMA)?;
    fields.must_be_off("use_bidirectional_attention")?;
    let spec = ModelSpec {
        family: Family::Gemma3,
        vocab_size: fields.opt_int("vocab_size", 1..=limits::VOCAB)?.unwrap_or(262_208),
        hidden_size,
        layers,
        ropes: used,
        norm_eps: fields.opt_float("rms_norm_eps", 0.0..=1.0)?.unwrap_or(1e-6) as f32,
        norm_plus_one: true,
        embed_scale: Some((hidden_size as f64).sqrt() as f32),
        final_softcap: fields.opt_float("final_logit_softcapping", 1e-3..=1e9)?.map(|cap| cap as f32),
        tied_head: fields.bool_or("tie_word_embeddings", true)?,
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

/// `rope_parameters.TYPE`, else `rope_theta` with `rope_scaling` (full) or `rope_local_base_freq` (sliding).
fn rope(
    fields: &Fields<'_>,
    layer_type: LayerType,
    max_positions: usize,
) -> Result<RopeParameters, ConfigError> {
    let (key, default) = match layer_type {
        LayerType::Full => ("rope_theta", 1_000_000.0),
        LayerType::Sliding => ("rope_local_base_freq", 10_000.0),
    };
    let theta = fields.opt_float(key, 1.0..=1e12)?;
    let around =
        Around { theta: Some(theta.unwrap_or(default)), max_positions, original: None, of_phi: None };
    let read = |object: Option<Fields<'_>>| {
        object.map(|object| RopeParameters::read(&object, around, MODEL_TYPE)).transpose()
    };
    let new = match fields.opt_object("rope_parameters")? {
        Some(both) => {
            let part = both.opt_object(layer_type.name())?;
            let part = part.ok_or_else(|| both.missing(layer_type.name()))?;
            both.irrelevant(&LayerType::ALL.map(LayerType::name));
            both.finish(MODEL_TYPE)?;
            read(Some(part))?
        }
        None => None,
    };
    let old = match layer_type {
        LayerType::Full => read(fields.opt_object("rope_scaling")?)?,
        LayerType::Sliding => None,
    };
    let theta = Theta { key, said: theta, default };
    agreed(fields, theta, &format!("rope_parameters.{}", layer_type.name()), new, old)
}

/// What a GGUF says, as `config.json`.
fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config) = common(keys)?;
    let dim = head_dim(keys, &config)?;
    for key in ["attention.key_length_swa", "attention.value_length_swa", "rope.dimension_count_swa"] {
        keys.same(key, dim, dim)?;
    }
    let heads = number(&config, "num_attention_heads").max(1);
    let pattern = keys.opt_pattern("attention.sliding_window_pattern", layers)?;
    let sliding = pattern.unwrap_or_else(|| (1..=layers).map(|n| n % PERIOD != 0).collect());
    let scalar = if layers == LAYERS_OF_27B { number(&config, "hidden_size") / heads } else { dim };
    // A window of 0 is none.
    let window = keys.opt_int("attention.sliding_window")?.filter(|window| *window > 0);
    let sliding = if window.is_some() { sliding } else { vec![false; layers] };
    let local = keys.opt_float("rope.freq_base_swa")?.unwrap_or(FREQ_BASE);
    let rope = StoredRope::read(gguf, keys)?.without_factors(FILE.name)?;
    let rope = if window.is_some() { rope.without_attention(keys)? } else { rope };
    config.extend(object(json!({
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "intermediate_size": keys.alike("feed_forward_length", layers)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        "num_key_value_heads": keys.alike("attention.head_count_kv", layers)?.unwrap_or(heads),
        "head_dim": dim,
        "query_pre_attn_scalar": scalar,
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": gguf.has(TENSORS, Part::QueryBias, 0),
        "attn_logit_softcapping": null,
        "final_logit_softcapping": softcap(keys, 0.0)?,
        "layer_types": named_types(&sliding),
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

/// Keys of this architecture alone.
fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    head_widths(set, spec);
    if let Some(cap) = spec.final_softcap {
        set("final_logit_softcapping", Metadatum::F32(cap));
    }
    let window = window(spec);
    set("attention.sliding_window", int(window.unwrap_or(0)));
    let sliding = pattern(spec);
    // Every sixth layer is full unless the file says otherwise; with a window of 0 all are, and no pattern may say so.
    if window.is_some() && sliding.iter().enumerate().any(|(i, &sliding)| sliding != ((i + 1) % PERIOD != 0))
    {
        set("attention.sliding_window_pattern", Metadatum::Array(Array::Bool(sliding)));
    }
}
