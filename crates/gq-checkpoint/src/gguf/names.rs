//! Tensor names of GGUF and of checkpoints, both ways, and what differs in the values.

use crate::names::in_layer;
use crate::{AttentionSpec, Family, ModelSpec};

/// Names outside of layers: in GGUF, canonical.
const GLOBAL: [(&str, &str); 6] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
    ("per_layer_token_embd.weight", "model.embed_tokens_per_layer.weight"),
    ("per_layer_model_proj.weight", "model.per_layer_model_projection.weight"),
    ("per_layer_proj_norm.weight", "model.per_layer_projection_norm.weight"),
];

/// Names in layers, all families: after `blk.N.`, after `model.layers.N.`.
const LAYER: [(&str, &str); 21] = [
    ("attn_norm.weight", "input_layernorm.weight"),
    ("attn_q.weight", "self_attn.q_proj.weight"),
    ("attn_k.weight", "self_attn.k_proj.weight"),
    ("attn_v.weight", "self_attn.v_proj.weight"),
    ("attn_output.weight", "self_attn.o_proj.weight"),
    ("attn_q.bias", "self_attn.q_proj.bias"),
    ("attn_k.bias", "self_attn.k_proj.bias"),
    ("attn_v.bias", "self_attn.v_proj.bias"),
    ("attn_output.bias", "self_attn.o_proj.bias"),
    ("attn_q_norm.weight", "self_attn.q_norm.weight"),
    ("attn_k_norm.weight", "self_attn.k_norm.weight"),
    ("ffn_gate.weight", "mlp.gate_proj.weight"),
    ("ffn_up.weight", "mlp.up_proj.weight"),
    ("ffn_down.weight", "mlp.down_proj.weight"),
    ("ffn_gate.bias", "mlp.gate_proj.bias"),
    ("ffn_up.bias", "mlp.up_proj.bias"),
    ("ffn_down.bias", "mlp.down_proj.bias"),
    ("inp_gate.weight", "per_layer_input_gate.weight"),
    ("proj.weight", "per_layer_projection.weight"),
    ("post_norm.weight", "post_per_layer_input_norm.weight"),
    ("layer_output_scale.weight", "layer_scalar"),
];

/// Norms of blocks with one norm before attention and one before the MLP.
const PRE_NORMS: [(&str, &str); 1] = [("ffn_norm.weight", "post_attention_layernorm.weight")];

/// Norms and experts of Gemma's blocks.
const GEMMA: [(&str, &str); 11] = [
    ("post_attention_norm.weight", "post_attention_layernorm.weight"),
    ("ffn_norm.weight", "pre_feedforward_layernorm.weight"),
    ("post_ffw_norm.weight", "post_feedforward_layernorm.weight"),
    ("post_ffw_norm_1.weight", "post_feedforward_layernorm_1.weight"),
    ("post_ffw_norm_2.weight", "post_feedforward_layernorm_2.weight"),
    ("pre_ffw_norm_2.weight", "pre_feedforward_layernorm_2.weight"),
    ("ffn_gate_inp.weight", "router.proj.weight"),
    ("ffn_gate_inp.scale", "router.scale"),
    ("ffn_down_exps.scale", "router.per_expert_scale"),
    ("ffn_gate_up_exps.weight", "experts.gate_up_proj"),
    ("ffn_down_exps.weight", "experts.down_proj"),
];

/// Factors on rotary frequencies; part of the configuration here.
pub(super) const ROPE_FREQS: &str = "rope_freqs.weight";

fn layer_tables(family: Family) -> [&'static [(&'static str, &'static str)]; 2] {
    match family {
        Family::Llama => [&LAYER, &PRE_NORMS],
        Family::Gemma3 | Family::Gemma4 => [&LAYER, &GEMMA],
    }
}

