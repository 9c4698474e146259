//! Names in `adapter_model.safetensors`: which module, and which part of its change.

use super::AdapterError;
use crate::safetensors::{Header, HeaderEntry};
use std::collections::{BTreeMap, BTreeSet};

/// What an adapter has for one module.
#[derive(Clone, Debug, Default)]
pub(super) struct Module {
    /// `A`: `[r, cols]`, of an embedding `[r, vocabulary]`; of experts `[experts * r, inputs]`.
    pub a: Option<HeaderEntry>,
    /// `B`: `[rows, r]`, of an embedding `[width, r]`; of experts `[outputs, r * experts]`.
    pub b: Option<HeaderEntry>,
    /// Whether the factors are an embedding's: transposed.
    pub embedding: bool,
    /// Added to the module's bias, times the scale: `[rows]`.
    pub b_bias: Option<HeaderEntry>,
    /// DoRA's row norms.
    pub magnitude: Option<HeaderEntry>,
    /// The whole tensor: a saved module, or the base of an embedding.
    pub whole: Option<HeaderEntry>,
    /// The whole tensor under PEFT's inner name, which wins over `whole` and has to be equal to it.
    pub saved: Option<HeaderEntry>,
    /// The whole bias.
    pub whole_bias: Option<HeaderEntry>,
    /// Rows that replace those of the configuration's token numbers: `[numbers, cols]`.
    pub tokens: Option<HeaderEntry>,
    /// What the module was before it was trained and saved whole; not used.
    pub original: Option<HeaderEntry>,
}

impl Module {
    /// The tensor that is taken for the whole one.
    pub(super) fn table(&self) -> Option<&HeaderEntry> {
        self.saved.as_ref().or(self.whole.as_ref())
    }
}

/// Modules by their name in the base model.
#[derive(Debug, Default)]
pub(super) struct Modules {
    pub by_name: BTreeMap<String, Module>,
    /// An example of names that are not as PEFT saves them: another prefix, or with the adapter's name inside.
    pub unusual: Option<String>,
}

pub(super) fn modules(header: &Header) -> Result<Modules, AdapterError> {
    let mut modules = Modules::default();
    let (mut prefixes, mut adapters) = (BTreeSet::new(), BTreeSet::new());
    for entry in &header.entries {
        if !entry.dtype.is_float() {
            return Err(AdapterError::NotFloat { name: entry.name.clone(), actual: entry.dtype });
        }
        if entry.shape.contains(&0) {
            return Err(AdapterError::Empty { name: entry.name.clone() });
        }
        let unknown = || AdapterError::UnknownTensor { name: entry.name.clone() };
        let Named { module, part, prefix, adapter } = named(&entry.name).ok_or_else(unknown)?;
        if prefix != PREFIX || adapter.is_some() {
            modules.unusual.get_or_insert_with(|| entry.name.clone());
        }
        prefixes.insert(prefix);
        adapters.extend(adapter);
        let module = modules.by_name.entry(module.to_owned()).or_default();
        module.embedding |= matches!(part, Part::EmbeddingA | Part::EmbeddingB);
        let place = match part {
            Part::A | Part::EmbeddingA => &mut module.a,
            Part::B | Part::EmbeddingB => &mut module.b,
            Part::BiasOfB => &mut module.b_bias,
            Part::Magnitude => &mut module.magnitude,
            Part::Whole => &mut module.whole,
            Part::Saved => &mut module.saved,
            Part::WholeBias => &mut module.whole_bias,
            Part::Tokens => &mut module.tokens,
            Part::Original => &mut module.original,
        };
        if place.replace(entry.clone()).is_some() {
            return Err(unknown());
        }
    }
    // One prefix and at most one adapter's name: else the file is of several adapters.
    match modules.unusual.clone().filter(|_| prefixes.len() > 1 || adapters.len() > 1) {
        Some(name) => Err(AdapterError::UnknownTensor { name }),
        None => Ok(modules),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    A,
    B,
    EmbeddingA,
    EmbeddingB,
    BiasOfB,
    Magnitude,
    Whole,
    Saved,
    WholeBias,
    Tokens,
    Original,
}

/// What PEFT puts before every name.
const PREFIX: &str = "base_model.model.";
/// Prefixes of PEFT and of wrappers, each of which may be there, be missing or be repeated.
const PREFIXES: [&str; 4] = [PREFIX, "module.", "_orig_mod.", "_fsdp_wrapped_module."];
/// Endings of names and what they are; the first that fits is taken.
const PARTS: [(&str, Part); 15] = [
    (".lora_A.weight", Part::A),
    (".lora_B.weight", Part::B),
    (".lora_B.bias", Part::BiasOfB),
    (".lora_embedding_A", Part::EmbeddingA),
    (".lora_embedding_B", Part::EmbeddingB),
    (".lora_magnitude_vector", Part::Magnitude),
    (".lora_magnitude_vector.weight", Part::Magnitude),
    (".token_adapter.trainable_tokens_delta", Part::Tokens),
    (".token_adapter.base_layer.weight", Part::Whole),
    (".original_module.weight", Part::Original),
    (".modules_to_save.weight", Part::Saved),
    (".base_layer.weight", Part::Whole),
    (".base_layer.bias", Part::WholeBias),
    (".weight", Part::Whole),
    (".bias", Part::WholeBias),
];
/// What an adapter's name stands behind in the names of a state that was saved as it is.
const BEFORE_ADAPTER: [&str; 7] = [
    ".lora_A.",
    ".lora_B.",
    ".lora_embedding_A.",
    ".lora_embedding_B.",
    ".lora_magnitude_vector.",
    ".modules_to_save.",
    ".trainable_tokens_delta.",
];

/// A tensor's name, taken apart.
struct Named<'a> {
    module: &'a str,
    part: Part,
    prefix: &'a str,
    adapter: Option<&'a str>,
}

