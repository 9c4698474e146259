//! Mistral: Llama with a window on every layer or none; Ministral 3: queries that grow with their position on top of YaRN; and the
//! wrapper with a vision tower that either stands in.

use super::shared::{Defaults, SpecialTokens, activation, head_dim_or_quotient, quantization, said_heads};
use super::tensors::{
    ATTENTION_NORM, DOWN, EMBEDDING, FINAL_NORM, FREQUENCIES, GATE, HEAD, KEY, LAYER_FREQUENCIES, OUTPUT,
    PRE_MLP_NORM, QUERY, UP, VALUE,
};
use super::{FamilyFile, ModelType, rotary};
use crate::config::{Fields, RopeParameters, check_factors, rope_spec};
use crate::declared::{Declared, Dim, Layout};
use crate::gguf::{
    Gguf, GgufError, GgufRules, Keys, RopeFactors, Set, StoredRope, Value as Metadatum, head_widths, int,
    object, with_heads,
};
use crate::{
    Activation, AttentionSpec, ConfigError, Family, LayerSpec, MlpSpec, ModelSpec, NormPlacement,
    QueryGrowth, RopeKind, limits,
};
use serde_json::{Map, Value, json};

pub(super) const MISTRAL: &str = "mistral";
pub(crate) const MINISTRAL3: &str = "ministral3";

/// Ministral 3, and the wrapper of it and of Mistral Small 3.
pub(super) const FILE: FamilyFile = FamilyFile {
    name: "mistral3",
    model_types: &[
        ModelType { name: MINISTRAL3, read: ministral3, architecture: Some("Ministral3ForCausalLM") },
        ModelType { name: "mistral3", read: wrapper, architecture: None },
    ],
    tensors: TENSORS,
    gguf: GgufRules {
        config: gguf_config,
        metadata: gguf_metadata,
        activation: ("hidden_act", Activation::SILU),
        score_width: |_, attention| attention.head_dim,
        attention_bias: false,
        pads_vocabulary: true,
        windows: false,
        loads: |_| Ok(()),
        sliding_rope: false,
        yarn_truncates: true,
        yarn_keys: true,
        rope_factors: RopeFactors::Never,
    },
};

