//! Tensors that several families declare alike: names, shapes and roles. A family's list says when it has them.

use crate::Role;
use crate::declared::{Declared, Dim, Part, When};

/// Token embedding of every family.
pub(crate) const EMBEDDING: Declared = Declared::new(
    Part::Embedding,
    "model.embed_tokens.weight",
    "token_embd.weight",
    Role::Embedding,
    &[Dim::Vocab, Dim::Hidden],
);

/// Norm before the head of every family.
pub(crate) const FINAL_NORM: Declared =
    Declared::norm(Part::FinalNorm, "model.norm.weight", "output_norm.weight", &[Dim::Hidden]);

/// Head of every family.
pub(crate) const HEAD: Declared =
    Declared::new(Part::Head, "lm_head.weight", "output.weight", Role::Head, &[Dim::Vocab, Dim::Hidden])
        .when(&[When::OwnHead]);

/// Rotary frequencies that old files carry for the whole model.
pub(crate) const FREQUENCIES: Declared =
    Declared::unused(Part::RotaryFrequencies, "model.rotary_emb.inv_freq", &[When::Leftover]);

/// Rotary frequencies that old files carry in each layer.
pub(crate) const LAYER_FREQUENCIES: Declared = Declared::unused(
    Part::RotaryFrequencies,
    "model.layers.N.self_attn.rotary_emb.inv_freq",
    &[When::Leftover],
);

/// Projections of attention, all families alike but for conditions and layout.
pub(crate) const QUERY: Declared = Declared::new(
    Part::Query,
    "model.layers.N.self_attn.q_proj.weight",
    "blk.N.attn_q.weight",
    Role::Query,
    &[Dim::Queries, Dim::Hidden],
);
pub(crate) const QUERY_BIAS: Declared = Declared::new(
    Part::QueryBias,
    "model.layers.N.self_attn.q_proj.bias",
    "blk.N.attn_q.bias",
    Role::Bias,
    &[Dim::Queries],
);
pub(crate) const KEY: Declared = Declared::new(
    Part::Key,
    "model.layers.N.self_attn.k_proj.weight",
    "blk.N.attn_k.weight",
    Role::Key,
    &[Dim::Keys, Dim::Hidden],
);
pub(crate) const KEY_BIAS: Declared = Declared::new(
    Part::KeyBias,
    "model.layers.N.self_attn.k_proj.bias",
    "blk.N.attn_k.bias",
    Role::Bias,
    &[Dim::Keys],
);
pub(crate) const VALUE: Declared = Declared::new(
    Part::Value,
    "model.layers.N.self_attn.v_proj.weight",
    "blk.N.attn_v.weight",
    Role::Value,
    &[Dim::Keys, Dim::Hidden],
);
pub(crate) const VALUE_BIAS: Declared = Declared::new(
    Part::ValueBias,
    "model.layers.N.self_attn.v_proj.bias",
    "blk.N.attn_v.bias",
    Role::Bias,
    &[Dim::Keys],
);
pub(crate) const OUTPUT: Declared = Declared::new(
    Part::Output,
    "model.layers.N.self_attn.o_proj.weight",
    "blk.N.attn_output.weight",
    Role::Output,
    &[Dim::Hidden, Dim::Queries],
);
pub(crate) const OUTPUT_BIAS: Declared = Declared::new(
    Part::OutputBias,
    "model.layers.N.self_attn.o_proj.bias",
    "blk.N.attn_output.bias",
    Role::Bias,
    &[Dim::Hidden],
);

/// Norm before attention of every family.
pub(crate) const ATTENTION_NORM: Declared = Declared::norm(
    Part::AttentionNorm,
    "model.layers.N.input_layernorm.weight",
    "blk.N.attn_norm.weight",
    &[Dim::Hidden],
);

/// Norms of queries and keys, head by head.
pub(crate) const QUERY_NORM: Declared = Declared::norm(
    Part::QueryNorm,
    "model.layers.N.self_attn.q_norm.weight",
    "blk.N.attn_q_norm.weight",
    &[Dim::Head],
)
.when(&[When::QkNorm]);
pub(crate) const KEY_NORM: Declared = Declared::norm(
    Part::KeyNorm,
    "model.layers.N.self_attn.k_norm.weight",
    "blk.N.attn_k_norm.weight",
    &[Dim::Head],
)
.when(&[When::QkNorm, When::OwnCache]);

/// Projections of the MLP of every family.
pub(crate) const GATE: Declared = Declared::new(
    Part::Gate,
    "model.layers.N.mlp.gate_proj.weight",
    "blk.N.ffn_gate.weight",
    Role::Gate,
    &[Dim::Mlp, Dim::Hidden],
);
pub(crate) const UP: Declared = Declared::new(
    Part::Up,
    "model.layers.N.mlp.up_proj.weight",
    "blk.N.ffn_up.weight",
    Role::Up,
    &[Dim::Mlp, Dim::Hidden],
);
pub(crate) const DOWN: Declared = Declared::new(
    Part::Down,
    "model.layers.N.mlp.down_proj.weight",
    "blk.N.ffn_down.weight",
    Role::Down,
    &[Dim::Hidden, Dim::Mlp],
);

/// The norm before the MLP where there is one norm before each half of a block.
pub(crate) const PRE_MLP_NORM: Declared = Declared::norm(
    Part::MlpNorm,
    "model.layers.N.post_attention_layernorm.weight",
    "blk.N.ffn_norm.weight",
    &[Dim::Hidden],
);

/// Norms around both halves of a block, as Gemma has them.
pub(crate) const POST_ATTENTION_NORM: Declared = Declared::norm(
    Part::PostAttentionNorm,
    "model.layers.N.post_attention_layernorm.weight",
    "blk.N.post_attention_norm.weight",
    &[Dim::Hidden],
);
pub(crate) const MLP_NORM: Declared = Declared::norm(
    Part::MlpNorm,
    "model.layers.N.pre_feedforward_layernorm.weight",
    "blk.N.ffn_norm.weight",
    &[Dim::Hidden],
);
pub(crate) const POST_MLP_NORM: Declared = Declared::norm(
    Part::PostMlpNorm,
    "model.layers.N.post_feedforward_layernorm.weight",
    "blk.N.post_ffw_norm.weight",
    &[Dim::Hidden],
);
