//! One file per family: fields of its configuration to a specification, its tensors declared, its rules in a GGUF.
//!
//! Everything that differs between families and is no graph is a [`FamilyFile`]; the rest of the crate asks it.

mod gemma3;
mod gemma4;
mod gpt_oss;
mod llama;
mod mistral;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rotary;
mod shared;
mod tensors;

pub(crate) use shared::{AWQ, BY_INDEX, GPTQ, GPTQ_SECOND, PACKED, PACKED_ASYMMETRIC, PACKED_SYMMETRIC};
pub(crate) use tensors::{EMBEDDING, HEAD};

use crate::config::Fields;
use crate::declared::{Declared, ROPE_FACTORS, ROPE_FREQS, matched_expert};
use crate::gguf::GgufRules;
use crate::{ConfigError, Family, ModelSpec};
use std::sync::LazyLock;

impl Family {
    pub(crate) const fn file(self) -> &'static FamilyFile {
        match self {
            Family::Llama => &llama::FILE,
            Family::Qwen2 => &qwen2::FILE,
            Family::Qwen3 => &qwen3::FILE,
            Family::Qwen3Moe => &qwen3_moe::FILE,
            Family::Mistral3 => &mistral::FILE,
            Family::Phi3 => &phi3::FILE,
            Family::GptOss => &gpt_oss::FILE,
            Family::Gemma3 => &gemma3::FILE,
            Family::Gemma4 => &gemma4::FILE,
        }
    }

    /// Lower-case name, as in reports; also that of the architecture in a GGUF.
    pub const fn name(self) -> &'static str {
        self.file().name
    }

    /// The class that a text model's configuration names in `architectures`, by its `model_type`.
    pub fn architecture(model_type: &str) -> Option<&'static str> {
        let mut types = Family::ALL.into_iter().flat_map(|family| family.file().model_types);
        types.find(|known| known.name == model_type)?.architecture
    }

    /// Every tensor of every family, by any of its names, `N` and `E` standing for numbers: names on the Hub, names
    /// in a GGUF.
    pub fn tensor_names() -> Vec<&'static str> {
        let declared = Family::ALL.into_iter().flat_map(|family| family.file().tensors);
        let names = declared.flat_map(|declared| {
            let [hub, gguf] = declared.layout.parts();
            let others = declared.spellings.iter().chain(hub).chain(gguf).copied();
            let fused = declared.fused().map(|fused| [fused.hub, fused.gguf]);
            others.chain(declared.gguf).chain(fused.into_iter().flatten()).chain([declared.name])
        });
        let mut names: Vec<&str> = names.chain([ROPE_FREQS]).chain(ROPE_FACTORS).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// What one family's file says.
pub(crate) struct FamilyFile {
    pub(crate) name: &'static str,
    /// Values of `model_type`.
    pub(crate) model_types: &'static [ModelType],
    /// Tensors in the order of the graph, those of layers together.
    pub(crate) tensors: &'static [Declared],
    pub(crate) gguf: GgufRules,
}

/// A `model_type`, and how its configuration is read.
pub(crate) struct ModelType {
    pub(crate) name: &'static str,
    pub(crate) read: fn(&Fields<'_>) -> Result<ModelSpec, ConfigError>,
    /// The class for causal language models; `None` for wrappers of one.
    pub(crate) architecture: Option<&'static str>,
}

/// Every `model_type`, for people.
static MODEL_TYPES: LazyLock<String> = LazyLock::new(|| {
    let types = Family::ALL.into_iter().flat_map(|family| family.file().model_types);
    types.map(|known| known.name).collect::<Vec<_>>().join(", ")
});

/// Reads a configuration of this `model_type`.
pub(crate) fn read(model_type: &str, fields: &Fields<'_>) -> Result<ModelSpec, ConfigError> {
    let mut types = Family::ALL.into_iter().flat_map(|family| family.file().model_types);
    match types.find(|known| known.name == model_type) {
        Some(known) => (known.read)(fields),
        None => Err(ConfigError::Unsupported {
            field: "model_type".to_owned(),
            value: model_type.to_owned(),
            supported: MODEL_TYPES.as_str(),
        }),
    }
}

/// Names of parameters that are stacks of experts' matrices, in the order of their module.
pub(crate) fn stacks_of_experts() -> Vec<&'static str> {
    let declared = Family::ALL.into_iter().flat_map(|family| family.file().tensors);
    let stacks = declared
        .filter(|declared| declared.shape.len() == 3 && declared.role != crate::Role::Bias)
        .map(Declared::module);
    let mut names = Vec::new();
    stacks.for_each(|name| {
        if !names.contains(&name) {
            names.push(name)
        }
    });
    names
}

