//! Which tensors a model has: names, shapes and roles that follow from its specification.

use crate::names::in_layer;
use crate::{AttentionSpec, LayerSpec, ModelSpec, NormPlacement, Role};

/// A tensor that the graph computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Canonical name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Part in the graph.
    pub role: Role,
    /// Layer it belongs to.
    pub layer: Option<usize>,
}

impl ModelSpec {
    /// Every tensor that the graph computes with, in the order of the graph.
    pub fn expected_tensors(&self) -> Vec<ExpectedTensor> {
        let mut list = List { tensors: Vec::new(), prefix: "model.".to_owned(), layer: None };
        let (vocab, hidden) = (self.vocab_size, self.hidden_size);
        list.add("embed_tokens.weight", &[vocab, hidden], Role::Embedding);
        if let Some(ple) = &self.per_layer_embedding {
            let all = self.layers.len() * ple.width;
            list.add("embed_tokens_per_layer.weight", &[ple.vocab_size, all], Role::PerLayerTable);
            list.add("per_layer_model_projection.weight", &[all, hidden], Role::PerLayerProjection);
            list.add("per_layer_projection_norm.weight", &[ple.width], Role::Norm);
        }
        for (index, layer) in self.layers.iter().enumerate() {
            list.prefix = format!("model.layers.{index}.");
            list.layer = Some(index);
            self.layer_tensors(layer, &mut list);
        }
        (list.prefix, list.layer) = ("model.".to_owned(), None);
        list.add("norm.weight", &[hidden], Role::Norm);
        if !self.tied_head {
            list.prefix.clear();
            list.add("lm_head.weight", &[vocab, hidden], Role::Head);
        }
        list.tensors
    }

    fn layer_tensors(&self, layer: &LayerSpec, list: &mut List) {
        let hidden = self.hidden_size;
        list.add("input_layernorm.weight", &[hidden], Role::Norm);
        attention_tensors(&layer.attention, hidden, list);
        list.add("post_attention_layernorm.weight", &[hidden], Role::Norm);
        if layer.norms == NormPlacement::PreAndPost {
            list.add("pre_feedforward_layernorm.weight", &[hidden], Role::Norm);
        }
        let mlp = layer.mlp;
        list.linear("mlp.gate_proj", mlp.width, hidden, Role::Gate, mlp.bias);
        list.linear("mlp.up_proj", mlp.width, hidden, Role::Up, mlp.bias);
        list.linear("mlp.down_proj", hidden, mlp.width, Role::Down, mlp.bias);
        if let Some(moe) = &layer.moe {
            list.add("post_feedforward_layernorm_1.weight", &[hidden], Role::Norm);
            list.add("router.scale", &[hidden], Role::Scalar);
            list.add("router.proj.weight", &[moe.experts, hidden], Role::Router);
            list.add("router.per_expert_scale", &[moe.experts], Role::Scalar);
            list.add("pre_feedforward_layernorm_2.weight", &[hidden], Role::Norm);
            list.add("experts.gate_up_proj", &[moe.experts, 2 * moe.width, hidden], Role::ExpertGateUp);
            list.add("experts.down_proj", &[moe.experts, hidden, moe.width], Role::ExpertDown);
            list.add("post_feedforward_layernorm_2.weight", &[hidden], Role::Norm);
        }
        if layer.norms == NormPlacement::PreAndPost {
            list.add("post_feedforward_layernorm.weight", &[hidden], Role::Norm);
        }
        if let Some(ple) = &self.per_layer_embedding {
            list.add("per_layer_input_gate.weight", &[ple.width, hidden], Role::PerLayerGate);
            list.add("per_layer_projection.weight", &[hidden, ple.width], Role::PerLayerProjection);
            list.add("post_per_layer_input_norm.weight", &[hidden], Role::Norm);
        }
        if layer.layer_scalar {
            list.add("layer_scalar", &[1], Role::Scalar);
        }
    }

    /// Whether a canonical name that is not expected is known and without use:
    /// key and value weights of a layer that reads another's cache, a head that repeats the embedding,
    /// buffers of rotary embeddings.
    pub(crate) fn is_unused(&self, canonical: &str) -> bool {
        if canonical == "lm_head.weight" {
            return self.tied_head;
        }
        if canonical == "model.rotary_emb.inv_freq" {
            return true;
        }
        let Some((index, rest)) = in_layer(canonical) else { return false };
        let Some(layer) = self.layers.get(index) else { return false };
        match rest {
            "self_attn.rotary_emb.inv_freq" => true,
            "self_attn.k_proj.weight"
            | "self_attn.v_proj.weight"
            | "self_attn.k_norm.weight"
            | "self_attn.v_norm.weight"
            | "self_attn.k_proj.bias"
            | "self_attn.v_proj.bias" => layer.attention.kv_shared_with.is_some(),
            _ => false,
        }
    }
}

fn attention_tensors(attention: &AttentionSpec, hidden: usize, list: &mut List) {
    let (q, kv, bias) = (attention.q_width(), attention.kv_width(), attention.bias);
    let own_cache = attention.kv_shared_with.is_none();
    list.linear("self_attn.q_proj", q, hidden, Role::Query, bias);
    if own_cache {
        list.linear("self_attn.k_proj", kv, hidden, Role::Key, bias);
    }
    if own_cache && !attention.k_eq_v {
        list.linear("self_attn.v_proj", kv, hidden, Role::Value, bias);
    }
    if attention.qk_norm {
        list.add("self_attn.q_norm.weight", &[attention.head_dim], Role::Norm);
    }
    if attention.qk_norm && own_cache {
        list.add("self_attn.k_norm.weight", &[attention.head_dim], Role::Norm);
    }
    list.linear("self_attn.o_proj", hidden, q, Role::Output, bias);
}

struct List {
    tensors: Vec<ExpectedTensor>,
    prefix: String,
    layer: Option<usize>,
}

impl List {
    fn add(&mut self, name: &str, shape: &[usize], role: Role) {
        let name = format!("{}{name}", self.prefix);
        self.tensors.push(ExpectedTensor { name, shape: shape.to_vec(), role, layer: self.layer });
    }

    fn linear(&mut self, name: &str, rows: usize, cols: usize, role: Role, bias: bool) {
        self.add(&format!("{name}.weight"), &[rows, cols], role);
        if bias {
            self.add(&format!("{name}.bias"), &[rows], Role::Bias);
        }
    }
}
