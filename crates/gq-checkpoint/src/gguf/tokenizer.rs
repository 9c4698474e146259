//! Tokenizer metadata to the `tokenizer.json` that gives the same ids, and the texts around it.

use super::config::token_id;
use super::pre_tokenizer::PreTokenizer;
use super::{Gguf, GgufError, Value as Metadatum};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Token types of the format.
pub(super) const NORMAL: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
pub(super) const CONTROL: i32 = 3;
pub(super) const USER_DEFINED: i32 = 4;
pub(super) const BYTE: i32 = 6;

/// Texts of a tokenizer.
pub(super) struct TokenizerTexts {
    pub tokenizer: String,
    pub tokenizer_config: String,
}

struct Vocabulary<'a> {
    gguf: &'a Gguf,
    tokens: &'a [String],
    types: Vec<u64>,
    ids: HashMap<&'a str, usize>,
}

/// Rebuilds the tokenizer; `None` when the file has none.
///
/// # Errors
/// When its kind is not known by name, or its parts do not fit together.
pub(super) fn tokenizer_texts(gguf: &Gguf) -> Result<Option<TokenizerTexts>, GgufError> {
    let text = |key: &str| gguf.metadata().get(key).and_then(Metadatum::as_str);
    let Some(model) = text("tokenizer.ggml.model").filter(|model| !matches!(*model, "none" | "no_vocab"))
    else {
        return Ok(None);
    };
    let vocabulary = Vocabulary::read(gguf)?;
    let (tokenizer, add_bos) = match model {
        "gpt2" => byte_level(&vocabulary)?,
        "llama" => sentence_piece(&vocabulary, piece_merges(&vocabulary)?)?,
        "gemma4" => sentence_piece(&vocabulary, listed_merges(&vocabulary)?)?,
        other => {
            return Err(GgufError::Unsupported {
                key: "tokenizer.ggml.model".to_owned(),
                actual: other.to_owned(),
                supported: "gpt2, llama, gemma4".to_owned(),
            });
        }
    };
    let tokenizer = match text("tokenizer.huggingface.json") {
        Some(whole) => whole.to_owned(), // nothing to guess
        None => tokenizer.to_string(),
    };
    let tokenizer_config = vocabulary.config(add_bos)?.to_string();
    Ok(Some(TokenizerTexts { tokenizer, tokenizer_config }))
}

impl<'a> Vocabulary<'a> {
    fn read(gguf: &'a Gguf) -> Result<Vocabulary<'a>, GgufError> {
        let key = "tokenizer.ggml.tokens";
        let tokens = strings(gguf, key)?.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })?;
        let types = "tokenizer.ggml.token_type";
        let list = gguf.metadata().get(types).and_then(Metadatum::as_array).and_then(super::Array::to_u64s);
        let list = list.unwrap_or_else(|| vec![NORMAL as u64; tokens.len()]);
        if list.len() != tokens.len() {
            let fault = format!("{} types of {} tokens", list.len(), tokens.len());
            return Err(GgufError::Contradiction { key: types.to_owned(), fault });
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if ids.insert(token.as_str(), id).is_some() {
                let fault = format!("token {token:?} appears twice");
                return Err(GgufError::Contradiction { key: key.to_owned(), fault });
            }
        }
        Ok(Vocabulary { gguf, tokens, types: list, ids })
    }

    fn flag(&self, name: &str) -> Option<bool> {
        self.gguf.metadata().get(&format!("tokenizer.ggml.{name}")).and_then(Metadatum::as_bool)
    }

    /// The token that a key names, with its id.
    fn special(&self, name: &str) -> Result<Option<(usize, &'a str)>, GgufError> {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let Some(id) = token_id(self.gguf, &key) else { return Ok(None) };
        match usize::try_from(id).ok().and_then(|id| Some((id, self.tokens.get(id)?.as_str()))) {
            Some(token) => Ok(Some(token)),
            None => {
                let fault = format!("token {id} of {}", self.tokens.len());
                Err(GgufError::Contradiction { key, fault })
            }
        }
    }

    fn added_tokens(&self) -> Vec<Value> {
        let is_added =
            |kind: u64| kind == CONTROL as u64 || kind == USER_DEFINED as u64 || kind == UNKNOWN as u64;
        let added = self.types.iter().enumerate().filter(|(_, kind)| is_added(**kind));
        added
            .map(|(id, &kind)| {
                json!({"id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": kind != USER_DEFINED as u64})
            })
            .collect()
    }

    fn ids_by_token(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| (token.clone(), json!(id))).collect()
    }

    /// Puts the first token in front, and the last behind, where the file says so.
    fn template(&self, add_bos: bool) -> Result<Option<Value>, GgufError> {
        let bos = self.special("bos")?.filter(|_| add_bos);
        let eos = self.special("eos")?.filter(|_| self.flag("add_eos_token") == Some(true));
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

    fn config(&self, add_bos: bool) -> Result<Value, GgufError> {
        let mut config = Map::new();
        for (key, name) in [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")] {
            if let Some((_, token)) = self.special(name)? {
                config.insert(format!("{key}_token"), json!(token));
            }
        }
        config.insert("add_bos_token".into(), json!(add_bos));
        config.insert("add_eos_token".into(), json!(self.flag("add_eos_token").unwrap_or(false)));
        config.insert("tokenizer_class".into(), json!("PreTrainedTokenizerFast"));
        Ok(Value::Object(config))
    }
}

