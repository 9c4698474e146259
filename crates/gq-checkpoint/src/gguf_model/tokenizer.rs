//! Tokenizer metadata to the `tokenizer.json` that gives the ids llama.cpp gives, and the texts around it.

use super::pieces::piece_merges;
use super::pre_tokenizer::PreTokenizer;
use super::token_types::UNKNOWN;
use super::vocabulary::{Vocabulary, strings};
use super::{turn_tokens, whole};
use crate::gguf::{GgufError, Metadata, Value as Metadatum};
use crate::{OpenOptions, TurnTokens};
use serde_json::{Value, json};
use std::collections::HashSet;

/// Texts of a tokenizer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenizerTexts {
    /// `tokenizer.json`.
    pub tokenizer: String,
    /// `tokenizer_config.json`.
    pub tokenizer_config: String,
}

/// Rebuilds the tokenizer of a GGUF's metadata; `None` when there is none.
///
/// # Errors
/// When its kind is not known by name, its parts do not fit together, or it does not say how text is split.
pub fn tokenizer_texts(
    metadata: &Metadata,
    options: &OpenOptions,
) -> Result<Option<TokenizerTexts>, GgufError> {
    let text = |key: &str| metadata.get(key).and_then(Metadatum::as_str);
    let Some(model) = text("tokenizer.ggml.model").filter(|model| !matches!(*model, "none" | "no_vocab"))
    else {
        return Ok(None);
    };
    let mut options = options.clone();
    let whole = text(whole::KEY);
    if whole.is_some() {
        // Nothing to guess: it says how text is split, and which tokens are found first.
        options.assume_pre.get_or_insert_with(|| "default".to_owned());
        options.turn_tokens.get_or_insert(TurnTokens::Text);
    }
    let mut vocabulary = Vocabulary::read(metadata, model, options.types_as_written)?;
    let merges = match model {
        "gpt2" | "gemma4" => listed_merges(&vocabulary)?,
        "llama" => piece_merges(&vocabulary)?,
        other => {
            return Err(GgufError::Unsupported {
                key: "tokenizer.ggml.model".to_owned(),
                actual: other.to_owned(),
                supported: "gpt2, llama, gemma4".to_owned(),
            });
        }
    };
    if let Some(whole) = whole {
        whole::compare(whole, &vocabulary, (model != "llama").then_some(&merges))?;
    }
    turn_tokens::settle(&mut vocabulary, &merges, options.turn_tokens)?;
    let (tokenizer, add_bos) = match model {
        "gpt2" => byte_level(&vocabulary, &merges, options.assume_pre.as_deref())?,
        // Readers begin a text of Gemma 4 with its first token, whatever the file says.
        "gemma4" => sentence_piece(&vocabulary, &merges, true)?,
        _ => sentence_piece(&vocabulary, &merges, vocabulary.flag("add_bos_token")?.unwrap_or(true))?,
    };
    let tokenizer = whole.map_or_else(|| tokenizer.to_string(), str::to_owned);
    let tokenizer_config = vocabulary.config(add_bos)?.to_string();
    Ok(Some(TokenizerTexts { tokenizer, tokenizer_config }))
}

/// `tokenizer.ggml.merges`: pairs, in order of rank. Of a pair that stands twice, the first counts.
fn listed_merges<'a>(vocabulary: &Vocabulary<'a>) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
    let key = "tokenizer.ggml.merges";
    let merges =
        strings(vocabulary.metadata, key)?.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })?;
    let mut seen = HashSet::with_capacity(merges.len());
    let mut list = Vec::with_capacity(merges.len());
    for merge in merges {
        // A first part may itself begin with the space that separates the two.
        let space = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
        let pair =
            space.map(|(at, _)| (&merge[..at], &merge[at + 1..])).filter(|(_, right)| !right.is_empty());
        let no_pair =
            || GgufError::Contradiction { key: key.to_owned(), fault: format!("{merge:?} is no pair") };
        let pair = pair.ok_or_else(no_pair)?;
        if seen.insert(pair) {
            list.push(pair);
        }
    }
    Ok(list)
}

fn merges_json(merges: &[(&str, &str)]) -> Vec<Value> {
    merges.iter().map(|(left, right)| json!([left, right])).collect()
}

/// SentencePiece-like: spaces become `▁`, unknown characters become bytes.
fn sentence_piece(
    vocabulary: &Vocabulary<'_>,
    merges: &[(&str, &str)],
    add_bos: bool,
) -> Result<(Value, bool), GgufError> {
    let prefix = vocabulary.flag("add_space_prefix")?.unwrap_or(true);
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
                  "vocab": vocabulary.ids_by_token(), "merges": merges_json(merges)},
    });
    Ok((tokenizer, add_bos))
}

/// Byte-level BPE with the pre-tokenizer that `tokenizer.ggml.pre` names, or the one that is assumed without it.
fn byte_level(
    vocabulary: &Vocabulary<'_>,
    merges: &[(&str, &str)],
    assumed: Option<&str>,
) -> Result<(Value, bool), GgufError> {
    let key = "tokenizer.ggml.pre";
    let name = vocabulary.text(key).filter(|name| !name.is_empty()).or(assumed);
    let name = name.ok_or_else(|| GgufError::NoPreTokenizer { known: PreTokenizer::names() })?;
    let pre = PreTokenizer::from_name(name).ok_or_else(|| GgufError::Unsupported {
        key: key.to_owned(),
        actual: name.to_owned(),
        supported: PreTokenizer::names(),
    })?;
    let add_bos = vocabulary.flag("add_bos_token")?.unwrap_or(pre.adds_bos());
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
                  "merges": merges_json(merges)},
    });
    Ok((tokenizer, add_bos))
}
