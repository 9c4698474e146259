//! A model in a GGUF as the parts of a checkpoint: specification, texts, tensors under canonical names.

use super::config::config_json;
use super::names::{canonical_name, transform_of};
use super::stacks::{is_part, stacks};
use super::tokenizer::tokenizer_texts;
use crate::card::{Card, CardValue};
use crate::declared::{ROPE_FACTORS, ROPE_FREQS};
use crate::fused::{FusedTensor, check_twice};
use crate::gguf::{
    Array, Gguf, GgufError, GgufTensor, Metadata, RopeFactors, Storage, Transform, Value, is_decodable, plain,
};
use crate::keys::IgnoredKey;
use crate::{ExpectedTensor, ModelSpec, OpenOptions, Role, SourceTensor, TensorError, Texts, parse_config};
use gq_tensor::DType;
use std::collections::{HashMap, HashSet};

/// What a checkpoint is made from.
pub(crate) struct GgufModel {
    pub(crate) spec: ModelSpec,
    pub(crate) texts: Texts,
    /// By file and offset.
    pub(crate) tensors: Vec<SourceTensor>,
    /// Keys of the metadata that do not matter.
    pub(crate) ignored: Vec<IgnoredKey>,
}

impl GgufModel {
    /// Understands an open file in full; unknown keys are refused unless they are accepted by name.
    ///
    /// # Errors
    /// When its architecture, tokenizer or a key of its metadata is not supported, its tensors are not those of the
    /// configuration, or a type cannot be decoded.
    pub(crate) fn new(gguf: &Gguf, options: &OpenOptions) -> Result<GgufModel, GgufError> {
        let (config, ignored) = config_json(gguf, &options.ignored_keys)?;
        let config = format!("{config:#}");
        let spec = parse_config(&config).map_err(|source| GgufError::Config { source })?;
        let texts = texts(gguf, config, options)?;
        let tensors = tensors(gguf, &spec)?;
        Ok(GgufModel { spec, texts, tensors, ignored })
    }
}

/// Tensors under canonical names. Their `dtype` is that of the values that are read: that of the file for plain
/// types, F32 for decoded and changed ones.
fn tensors(gguf: &Gguf, spec: &ModelSpec) -> Result<Vec<SourceTensor>, GgufError> {
    let expected = spec.expected_tensors();
    let expected: HashMap<&str, &ExpectedTensor> = expected.iter().map(|e| (e.name.as_str(), e)).collect();
    let mut tensors = stacks(gguf, spec)?;
    for stored in gguf.tensors() {
        let info = &stored.info;
        if is_of_ropes(spec, &info.name) || is_part(spec, &info.name) {
            continue;
        }
        let family = spec.family;
        let unknown = || GgufError::UnknownTensor { name: info.name.clone(), architecture: family.name() };
        if let Some(parts) = spec.fused_in_gguf(&info.name) {
            tensors.extend(parts_of(stored, &parts)?);
            continue;
        }
        let name = canonical_name(family, &info.name).ok_or_else(unknown)?;
        let part = expected.get(name.as_str());
        if part.is_none() && !spec.is_unused(&name) {
            return Err(unknown());
        }
        if !is_decodable(info.kind) {
            return Err(GgufError::UndecodableType { name: info.name.clone(), kind: info.kind.name() });
        }
        if let Some(part) = part.filter(|part| part.shape != info.shape) {
            let (actual, expected) = (info.shape.clone(), part.shape.clone());
            let source = TensorError::WrongShape { name: info.name.clone(), actual, expected };
            return Err(GgufError::Tensors { source });
        }
        let storage = Storage { kind: info.kind, transform: transform_of(spec, &name) };
        let plain = plain(info.kind).filter(|_| storage.transform != Transform::PlusOne);
        let layer = crate::names::in_layer(&name).map(|(layer, _)| layer);
        tensors.push(SourceTensor {
            name,
            source_name: info.name.clone(),
            dtype: plain.unwrap_or(DType::F32),
            shape: info.shape.clone(),
            file: stored.part,
            offset: info.offset,
            bytes: info.bytes,
            role: part.map_or(Role::Unused, |part| part.role),
            layer,
            scaled: false,
            gguf: Some(storage),
            pieces: Vec::new(),
            assembly: None,
        });
    }
    check_twice(&tensors).map_err(|source| GgufError::Tensors { source })?;
    tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
    let present: HashSet<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    match expected.keys().filter(|name| !present.contains(**name)).min() {
        Some(name) => {
            let source = TensorError::Missing { name: (*name).to_owned() };
            Err(GgufError::Tensors { source })
        }
        None => Ok(tensors),
    }
}