fn strings<'a>(gguf: &'a Gguf, key: &str) -> Result<Option<&'a [String]>, GgufError> {
    let Some(value) = gguf.metadata().get(key) else { return Ok(None) };
    match value.as_array().and_then(super::Array::as_strings) {
        Some(strings) => Ok(Some(strings)),
        None => Err(GgufError::KeyType { key: key.to_owned(), actual: value.kind(), expected: "strings" }),
    }
}

/// `tokenizer.ggml.merges`: pairs, in order of rank.
fn listed_merges(vocabulary: &Vocabulary<'_>) -> Result<Vec<Value>, GgufError> {
    let key = "tokenizer.ggml.merges";
    let merges =
        strings(vocabulary.gguf, key)?.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })?;
    let pair = |merge: &String| match merge.split_once(' ') {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => Ok(json!([left, right])),
        _ => Err(GgufError::Contradiction { key: key.to_owned(), fault: format!("{merge:?} is no pair") }),
    };
    merges.iter().map(pair).collect()
}

/// Merges of a SentencePiece vocabulary: a piece comes from every split into two pieces, best score first.
fn piece_merges(vocabulary: &Vocabulary<'_>) -> Result<Vec<Value>, GgufError> {
    let key = "tokenizer.ggml.scores";
    let missing = || GgufError::MissingKey { key: key.to_owned() };
    let scores = vocabulary.gguf.metadata().get(key).and_then(Metadatum::as_array).ok_or_else(missing)?;
    let scores = scores.as_f32s().filter(|scores| scores.len() == vocabulary.tokens.len());
    let scores = scores.ok_or_else(|| GgufError::Contradiction {
        key: key.to_owned(),
        fault: format!("not one number for each of {} tokens", vocabulary.tokens.len()),
    })?;
    let mut merges = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate() {
        let kind = vocabulary.types[id];
        if kind == CONTROL as u64 || kind == BYTE as u64 || kind == UNKNOWN as u64 {
            continue;
        }
        let first = merges.len();
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            if let (Some(&a), Some(&b)) = (vocabulary.ids.get(left), vocabulary.ids.get(right)) {
                merges.push((scores[id], a, b));
            }
        }
        merges[first..].sort_by_key(|&(_, a, b)| (a, b));
    }
    merges.sort_by(|x, y| y.0.total_cmp(&x.0)); // stable: equal scores stay in the order of ids
    let token = |id: usize| vocabulary.tokens[id].as_str();
    Ok(merges.into_iter().map(|(_, a, b)| json!([token(a), token(b)])).collect())
}

/// SentencePiece-like: spaces become `▁`, unknown characters become bytes.
fn sentence_piece(vocabulary: &Vocabulary<'_>, merges: Vec<Value>) -> Result<(Value, bool), GgufError> {
    let add_bos = vocabulary.flag("add_bos_token").unwrap_or(true);
    let prefix = vocabulary.flag("add_space_prefix").unwrap_or(true);
    let unknown = vocabulary.types.iter().position(|&kind| kind == UNKNOWN as u64);
    let unknown = match vocabulary.special("unknown")? {
        Some((_, token)) => Some(token),
        None => unknown.map(|id| vocabulary.tokens[id].as_str()),
    };
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let back = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let mut decoders = vec![back, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
    let (normalizer, pre_tokenizer) = if prefix {
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        let normalizers = [json!({"type": "Prepend", "prepend": "▁"}), replace];
        (json!({"type": "Sequence", "normalizers": normalizers}), Value::Null)
    } else {
        let split = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
        (replace, split)
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added_tokens(),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": vocabulary.template(add_bos)?,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {"type": "BPE", "dropout": null, "unk_token": unknown, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                  "vocab": vocabulary.ids_by_token(), "merges": merges},
    });
    Ok((tokenizer, add_bos))
}

/// Byte-level BPE with the pre-tokenizer that `tokenizer.ggml.pre` names.
fn byte_level(vocabulary: &Vocabulary<'_>) -> Result<(Value, bool), GgufError> {
    let key = "tokenizer.ggml.pre";
    let name = vocabulary.gguf.metadata().get(key).and_then(Metadatum::as_str).unwrap_or("default");
    let pre = PreTokenizer::from_name(name).ok_or_else(|| GgufError::Unsupported {
        key: key.to_owned(),
        actual: name.to_owned(),
        supported: PreTokenizer::names(),
    })?;
    let add_bos = vocabulary.flag("add_bos_token").unwrap_or(pre.adds_bos());
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let post_processor = match vocabulary.template(add_bos)? {
        Some(template) => json!({"type": "Sequence", "processors": [bytes, template]}),
        None => bytes,
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": vocabulary.added_tokens(),
        "normalizer": null,
        "pre_tokenizer": pre.json(),
        "post_processor": post_processor,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                  "ignore_merges": pre.ignores_merges(), "vocab": vocabulary.ids_by_token(),
                  "merges": listed_merges(vocabulary)?},
    });
    Ok((tokenizer, add_bos))
}
