//! Tensor names of GGUF and of checkpoints, both ways, and what differs in the values: as the families declare.

use crate::declared::{Declared, Layout, matched, numbered};
use crate::gguf::Transform;
use crate::names::in_layer;
use crate::{Family, ModelSpec};

/// The canonical name of a GGUF tensor; `None` when the family has none such.
pub(super) fn canonical_name(family: Family, name: &str) -> Option<String> {
    let of = |declared: &Declared| Some(numbered(declared.name, matched(declared.gguf?, name)?));
    family.file().tensors.iter().find_map(of)
}

/// How the values of a canonical tensor of a model differ from those of a checkpoint.
pub(super) fn transform_of(spec: &ModelSpec, canonical: &str) -> Transform {
    let Some((declared, _)) = spec.declaration(canonical) else { return Transform::None };
    let layer = in_layer(canonical).and_then(|(layer, _)| spec.layers.get(layer));
    match declared.layout {
        Layout::Interleaved(heads) => match heads.of(spec, layer) {
            Some(heads) => Transform::Interleave { heads },
            None => Transform::None,
        },
        Layout::PlusOne if spec.norm_plus_one => Transform::PlusOne,
        Layout::Plain
        | Layout::PlusOne
        | Layout::Stacked { .. }
        | Layout::Transposed { .. }
        | Layout::Fused(_) => Transform::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gguf_name(family: Family, canonical: &str) -> Option<String> {
        let of = |declared: &Declared| Some(numbered(declared.gguf?, matched(declared.name, canonical)?));
        family.file().tensors.iter().find_map(of)
    }

    #[test]
    fn names_map_one_to_one() {
        for family in Family::ALL {
            for declared in family.file().tensors.iter().filter(|declared| declared.gguf.is_some()) {
                let canonical = declared.name_in(declared.is_of_layers().then_some(7));
                let gguf = gguf_name(family, &canonical).unwrap();
                assert_eq!(canonical_name(family, &gguf), Some(canonical), "{gguf}");
            }
        }
        let llama = |name| gguf_name(Family::Llama, name);
        assert_eq!(llama("model.layers.7.self_attn.k_proj.weight").as_deref(), Some("blk.7.attn_k.weight"));
        assert_eq!(canonical_name(Family::Llama, "blk.0.ffn_gate_inp.weight"), None);
        assert_eq!(canonical_name(Family::Llama, "blk.00.attn_q.weight"), None);
        assert_eq!(canonical_name(Family::Llama, "blk.0.attn_rot_embd.weight"), None);
        assert_eq!(gguf_name(Family::Llama, "model.layers.0.pre_feedforward_layernorm.weight"), None);
    }
}