/// The canonical name of a GGUF tensor; `None` when the family has none such.
pub(super) fn canonical_name(family: Family, name: &str) -> Option<String> {
    if let Some((_, canonical)) = GLOBAL.iter().find(|(gguf, _)| *gguf == name) {
        return Some((*canonical).to_owned());
    }
    let (number, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    // The same rule for numbers as in canonical names: one spelling each.
    in_layer(&format!("model.layers.{number}.{rest}"))?;
    let table = layer_tables(family).into_iter().flatten();
    let (_, canonical) = table.copied().find(|(gguf, _)| *gguf == rest)?;
    Some(format!("model.layers.{number}.{canonical}"))
}

/// The GGUF name of a canonical tensor; `None` when GGUF has none.
pub(super) fn gguf_name(family: Family, canonical: &str) -> Option<String> {
    if let Some((gguf, _)) = GLOBAL.iter().find(|(_, name)| *name == canonical) {
        return Some((*gguf).to_owned());
    }
    let (layer, rest) = in_layer(canonical)?;
    let table = layer_tables(family).into_iter().flatten();
    let (gguf, _) = table.copied().find(|(_, name)| *name == rest)?;
    Some(format!("blk.{layer}.{gguf}"))
}

/// How values in GGUF differ from those of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transform {
    /// Not at all.
    None,
    /// Rows of each head are reordered: the halves that rotate together are interleaved.
    Interleave {
        /// Heads.
        heads: usize,
    },
    /// The 1 of `1 + weight` is already added.
    PlusOne,
}

impl Transform {
    /// That of a canonical tensor of a model.
    pub(super) fn of(spec: &ModelSpec, canonical: &str) -> Transform {
        let attention =
            in_layer(canonical).and_then(|(layer, _)| spec.layers.get(layer)).map(|l| &l.attention);
        let interleave = |heads: fn(&AttentionSpec) -> usize| match attention {
            Some(attention) => Transform::Interleave { heads: heads(attention) },
            None => Transform::None,
        };
        let name = canonical.strip_suffix(".weight").or_else(|| canonical.strip_suffix(".bias"));
        match spec.family {
            Family::Llama if name.is_some_and(|n| n.ends_with("q_proj")) => interleave(|a| a.heads),
            Family::Llama if name.is_some_and(|n| n.ends_with("k_proj")) => interleave(|a| a.kv_heads),
            Family::Gemma3 if spec.norm_plus_one && canonical.ends_with("norm.weight") => Transform::PlusOne,
            Family::Llama | Family::Gemma3 | Family::Gemma4 => Transform::None,
        }
    }

    /// Row of the GGUF tensor that holds row `row` of a checkpoint's, of `rows` in all.
    ///
    /// A head of n rows is stored as 0, n/2, 1, n/2 + 1, ...: pairs that rotate together become neighbors.
    pub(super) fn stored_row(self, row: usize, rows: usize) -> usize {
        match self {
            Transform::Interleave { heads } => {
                let width = rows / heads.max(1);
                let (head, place) = (row / width.max(1), row % width.max(1));
                head * width + place % (width / 2).max(1) * 2 + place / (width / 2).max(1)
            }
            Transform::None | Transform::PlusOne => row,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_one_to_one() {
        for family in Family::ALL {
            for canonical in [
                "model.embed_tokens.weight",
                "lm_head.weight",
                "model.layers.7.input_layernorm.weight",
                "model.layers.7.post_attention_layernorm.weight",
                "model.layers.7.self_attn.k_proj.weight",
                "model.layers.7.layer_scalar",
            ] {
                let gguf = gguf_name(family, canonical).unwrap();
                assert_eq!(canonical_name(family, &gguf).as_deref(), Some(canonical), "{gguf}");
            }
        }
        assert_eq!(canonical_name(Family::Llama, "blk.0.ffn_gate_inp.weight"), None);
        assert_eq!(canonical_name(Family::Llama, "blk.00.attn_q.weight"), None);
        assert_eq!(canonical_name(Family::Llama, "blk.0.attn_rot_embd.weight"), None);
        assert_eq!(gguf_name(Family::Llama, "model.layers.0.pre_feedforward_layernorm.weight"), None);
    }

    #[test]
    fn interleaved_rows() {
        let transform = Transform::Interleave { heads: 2 };
        let stored: Vec<_> = (0..12).map(|row| transform.stored_row(row, 12)).collect();
        assert_eq!(stored, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
