//! What a tensor does in the graph.

use serde::{Deserialize, Serialize};

/// The part a tensor plays; decides how it may be encoded, never how it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Token embedding `[vocab, hidden]`; also the head of a model with a tied head.
    Embedding,
    /// Output head `[vocab, hidden]` of a model whose head is not tied.
    Head,
    /// Query projection `[heads * head_dim, hidden]`.
    Query,
    /// Key projection `[kv_heads * head_dim, hidden]`; also the value projection of a K=V layer.
    Key,
    /// Value projection `[kv_heads * head_dim, hidden]`.
    Value,
    /// Attention output projection `[hidden, heads * head_dim]`.
    Output,
    /// MLP gate `[width, hidden]`.
    Gate,
    /// MLP up projection `[width, hidden]`.
    Up,
    /// MLP down projection `[hidden, width]`.
    Down,
    /// Norm weight, a vector.
    Norm,
    /// Bias of a projection, a vector.
    Bias,
    /// Router projection `[experts, hidden]`.
    Router,
    /// Fused gate and up projections of all experts `[experts, 2 * width, hidden]`: gate rows first.
    ExpertGateUp,
    /// Down projections of all experts `[experts, hidden, width]`.
    ExpertDown,
    /// Per-layer embedding table `[vocab, layers * width]`.
    PerLayerTable,
    /// Projections of the per-layer embedding: `[layers * width, hidden]` of the model, `[hidden, width]` of a layer.
    PerLayerProjection,
    /// Per-layer input gate `[width, hidden]`.
    PerLayerGate,
    /// Small multipliers: a layer's scalar, the router's input and expert scales.
    Scalar,
    /// Scales that belong to an F8 tensor and are applied when that is read.
    WeightScale,
    /// Part of a vision or audio tower or of its projector.
    Tower,
    /// In the file but not used by the graph, e.g. key and value weights of a layer that reads another's cache.
    Unused,
}

impl Role {
    /// Whether the graph of the language model computes with this tensor.
    pub const fn is_used(self) -> bool {
        !matches!(self, Role::WeightScale | Role::Tower | Role::Unused)
    }

    /// Lower-case name, as in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Embedding => "embedding",
            Role::Head => "head",
            Role::Query => "query",
            Role::Key => "key",
            Role::Value => "value",
            Role::Output => "output",
            Role::Gate => "gate",
            Role::Up => "up",
            Role::Down => "down",
            Role::Norm => "norm",
            Role::Bias => "bias",
            Role::Router => "router",
            Role::ExpertGateUp => "expert_gate_up",
            Role::ExpertDown => "expert_down",
            Role::PerLayerTable => "per_layer_table",
            Role::PerLayerProjection => "per_layer_projection",
            Role::PerLayerGate => "per_layer_gate",
            Role::Scalar => "scalar",
            Role::WeightScale => "weight_scale",
            Role::Tower => "tower",
            Role::Unused => "unused",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
