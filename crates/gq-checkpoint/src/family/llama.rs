//! Llama: grouped-query attention, SiLU-gated MLP, norms before both.

use super::shared::{Defaults, SpecialTokens, activation, check_heads, head_dim_or_quotient, quantization};
use super::tensors::{
    ATTENTION_NORM, DOWN, EMBEDDING, FINAL_NORM, FREQUENCIES, GATE, HEAD, KEY, KEY_BIAS, LAYER_FREQUENCIES,
    OUTPUT, OUTPUT_BIAS, PRE_MLP_NORM, QUERY, QUERY_BIAS, UP, VALUE, VALUE_BIAS,
};
use super::{FamilyFile, ModelType, mistral, rotary};
use crate::config::{Fields, rope_spec};
use crate::declared::{Declared, Dim, Layout, Part, When};
use crate::gguf::{
    Gguf, GgufError, GgufRules, Keys, RopeFactors, Set, StoredRope, head_widths, int, object, with_heads,
};
use crate::{
    Activation, AttentionSpec, ConfigError, Family, LayerSpec, MlpSpec, ModelSpec, NormPlacement, Role,
    limits,
};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "llama";

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "llama",
    model_types: &[
        ModelType { name: MODEL_TYPE, read: spec, architecture: Some("LlamaForCausalLM") },
        ModelType {
            name: mistral::MISTRAL,
            read: mistral::mistral,
            architecture: Some("MistralForCausalLM"),
        },
    ],
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
        rope_factors: RopeFactors::WhereNeeded,
        yarn_truncates: true,
        yarn_keys: false,
    },
};

const TENSORS: &[Declared] = &[
    EMBEDDING,
    ATTENTION_NORM,
    QUERY.stored(Layout::Interleaved(Dim::Heads)),
    QUERY_BIAS.stored(Layout::Interleaved(Dim::Heads)).when(&[When::AttentionBias]),
    KEY.stored(Layout::Interleaved(Dim::KvHeads)),
    KEY_BIAS.stored(Layout::Interleaved(Dim::KvHeads)).when(&[When::AttentionBias]),
    VALUE,
    VALUE_BIAS.when(&[When::AttentionBias]),
    OUTPUT,
    OUTPUT_BIAS.when(&[When::AttentionBias]),
    PRE_MLP_NORM,
    GATE,
    bias(Part::GateBias, "model.layers.N.mlp.gate_proj.bias", "blk.N.ffn_gate.bias", &[Dim::Mlp]),
    UP,
    bias(Part::UpBias, "model.layers.N.mlp.up_proj.bias", "blk.N.ffn_up.bias", &[Dim::Mlp]),
    DOWN,
    bias(Part::DownBias, "model.layers.N.mlp.down_proj.bias", "blk.N.ffn_down.bias", &[Dim::Hidden]),
    LAYER_FREQUENCIES,
    FINAL_NORM,
    HEAD,
    FREQUENCIES,
];

const fn bias(part: Part, name: &'static str, gguf: &'static str, shape: &'static [Dim]) -> Declared {
    Declared::new(part, name, gguf, Role::Bias, shape).when(&[When::MlpBias])
}

fn spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let hidden_size = fields.int("hidden_size", 2..=limits::HIDDEN)?;
    let layers = fields.int("num_hidden_layers", 1..=limits::LAYERS)?;
    let heads = fields.int("num_attention_heads", 1..=limits::HEADS)?;
    let head_dim = head_dim_or_quotient(fields, hidden_size, heads)?;
    let max_positions = fields.opt_int("max_position_embeddings", 1..=limits::POSITIONS)?.unwrap_or(2048);
    let kv_heads = fields.opt_int("num_key_value_heads", 1..=limits::HEADS)?.unwrap_or(heads);
    let bias = fields.bool_or("attention_bias", false)?;
    let attention = AttentionSpec { bias, ..AttentionSpec::new(heads, kv_heads, head_dim) };
    check_heads(0, &attention)?;
    let mlp = MlpSpec {
        width: fields.int("intermediate_size", 1..=limits::WIDTH)?,
        activation: activation(fields, "hidden_act", Activation::SILU)?,
        bias: fields.bool_or("mlp_bias", false)?,
    };
    let tokens = SpecialTokens::read(fields, Defaults::LLAMA)?;
    let layer =
        LayerSpec { attention, mlp: Some(mlp), moe: None, norms: NormPlacement::Pre, layer_scalar: false };
    let rope = rotary::of_heads(fields, max_positions, MODEL_TYPE, head_dim)?;
    let rope = rope_spec(&rope, head_dim);
    let spec = ModelSpec {
        family: Family::Llama,
        vocab_size: fields.int("vocab_size", 1..=limits::VOCAB)?,
        hidden_size,
        layers: vec![layer; layers],
        ropes: vec![rope],
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

/// What a GGUF says, as `config.json`.
fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config, dim) = with_heads(keys)?;
    keys.only("expert_count", 0)?;
    keys.only("expert_used_count", 0)?;
    config.extend(object(json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "intermediate_size": keys.alike("feed_forward_length", layers)?.ok_or_else(|| keys.missing("feed_forward_length"))?,
        "hidden_act": "silu",
        "rope_parameters": StoredRope::read(gguf, keys)?.parameters(dim)?,
        "attention_bias": gguf.has(TENSORS, Part::QueryBias, 0),
        "mlp_bias": gguf.has(TENSORS, Part::UpBias, 0),
    })));
    Ok(config)
}

/// Keys of this architecture alone.
fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    head_widths(set, spec);
    set("vocab_size", int(spec.vocab_size));
    set("rope.dimension_count", int(spec.layers.first().map_or(0, |layer| layer.attention.head_dim)));
}
