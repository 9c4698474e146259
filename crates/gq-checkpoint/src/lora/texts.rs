//! Texts in an adapter's folder: trainers save the tokenizer and the chat template that they trained with there.

use super::text_files::{ADDED, SETTINGS, texts_of};
use super::{Adapter, AdapterError, AdapterFile};
use crate::named_templates::{self, DEFAULT};
use crate::texts::{path_within, read_text, texts_by};
use crate::{CheckpointError, Note, SpecialSettings, Stamp, Texts, json, limits};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Where tokenizer, chat template and the numbers of tokens that end a turn come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TextsFrom {
    /// From the adapters' folders, as far as they are there; several that disagree are refused.
    #[default]
    Adapters,
    /// From the checkpoint alone.
    Checkpoint,
    /// From this folder.
    Folder(PathBuf),
}

/// Texts that were taken from elsewhere than the checkpoint.
#[derive(Clone, Debug)]
pub struct TakenTexts {
    /// The adapter's or folder's name.
    pub from: String,
    /// Their files.
    pub files: Vec<AdapterFile>,
    pub(crate) texts: Texts,
    /// The list of chat templates with names, out of files or settings.
    named: Option<Value>,
    /// `added_tokens.json`.
    added: Option<String>,
}

impl TakenTexts {
    /// Chooses, compares with what the checkpoint has, and says so. `rows` are those of the embedding.
    ///
    /// # Errors
    /// When a text cannot be read, adapters disagree, or a tokenizer has tokens without rows.
    pub(crate) fn choose(
        from: &TextsFrom,
        adapters: &[Adapter],
        own: &Texts,
        rows: usize,
    ) -> Result<(Option<TakenTexts>, Vec<Note>), AdapterError> {
        if let TextsFrom::Folder(dir) = from {
            let paths = texts_of(dir);
            if !paths.iter().any(|path| path.ends_with("tokenizer.json")) {
                return Err(AdapterError::NoFile { dir: dir.clone(), file: "tokenizer.json" });
            }
            let absolute = dir.canonicalize().unwrap_or_else(|_| dir.clone());
            let name = absolute.file_name().map(|name| name.to_string_lossy().into_owned());
            let taken = TakenTexts::read(&name.unwrap_or_default(), &paths)?;
            taken.check(own, rows)?;
            let note = taken.note(own);
            return Ok((Some(taken), vec![note]));
        }
        let mut found: Vec<TakenTexts> = Vec::new();
        for adapter in adapters.iter().filter(|adapter| !adapter.texts.is_empty()) {
            found.push(TakenTexts::read(adapter.name(), &adapter.texts)?);
        }
        if *from == TextsFrom::Checkpoint {
            let kept = |taken: &TakenTexts| (taken.from.clone(), differences(&taken.over(own.clone()), own));
            let kept = found.iter().map(kept).filter(|(_, differing)| !differing.is_empty());
            return Ok((None, kept.map(|(from, differing)| Note::TextsKept { from, differing }).collect()));
        }
        let said = |taken: &TakenTexts| taken.over(own.clone());
        for (index, second) in found.iter().enumerate() {
            for first in &found[..index] {
                if let Some(what) = differences(&said(first), &said(second)).first() {
                    let (first, second) = (first.from.clone(), second.from.clone());
                    return Err(AdapterError::TextsDisagree { first, second, what });
                }
            }
        }
        let Some(taken) = found.into_iter().next() else { return Ok((None, Vec::new())) };
        taken.check(own, rows)?;
        let note = taken.note(own);
        Ok((Some(taken), vec![note]))
    }

    fn read(from: &str, paths: &[PathBuf]) -> Result<TakenTexts, AdapterError> {
        let (mut files, mut contents) = (Vec::new(), BTreeMap::new());
        for path in paths {
            let name = path_within(path);
            let io = |source| CheckpointError::Io { path: path.clone(), source };
            let stamp = Stamp::of(&std::fs::metadata(path).map_err(io)?);
            let limit = if name == "tokenizer.json" { limits::TOKENIZER_BYTES } else { limits::TEXT_BYTES };
            let text = read_text(path, limit)?;
            let (bytes, sha256) = (text.len() as u64, hex::encode(Sha256::digest(text.as_bytes())));
            files.push(AdapterFile { name, bytes, sha256, path: path.clone(), stamp });
            contents.insert(path.clone(), text);
        }
        // What is taken is what was digested.
        let mut texts = texts_by(paths, &|path, limit| match contents.get(path) {
            Some(text) => Ok(text.clone()),
            None => read_text(path, limit),
        })?;
        let added = files.iter().find(|file| file.name == ADDED);
        let added = added.and_then(|file| contents.get(&file.path).cloned());
        let named = named_templates::list(texts.tokenizer_config.as_deref());
        // Without a file of settings there are none, whatever templates there are.
        let has_settings = files.iter().any(|file| file.name == SETTINGS);
        texts.tokenizer_config = texts.tokenizer_config.filter(|_| has_settings);
        Ok(TakenTexts { from: from.to_owned(), files, texts, named, added })
    }

    /// A checkpoint's texts with these over them.
    pub(crate) fn over(&self, own: Texts) -> Texts {
        own.overlaid(&self.texts, self.named.as_ref())
    }