const TENSORS: &[Declared] = &[
    EMBEDDING,
    ATTENTION_NORM,
    QUERY.stored(Layout::Interleaved(Dim::Heads)),
    KEY.stored(Layout::Interleaved(Dim::KvHeads)),
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

/// Keys of the wrapper that concern images.
const WRAPPER_IRRELEVANT: &[&str] = &[
    "vision_config",
    "image_token_index",
    "image_token_id",
    "projector_hidden_act",
    "vision_feature_layer",
    "multimodal_projector_bias",
    "spatial_merge_size",
];

/// `Mistral3ForConditionalGeneration`: the text part, under `text_config`, of either kind.
fn wrapper(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let text = fields.opt_object("text_config")?.ok_or_else(|| fields.missing("text_config"))?;
    text.one_of("model_type", "mistral, ministral3")?;
    let mut spec = match text.string("model_type")? {
        MISTRAL => mistral(&text)?,
        _ => ministral3(&text)?,
    };
    fields.irrelevant(WRAPPER_IRRELEVANT);
    let inner = SpecialTokens { bos: spec.bos, eos: spec.eos, pad: spec.pad };
    let tokens = SpecialTokens::read(fields, Defaults::default())?.or(inner);
    (spec.bos, spec.eos, spec.pad) = (tokens.bos, tokens.eos, tokens.pad);
    // The text part's own key counts nowhere: without one on top the head is tied, where the file has no other.
    spec.tied_head = fields.bool_or("tie_word_embeddings", true)?;
    spec.quantization = quantization(fields)?.or(spec.quantization);
    fields.finish("mistral3")?;
    Ok(spec)
}

/// `MistralForCausalLM`: Llama's graph and file, with a window where the configuration has one. Without the key there is
/// one of 4096, as in the reference.
pub(super) fn mistral(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let absent = if fields.has("sliding_window") { None } else { Some(4096) };
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(131_072);
    let rope = rotary::read(fields, max_positions, MISTRAL)?;
    dense(fields, Family::Llama, MISTRAL, absent, 1e-6, &rope, None)
}

/// `Ministral3ForCausalLM`.
fn ministral3(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(262_144);
    if ["rope_parameters", "rope_scaling"].into_iter().all(|key| fields.value(key).is_none()) {
        return Err(fields.missing("rope_parameters"));
    }
    let rope = rotary::read(fields, max_positions, MINISTRAL3)?;
    let RopeKind::Yarn { original_max_positions, .. } = rope.kind else {
        return Err(fields.unsupported("rope_parameters", &Value::from("another type"), "yarn"));
    };
    let beta = rope.query_beta.ok_or_else(|| fields.missing("rope_parameters.llama_4_scaling_beta"))?;
    let growth = QueryGrowth { beta, original_max_positions };
    dense(fields, Family::Mistral3, MINISTRAL3, None, 1e-5, &rope, Some(growth))
}

/// What both have alike. Sizes have to be there: the classes' own are those of one published model.
fn dense(
    fields: &Fields<'_>,
    family: Family,
    model_type: &'static str,
    window: Option<usize>,
    eps: f64,
    rope: &RopeParameters,
    query_growth: Option<QueryGrowth>,
) -> Result<ModelSpec, ConfigError> {
    let hidden_size = fields.int("hidden_size", 2..=limits::HIDDEN)?;
    let heads = fields.int("num_attention_heads", 1..=limits::HEADS)?;
    let head_dim = match family {
        Family::Mistral3 if !fields.has("head_dim") => 128,
        _ => head_dim_or_quotient(fields, hidden_size, heads)?,
    };
    fields.must_be_off("attention_bias")?;
    check_factors(fields, rope, head_dim)?;
    let attention = AttentionSpec {
        window: fields.opt_int("sliding_window", 1..=limits::POSITIONS)?.or(window),
        query_growth: query_growth.filter(|growth| growth.beta != 0.0),
        ..said_heads(fields, head_dim)?
    };
    let mlp = MlpSpec {
        width: fields.int("intermediate_size", 1..=limits::WIDTH)?,
        activation: activation(fields, "hidden_act", Activation::SILU)?,
        bias: false,
    };
    let layer =
        LayerSpec { attention, mlp: Some(mlp), moe: None, norms: NormPlacement::Pre, layer_scalar: false };
    let absent = if family == Family::Mistral3 { Some(11) } else { None };
    let tokens = SpecialTokens::read(fields, Defaults { pad: absent, ..Defaults::LLAMA })?;
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?;
    let spec = ModelSpec {
        family,
        vocab_size: fields.int("vocab_size", 1..=limits::VOCAB)?,
        hidden_size,
        layers: vec![layer; fields.int("num_hidden_layers", 1..=limits::LAYERS)?],
        ropes: vec![rope_spec(rope, head_dim)],
        norm_eps: fields.opt_float("rms_norm_eps", 0.0..=1.0)?.unwrap_or(eps) as f32,
        norm_plus_one: false,
        embed_scale: None,
        final_softcap: None,
        tied_head: fields.bool_or("tie_word_embeddings", false)?,
        max_positions: max_positions.unwrap_or(if family == Family::Mistral3 { 262_144 } else { 131_072 }),
        bos: tokens.bos,
        eos: tokens.eos,
        pad: tokens.pad,
        per_layer_embedding: None,
        quantization: quantization(fields)?,
    };
    fields.finish(model_type)?;
    Ok(spec)
}

/// What a GGUF says, as `config.json`.
fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config, dim) = with_heads(keys)?;
    let rope = StoredRope::read(gguf, keys)?.with_yarn_keys(keys)?.without_factors(FILE.name)?;
    let mut rope = rope.parameters(dim)?;
    let beta = keys.opt_float("attention.temperature_scale")?.unwrap_or(0.0);
    // Without YaRN it is a Mistral in a file of this name, such as Small 3 as llama.cpp converts Mistral's own format.
    let (class, model_type) = match rope["rope_type"] == "yarn" {
        true => ("Ministral3ForCausalLM", MINISTRAL3),
        false if beta == 0.0 => ("MistralForCausalLM", MISTRAL),
        false => {
            return Err(GgufError::Unsupported {
                key: keys.name("attention.temperature_scale"),
                actual: beta.to_string(),
                supported: "0 unless rope.scaling.type is yarn".to_owned(),
            });
        }
    };
    if model_type == MINISTRAL3 {
        rope["llama_4_scaling_beta"] = json!(beta);
    }
    config.extend(object(json!({
        "architectures": [class],
        "model_type": model_type,
        "intermediate_size": keys.alike("feed_forward_length", layers)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        "hidden_act": "silu",
        "rope_parameters": rope,
        "sliding_window": null,
    })));
    Ok(config)
}

/// Keys of this architecture alone.
fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    set("vocab_size", int(spec.vocab_size));
    head_widths(set, spec);
    let dim = spec.layers.first().map_or(0, |layer| layer.attention.head_dim);
    set("rope.dimension_count", int(dim));
    set("rope.scaling.yarn_log_multiplier", Metadatum::F32(1.0));
    let growth = spec.layers.first().and_then(|layer| layer.attention.query_growth);
    set("attention.temperature_scale", Metadatum::F32(growth.map_or(0.0, |growth| growth.beta as f32)));
}