fn named(name: &str) -> Option<Named<'_>> {
    let mut rest = name;
    while let Some(shorter) = PREFIXES.iter().find_map(|prefix| rest.strip_prefix(prefix)) {
        rest = shorter;
    }
    let prefix = &name[..name.len() - rest.len()];
    let part_of_names = ["lora_", ".modules_to_save.", ".trainable_tokens_delta"];
    let sane = |module: &str| !module.is_empty() && !part_of_names.iter().any(|part| module.contains(part));
    let plain = PARTS.iter().find_map(|(end, part)| Some((rest.strip_suffix(end)?, *part)));
    if let Some((module, part)) = plain.filter(|(module, _)| sane(module)) {
        return Some(Named { module, part, prefix, adapter: None });
    }
    let (module, behind, key) = BEFORE_ADAPTER.iter().find_map(|key| {
        let (module, behind) = rest.rsplit_once(key)?;
        Some((module, behind, *key))
    })?;
    let (adapter, end) =
        behind.split_once('.').map_or((behind, ""), |(adapter, _)| (adapter, &behind[adapter.len()..]));
    let whole = format!("{}{end}", key.trim_end_matches('.'));
    let whole = if key == ".trainable_tokens_delta." { format!(".token_adapter{whole}") } else { whole };
    let module =
        if key == ".trainable_tokens_delta." { module.strip_suffix(".token_adapter")? } else { module };
    let part = PARTS.iter().find(|(known, _)| *known == whole)?.1;
    (sane(module) && !adapter.is_empty()).then_some(Named { module, part, prefix, adapter: Some(adapter) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let module = |name| named(name).map(|named| (named.module, named.part));
        for (name, expected) in [
            ("base_model.model.model.layers.0.q.lora_A.weight", ("model.layers.0.q", Part::A)),
            ("base_model.model.e.lora_embedding_A", ("e", Part::EmbeddingA)),
            ("base_model.model.lm_head.weight", ("lm_head", Part::Whole)),
            ("base_model.model.e.base_layer.weight", ("e", Part::Whole)),
            ("base_model.model.e.token_adapter.base_layer.weight", ("e", Part::Whole)),
            ("base_model.model.e.token_adapter.trainable_tokens_delta", ("e", Part::Tokens)),
            ("base_model.model.q.lora_B.bias", ("q", Part::BiasOfB)),
            ("base_model.model.q.base_layer.bias", ("q", Part::WholeBias)),
            ("base_model.model.experts.base_layer.lora_A.weight", ("experts.base_layer", Part::A)),
            // Not as PEFT saves them, and meant in one way only.
            ("q.lora_A.weight", ("q", Part::A)),
            ("module.base_model.model.base_model.model._orig_mod.q.lora_A.weight", ("q", Part::A)),
            ("base_model.model.q.lora_A.default.weight", ("q", Part::A)),
            ("base_model.model.e.lora_embedding_A.mine", ("e", Part::EmbeddingA)),
            ("base_model.model.q.lora_magnitude_vector.default.weight", ("q", Part::Magnitude)),
            ("base_model.model.e.modules_to_save.default.weight", ("e", Part::Saved)),
            ("base_model.model.e.token_adapter.trainable_tokens_delta.default", ("e", Part::Tokens)),
        ] {
            assert_eq!(module(name), Some(expected), "{name}");
        }
        for name in
            ["base_model.model.q.lora_C.weight", "base_model.model.q.lora_A.bias", "lora_A.weight", "q"]
        {
            assert_eq!(module(name), None, "{name}");
        }
    }
}
