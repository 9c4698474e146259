//! Qwen3 with experts in place of the MLP, in all layers or in some: softmax over all experts, the largest chosen, their
//! weights brought back to a sum of one or not.

use super::shared::head_dim_or_quotient;
use super::tensors::{
    ATTENTION_NORM, DOWN, EMBEDDING, FINAL_NORM, FREQUENCIES, GATE, HEAD, KEY, KEY_NORM, LAYER_FREQUENCIES,
    OUTPUT, PRE_MLP_NORM, QUERY, QUERY_NORM, UP, VALUE,
};
use super::{FamilyFile, ModelType, qwen3};
use crate::config::Fields;
use crate::declared::{Declared, Dim, Layout, Part};
use crate::gguf::{Gguf, GgufError, GgufRules, Keys, Set, int};
use crate::{ConfigError, Family, MlpSpec, ModelSpec, MoeSpec, Role, RouterSpec, limits};
use serde_json::{Map, Value, json};

const MODEL_TYPE: &str = "qwen3_moe";

pub(super) const FILE: FamilyFile = FamilyFile {
    name: "qwen3moe",
    model_types: &[ModelType { name: MODEL_TYPE, read: spec, architecture: Some("Qwen3MoeForCausalLM") }],
    tensors: TENSORS,
    gguf: GgufRules { config: gguf_config, metadata: gguf_metadata, ..qwen3::RULES },
};

#[rustfmt::skip]
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
    Declared::new(Part::Router, "model.layers.N.mlp.gate.weight", "blk.N.ffn_gate_inp.weight", Role::Router, &[Dim::Experts, Dim::Hidden]),
    Declared::new(Part::ExpertGateUp, "model.layers.N.mlp.experts.gate_up_proj", "blk.N.ffn_gate_up_exps.weight", Role::ExpertGateUp, &[Dim::Experts, Dim::ExpertGateUp, Dim::Hidden])
        .stored(Layout::Stacked {
            hub: &["model.layers.N.mlp.experts.E.gate_proj.weight", "model.layers.N.mlp.experts.E.up_proj.weight"],
            gguf: &["blk.N.ffn_gate_exps.weight", "blk.N.ffn_up_exps.weight"],
        }),
    Declared::new(Part::ExpertDown, "model.layers.N.mlp.experts.down_proj", "blk.N.ffn_down_exps.weight", Role::ExpertDown, &[Dim::Experts, Dim::Hidden, Dim::Expert])
        .stored(Layout::Stacked { hub: &["model.layers.N.mlp.experts.E.down_proj.weight"], gguf: &[] }),
    LAYER_FREQUENCIES,
    FINAL_NORM,
    HEAD,
    FREQUENCIES,
];

fn spec(fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let hidden = fields.int("hidden_size", 2..=limits::HIDDEN)?;
    let heads = fields.int("num_attention_heads", 1..=limits::HEADS)?;
    let dim = head_dim_or_quotient(fields, hidden, heads)?;
    let activation = qwen3::gate(fields)?;
    let experts = experts(fields)?;
    let top_k = fields.int("num_experts_per_tok", 1..=experts as u64)?;
    let renormalize = fields.opt_bool("norm_topk_prob")?.ok_or_else(|| fields.missing("norm_topk_prob"))?;
    let moe = MoeSpec {
        experts,
        width: fields.int("moe_intermediate_size", 1..=limits::WIDTH / 2)?,
        activation,
        router: RouterSpec { renormalize, ..RouterSpec::softmax(top_k) },
        input_scale: None,
        shared_width: None,
    };
    fields.opt_int("shared_expert_intermediate_size", 0..=0)?;
    let dense = dense_layers(fields)?;
    let width = fields.opt_int("intermediate_size", 1..=limits::WIDTH)?;
    if width.is_none() && dense.contains(&true) {
        return Err(fields.missing("intermediate_size"));
    }
    let mlp = width.map(|width| MlpSpec { width, activation, bias: false });
    qwen3::layered(fields, Family::Qwen3Moe, MODEL_TYPE, dim, |layer| match dense.get(layer) {
        Some(true) => (mlp, None),
        _ => (None, Some(moe)),
    })
}

/// Under either of two names; where both stand they must agree.
fn experts(fields: &Fields<'_>) -> Result<usize, ConfigError> {
    let [name, other] = ["num_experts", "num_local_experts"];
    let counts = [name, other].map(|key| fields.opt_int(key, 1..=limits::EXPERTS));
    match counts {
        [Ok(Some(count)), Ok(Some(local))] if count != local => Err(ConfigError::Disagree {
            field: fields.path(name),
            value: count.to_string(),
            other: fields.path(other),
            other_value: local.to_string(),
        }),
        [count, local] => count?.or(local?).ok_or_else(|| fields.missing(name)),
    }
}

/// Layers with a dense MLP in place of experts: those that are listed, and all but every `decoder_sparse_step`-th.
fn dense_layers(fields: &Fields<'_>) -> Result<Vec<bool>, ConfigError> {
    let layers = fields.int("num_hidden_layers", 1..=limits::LAYERS)?;
    let step = fields.opt_int("decoder_sparse_step", 1..=limits::LAYERS)?.unwrap_or(1);
    let mut dense: Vec<bool> = (1..=layers).map(|number| !number.is_multiple_of(step)).collect();
    for value in fields.opt_list("mlp_only_layers")?.unwrap_or_default() {
        let layer = value.as_u64().and_then(|layer| dense.get_mut(usize::try_from(layer).ok()?));
        *layer.ok_or_else(|| fields.unsupported("mlp_only_layers", value, "numbers of layers"))? = true;
    }
    Ok(dense)
}

fn gguf_config(gguf: &Gguf, keys: &Keys<'_>) -> Result<Map<String, Value>, GgufError> {
    let (layers, mut config) = qwen3::stored(gguf, keys, "Qwen3MoeForCausalLM", MODEL_TYPE, FILE.name)?;
    let (experts, used) = (keys.int("expert_count")?, keys.int("expert_used_count")?);
    let dense = keys.alike("feed_forward_length", layers)?.filter(|width| *width > 0);
    // Without a key of its own an expert's width is the MLP's share, as llama.cpp takes it.
    let width = keys.alike("expert_feed_forward_length", layers)?.filter(|width| *width > 0);
    let width = width.or(dense.map(|dense| dense / used.max(1)));
    let width = width.ok_or_else(|| keys.missing("expert_feed_forward_length"))?;
    for (key, value) in
        [("num_experts", experts), ("num_experts_per_tok", used), ("moe_intermediate_size", width)]
    {
        config.insert(key.into(), json!(value));
    }
    if let Some(dense) = dense {
        config.insert("intermediate_size".into(), json!(dense));
    }
    config.insert("norm_topk_prob".into(), json!(true));
    Ok(config)
}

fn gguf_metadata(set: &mut Set<'_>, spec: &ModelSpec) {
    qwen3::gguf_metadata(set, spec);
    if let Some(moe) = spec.layers.iter().find_map(|layer| layer.moe) {
        set("expert_feed_forward_length", int(moe.width));
    }
}