    fn note(&self, own: &Texts) -> Note {
        let files = self.files.iter().map(|file| file.name.clone()).collect();
        let differing = differences(own, &self.over(own.clone()));
        Note::Texts { from: self.from.clone(), files, differing }
    }

    /// Bytes that its texts take.
    pub(crate) fn bytes(&self) -> u64 {
        self.texts.bytes() + self.named.as_ref().map_or(0, |named| named.to_string().len() as u64)
    }

    /// Checks that every token has a row, and that `added_tokens.json` says nothing that the tokenizer does not.
    fn check(&self, own: &Texts, rows: usize) -> Result<(), AdapterError> {
        let tokenizer = self.texts.tokenizer.as_ref().or(own.tokenizer.as_ref());
        let parse = |name: &str, text: &str| {
            let path = self.files.iter().find(|file| file.name == name).map(|file| file.path.clone());
            json::parse(text.as_bytes())
                .map_err(|source| CheckpointError::TextJson { path: path.unwrap_or_default(), source })
        };
        let tokens = match tokenizer {
            Some(text) => tokens(&parse("tokenizer.json", text)?),
            None => Vec::new(),
        };
        let beyond = tokens.iter().filter(|(_, id)| *id >= rows as u64).min_by_key(|(_, id)| *id);
        if let Some((token, id)) = beyond.filter(|_| self.texts.tokenizer.is_some()) {
            let (from, token) = (self.from.clone(), token.clone());
            return Err(AdapterError::TokenBeyond { from, token, id: *id, rows });
        }
        let Some(added) = &self.added else { return Ok(()) };
        let added = parse(ADDED, added)?;
        let known: BTreeSet<(&str, u64)> = tokens.iter().map(|(token, id)| (token.as_str(), *id)).collect();
        for (token, id) in added.as_object().into_iter().flatten() {
            let id = id.as_u64().unwrap_or(u64::MAX);
            if !known.contains(&(token.as_str(), id)) {
                return Err(AdapterError::AddedToken { from: self.from.clone(), token: token.clone(), id });
            }
        }
        Ok(())
    }
}

/// Tokens and their numbers in a `tokenizer.json`.
fn tokens(tokenizer: &Value) -> Vec<(String, u64)> {
    let vocabulary = &tokenizer["model"]["vocab"];
    let map = vocabulary.as_object().into_iter().flatten();
    let map = map.filter_map(|(token, id)| Some((token.clone(), id.as_u64()?)));
    let list = vocabulary.as_array().into_iter().flatten().zip(0..);
    let list = list.filter_map(|(item, id)| Some((item.get(0)?.as_str()?.to_owned(), id)));
    let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    let added =
        added.filter_map(|token| Some((token["content"].as_str()?.to_owned(), token["id"].as_u64()?)));
    map.chain(list).chain(added).collect()
}

/// What two sets of texts say differently about how a model is spoken to.
fn differences(a: &Texts, b: &Texts) -> Vec<&'static str> {
    let parsed = |text: &Option<String>| text.as_ref().and_then(|text| json::parse(text.as_bytes()).ok());
    let mut list = Vec::new();
    // Spelled alike or not: programs write the same tokenizer in several ways.
    if a.tokenizer != b.tokenizer && parsed(&a.tokenizer) != parsed(&b.tokenizer) {
        list.push("tokenizer");
    }
    if special_tokens(a) != special_tokens(b) {
        list.push("special tokens");
    }
    let (mut first, mut second) = (templates(a), templates(b));
    if first.remove(DEFAULT) != second.remove(DEFAULT) {
        list.push("chat template");
    }
    match (first.is_empty(), second.is_empty()) {
        (true, false) => list.push("named chat templates (it has none)"),
        _ if first != second => list.push("named chat templates"),
        _ => {}
    }
    let eos = |text: &Option<String>| parsed(text).map(|value| value["eos_token_id"].clone());
    if eos(&a.generation_config) != eos(&b.generation_config) {
        list.push("end of turn in generation_config.json");
    }
    list
}

/// Chat templates by name.
fn templates(texts: &Texts) -> BTreeMap<String, String> {
    let list = named_templates::list(texts.tokenizer_config.as_deref());
    let mut templates = named_templates::by_name(texts.chat_template.as_deref(), list.as_ref());
    templates.values_mut().for_each(|text| text.truncate(text.trim_end().len()));
    templates
}

/// What the settings and the map of special tokens say about tokens: names, and which are put around a text.
fn special_tokens(texts: &Texts) -> Map<String, Value> {
    const KEYS: [&str; 9] = [
        "bos_token",
        "eos_token",
        "pad_token",
        "unk_token",
        "sep_token",
        "cls_token",
        "mask_token",
        "add_bos_token",
        "add_eos_token",
    ];
    let map = texts.special_tokens_map.as_deref();
    let settings = SpecialSettings::read(texts.tokenizer_config.as_deref(), map).unwrap_or_default().settings;
    let get = |key: &str| {
        let value = settings.get(key)?.clone();
        let content = value.get("content").cloned();
        Some((key.to_owned(), content.unwrap_or(value))).filter(|(_, value)| !value.is_null())
    };
    KEYS.into_iter().filter_map(get).collect()
}