/// A matrix of one expert, and the stack that it is a part of.
pub(crate) struct MatrixOfStack {
    /// Canonical name of the stack.
    pub(crate) stack: String,
    pub(crate) expert: usize,
    /// Which of the expert's matrices, and of how many.
    pub(crate) index: usize,
    pub(crate) of: usize,
}

/// The stacks whose part is called so on the Hub.
pub(crate) fn matrix_of_stack(canonical: &str) -> Vec<MatrixOfStack> {
    let declared = Family::ALL.into_iter().flat_map(|family| family.file().tensors);
    let found = declared.flat_map(|declared| {
        let [hub, _] = declared.layout.parts();
        hub.iter().enumerate().filter_map(move |(index, part)| {
            let (layer, expert) = matched_expert(part, canonical)?;
            Some(MatrixOfStack { stack: declared.name_in(layer), expert, index, of: hub.len() })
        })
    });
    found.collect()
}

/// Whether a name begins with a part of a declared name behind `model.`, such as `layers` or `norm`: with the name of
/// a module of the text model.
pub(crate) fn is_module_of_text(name: &str) -> bool {
    begins(name, |declared| declared.strip_prefix("model."))
}

/// Whether a name begins with the first part of a declared name that has no `model.`: with the head.
pub(crate) fn is_beside_text(name: &str) -> bool {
    begins(name, |declared| Some(declared).filter(|declared| !declared.starts_with("model.")))
}

fn begins(name: &str, of: fn(&'static str) -> Option<&'static str>) -> bool {
    let Some((first, _)) = name.split_once('.') else { return false };
    let mut declared = Family::ALL.into_iter().flat_map(|family| family.file().tensors);
    declared.any(|declared| of(declared.name).and_then(|name| name.split('.').next()) == Some(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::declared::{find, matched};
    use std::collections::BTreeSet;

    #[test]
    fn every_list_is_in_order_and_names_are_one_to_one() {
        for family in Family::ALL {
            let list = family.file().tensors;
            let blocks = list.chunk_by(|a, b| a.is_of_layers() == b.is_of_layers()).count();
            assert_eq!(blocks, 3, "{}: layers stand together", family.name());
            let mut seen = BTreeSet::new();
            for declared in list {
                let names = declared.spellings.iter().copied().chain(declared.gguf).chain([declared.name]);
                names.for_each(|name| assert!(seen.insert(name), "{name} is declared twice"));
                let layer = declared.is_of_layers().then_some(12);
                let (found, at) = find(list, &declared.name_in(layer)).unwrap();
                assert_eq!((found.part, at), (declared.part, layer));
            }
            let parts: BTreeSet<String> =
                list.iter().map(|declared| format!("{:?}", declared.part)).collect();
            let buffers =
                list.iter().filter(|declared| declared.part == crate::Part::RotaryFrequencies).count();
            assert_eq!(parts.len() + buffers - 1, list.len(), "{}: a part is declared twice", family.name());
        }
    }

    #[test]
    fn numbers_of_layers_have_one_spelling() {
        let declared = "blk.N.attn_q.weight";
        assert_eq!(matched(declared, "blk.0.attn_q.weight"), Some(Some(0)));
        assert_eq!(matched(declared, "blk.10.attn_q.weight"), Some(Some(10)));
        for other in
            ["blk.00.attn_q.weight", "blk.+1.attn_q.weight", "blk..attn_q.weight", "blk.1.attn_k.weight"]
        {
            assert_eq!(matched(declared, other), None, "{other}");
        }
    }
}
