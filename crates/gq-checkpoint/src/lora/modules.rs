//! Names in `adapter_model.safetensors`: which module, and which part of its change.

use super::AdapterError;
use crate::safetensors::{Header, HeaderEntry};
use std::collections::BTreeMap;

/// What an adapter has for one module.
#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    /// `A`: `[r, cols]`, of an embedding `[r, vocabulary]`.
    pub a: Option<HeaderEntry>,
    /// `B`: `[rows, r]`, of an embedding `[width, r]`.
    pub b: Option<HeaderEntry>,
    /// Whether the factors are an embedding's: transposed.
    pub embedding: bool,
    /// DoRA's row norms.
    pub magnitude: Option<HeaderEntry>,
    /// The whole tensor: a saved module, or the base of an embedding.
    pub whole: Option<HeaderEntry>,
}

/// Modules by their name in the base model.
pub(super) fn modules(header: &Header) -> Result<BTreeMap<String, Module>, AdapterError> {
    let mut modules: BTreeMap<String, Module> = BTreeMap::new();
    for entry in &header.entries {
        if !entry.dtype.is_float() {
            return Err(AdapterError::NotFloat { name: entry.name.clone(), actual: entry.dtype });
        }
        let unknown = || AdapterError::UnknownTensor { name: entry.name.clone() };
        let (name, part) = part(&entry.name).ok_or_else(unknown)?;
        let module = modules.entry(name.to_owned()).or_default();
        module.embedding |= matches!(part, Part::EmbeddingA | Part::EmbeddingB);
        let place = match part {
            Part::A | Part::EmbeddingA => &mut module.a,
            Part::B | Part::EmbeddingB => &mut module.b,
            Part::Magnitude => &mut module.magnitude,
            Part::Whole => &mut module.whole,
        };
        if place.replace(entry.clone()).is_some() {
            return Err(unknown());
        }
    }
    Ok(modules)
}

enum Part {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    Magnitude,
    Whole,
}

/// Endings of names and what they are; the first that fits is taken.
const PARTS: [(&str, Part); 9] = [
    (".lora_A.weight", Part::A),
    (".lora_B.weight", Part::B),
    (".lora_embedding_A", Part::EmbeddingA),
    (".lora_embedding_B", Part::EmbeddingB),
    (".lora_magnitude_vector", Part::Magnitude),
    (".lora_magnitude_vector.weight", Part::Magnitude),
    (".base_layer.weight", Part::Whole),
    (".modules_to_save.weight", Part::Whole),
    (".weight", Part::Whole),
];

fn part(name: &str) -> Option<(&str, &'static Part)> {
    let name = name.strip_prefix("base_model.model.")?;
    let (module, part) = PARTS.iter().find_map(|(end, part)| Some((name.strip_suffix(end)?, part)))?;
    let strange = module.is_empty() || module.contains("lora_");
    (!strange).then_some((module, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let module = |name| part(name).map(|(module, _)| module);
        assert_eq!(module("base_model.model.model.layers.0.q.lora_A.weight"), Some("model.layers.0.q"));
        assert_eq!(module("base_model.model.e.lora_embedding_A"), Some("e"));
        assert_eq!(module("base_model.model.lm_head.weight"), Some("lm_head"));
        assert_eq!(module("base_model.model.e.base_layer.weight"), Some("e"));
        for name in ["q.lora_A.weight", "base_model.model.q.lora_C.weight", "base_model.model.q.lora_A.bias"]
        {
            assert_eq!(module(name), None, "{name}");
        }
    }
}
