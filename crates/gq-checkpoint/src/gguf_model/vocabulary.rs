//! Tokens, types, special ids of a GGUF's tokenizer, as llama.cpp takes them.

use super::token_types::{CONTROL, NORMAL, UNKNOWN, USER_DEFINED};
use super::{named_templates, special_names};
use crate::gguf::{Array, GgufError, Metadata, Value as Metadatum};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

pub(super) struct Vocabulary<'a> {
    pub metadata: &'a Metadata,
    pub tokens: &'a [String],
    /// Types as they are used: spellings decide over the file.
    pub types: Vec<u64>,
    /// Ids of special tokens that the file does not name.
    defaults: &'static [(&'static str, usize)],
}

impl<'a> Vocabulary<'a> {
    /// Reads what every kind of tokenizer has; `model` is `tokenizer.ggml.model`.
    pub fn read(
        metadata: &'a Metadata,
        model: &str,
        types_as_written: bool,
    ) -> Result<Vocabulary<'a>, GgufError> {
        let key = "tokenizer.ggml.tokens";
        let tokens = strings(metadata, key)?.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })?;
        let types = "tokenizer.ggml.token_type";
        let mut list = match metadata.get(types) {
            None => vec![NORMAL as u64; tokens.len()],
            Some(value) => {
                let list = value.as_array().and_then(Array::to_u64s);
                list.ok_or_else(|| of_type(types, value, "an array of whole numbers from 0 on"))?
            }
        };
        if list.len() != tokens.len() {
            let fault = format!("{} types of {} tokens", list.len(), tokens.len());
            return Err(GgufError::Contradiction { key: types.to_owned(), fault });
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate().filter(|(_, token)| !token.is_empty()) {
            if ids.insert(token.as_str(), id).is_some() {
                let fault = format!("token {token:?} appears twice");
                return Err(GgufError::Contradiction { key: key.to_owned(), fault });
            }
        }
        if !types_as_written {
            special_names::apply(metadata, &ids, &mut list);
        }
        let defaults: &[_] = match model {
            "llama" => &[("bos", 1), ("eos", 2), ("unknown", 0)],
            _ => &[],
        };
        Ok(Vocabulary { metadata, tokens, types: list, defaults })
    }

    /// A truth value; `None` where there is no such key.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, GgufError> {
        let key = format!("tokenizer.ggml.{name}");
        let Some(value) = self.metadata.get(&key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| of_type(&key, value, "a truth value"))
    }

    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.metadata.get(key).and_then(Metadatum::as_str)
    }

    /// The token that a key names, with its id; where there is no key, the one that readers take.
    pub fn special(&self, name: &str) -> Result<Option<(usize, &'a str)>, GgufError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(value) = self.metadata.get(&key) else {
            let default = self.defaults.iter().find(|(default, _)| *default == name);
            return Ok(default.and_then(|&(_, id)| Some((id, self.tokens.get(id)?.as_str()))));
        };
        let id = value.as_u64().ok_or_else(|| of_type(&key, value, "a whole number from 0 on"))?;
        match usize::try_from(id).ok().and_then(|id| Some((id, self.tokens.get(id)?.as_str()))) {
            Some(token) => Ok(Some(token)),
            None => {
                let fault = format!("token {id} of {}", self.tokens.len());
                Err(GgufError::Contradiction { key, fault })
            }
        }
    }

    /// Whether a token is found in text before anything else is done with it.
    pub fn is_added(&self, id: usize) -> bool {
        let kind = self.types[id];
        kind == CONTROL as u64 || kind == USER_DEFINED as u64 || kind == UNKNOWN as u64
    }

    /// How the vocabulary spells a token: an empty one has a name of its own.
    pub fn spelling(&self, id: usize) -> String {
        match self.tokens[id].as_str() {
            "" => format!("[EMPTY_{id}]"),
            token => token.to_owned(),
        }
    }

    pub fn added_tokens(&self) -> Vec<Value> {
        let phi3 = self.text("general.name").map(str::to_lowercase);
        let phi3 = phi3.is_some_and(|name| name.contains("phi-3") || name.contains("phi3"));
        // llama.cpp knows this family, and that white space behind its special tokens is dropped.
        let rstrip = |token: &str| phi3 && !matches!(token, "<unk>" | "<s>" | "<|endoftext|>");
        (0..self.tokens.len())
            .filter(|&id| self.is_added(id))
            .map(|id| {
                let token = self.spelling(id);
                json!({"id": id, "content": token, "single_word": false, "lstrip": false,
                       "rstrip": rstrip(&token), "normalized": false,
                       "special": self.types[id] != USER_DEFINED as u64})
            })
            .collect()
    }

    pub fn ids_by_token(&self) -> Map<String, Value> {
        (0..self.tokens.len()).map(|id| (self.spelling(id), json!(id))).collect()
    }

    /// Puts the first token in front, and the last behind, where the file says so.
    pub fn template(&self, add_bos: bool) -> Result<Option<Value>, GgufError> {
        let bos = self.special("bos")?.filter(|_| add_bos);
        let adds_eos = self.flag("add_eos_token")? == Some(true);
        let eos = self.special("eos")?.filter(|_| adds_eos);
        if bos.is_none() && eos.is_none() {
            return Ok(None);
        }
        let side = |name: &str, kind: u32| {
            let special = |token: Option<(usize, &str)>| {
                token.map(|(_, token)| json!({"SpecialToken": {"id": token, "type_id": kind}}))
            };
            let middle = Some(json!({"Sequence": {"id": name, "type_id": kind}}));
            [special(bos), middle, special(eos)].into_iter().flatten().collect::<Vec<_>>()
        };
        let pair = [side("A", 0), side("B", 1)].concat();
        let mut specials = Map::new();
        for (id, token) in bos.into_iter().chain(eos) {
            specials.insert(token.to_owned(), json!({"id": token, "ids": [id], "tokens": [token]}));
        }
        Ok(Some(json!({"type": "TemplateProcessing", "single": side("A", 0),
                       "pair": pair, "special_tokens": specials})))
    }

    pub fn config(&self, add_bos: bool) -> Result<Value, GgufError> {
        let mut config = Map::new();
        for (key, name) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
            if let Some((_, token)) = self.special(name)? {
                config.insert(format!("{key}_token"), json!(token));
            }
        }
        if let Some(list) = named_templates::read(self.metadata) {
            config.insert("chat_template".into(), list);
        }
        config.insert("add_bos_token".into(), json!(add_bos));
        config.insert("add_eos_token".into(), json!(self.flag("add_eos_token")?.unwrap_or(false)));
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        Ok(Value::Object(config))
    }
}

pub(super) fn strings<'a>(metadata: &'a Metadata, key: &str) -> Result<Option<&'a [String]>, GgufError> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    match value.as_array().and_then(Array::as_strings) {
        Some(strings) => Ok(Some(strings)),
        None => Err(of_type(key, value, "strings")),
    }
}

fn of_type(key: &str, value: &Metadatum, expected: &'static str) -> GgufError {
    GgufError::KeyType { key: key.to_owned(), actual: value.kind(), expected }
}