/// Whether a tensor of a file has divisors of rotary frequencies.
fn is_of_ropes(spec: &ModelSpec, name: &str) -> bool {
    let both = spec.family.file().gguf.rope_factors == RopeFactors::ShortAndLong;
    name == ROPE_FREQS || both && ROPE_FACTORS.contains(&name)
}

/// The parts of a tensor that has the rows of several.
fn parts_of(stored: &GgufTensor, parts: &FusedTensor) -> Result<Vec<SourceTensor>, GgufError> {
    let info = &stored.info;
    if !is_decodable(info.kind) {
        return Err(GgufError::UndecodableType { name: info.name.clone(), kind: info.kind.name() });
    }
    let whole = SourceTensor {
        name: info.name.clone(),
        source_name: info.name.clone(),
        dtype: plain(info.kind).unwrap_or(DType::F32),
        shape: info.shape.clone(),
        file: stored.part,
        offset: info.offset,
        bytes: info.bytes,
        role: Role::Unused,
        layer: parts.layer,
        scaled: false,
        gguf: Some(Storage { kind: info.kind, transform: Transform::None }),
        pieces: Vec::new(),
        assembly: None,
    };
    parts.of(&whole).map_err(|source| GgufError::Tensors { source })
}

/// Configuration, tokenizer, chat template and settings, as the Hub's files would have them.
fn texts(gguf: &Gguf, config: String, options: &OpenOptions) -> Result<Texts, GgufError> {
    let text = |key: &str| gguf.metadata().get(key).and_then(Value::as_str).map(str::to_owned);
    let tokenizer = tokenizer_texts(gguf.metadata(), options)?;
    let (tokenizer, tokenizer_config) = tokenizer.map(|t| (t.tokenizer, t.tokenizer_config)).unzip();
    let generation: serde_json::Map<_, _> = serde_json::from_str::<serde_json::Value>(&config)
        .ok()
        .map(|config| {
            let keys = ["bos_token_id", "eos_token_id", "pad_token_id"];
            keys.iter().filter_map(|key| Some(((*key).to_owned(), config.get(*key)?.clone()))).collect()
        })
        .unwrap_or_default();
    Ok(Texts {
        config,
        tokenizer,
        tokenizer_config,
        chat_template: text("tokenizer.chat_template"),
        generation_config: Some(serde_json::Value::Object(generation).to_string()),
        special_tokens_map: None,
        licences: Vec::new(),
        licence_name: text("general.license"),
        card: card(gguf.metadata()),
    })
}

/// What a GGUF says about its model, as a card says it.
fn card(metadata: &Metadata) -> Card {
    let mut card = Card::default();
    let text = |key: &str| metadata.get(&format!("general.{key}")).and_then(Value::as_str);
    let same =
        ["name", "author", "version", "organization", "finetune", "basename", "description", "size_label"];
    let others = [
        ("license", "license"),
        ("license.name", "license_name"),
        ("license.link", "license_link"),
        ("source.url", "url"),
        ("source.doi", "doi"),
        ("source.uuid", "uuid"),
        ("source.repo_url", "repo_url"),
    ];
    for (key, name) in same.map(|key| (key, key)).into_iter().chain(others) {
        if let Some(text) = text(key) {
            card.set(name, CardValue::Text(text.to_owned()));
        }
    }
    for key in ["tags", "languages"] {
        if let Some(Value::Array(Array::String(list))) = metadata.get(&format!("general.{key}")) {
            card.set(key, CardValue::List(list.clone()));
        }
    }
    for (key, name) in [("base_model", "base_models"), ("dataset", "datasets")] {
        if let Some(Value::U32(count)) = metadata.get(&format!("general.{key}.count")) {
            let parents = (0..*count).map_while(|n| text(&format!("{key}.{n}.repo_url")).map(str::to_owned));
            card.set(name, CardValue::List(parents.collect()));
        }
    }
    card
}
