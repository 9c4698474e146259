//! Whether a tokenizer loads as it is written: the library passes over what it does not know, and gives an added
//! token after a gap in the ids the next free one.

use crate::tokenizer_error::TokenizerError;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use tokenizers::{ModelWrapper, Tokenizer};

/// Names of older files that the library translates.
const TRANSLATED: [&str; 2] = ["add_prefix_space", "str_rep"];

/// Compares every part of a parsed `tokenizer.json` with what was loaded from it.
///
/// Keys at the top that it does not know the library refuses itself. `truncation` and `padding` are not compared: they change no text's tokens, and are switched off.
///
/// # Errors
/// [`TokenizerError::NotAsWritten`], [`TokenizerError::MovedId`] or [`TokenizerError::Dropout`], for the first part.
pub(crate) fn compare(file: &Value, loaded: &Tokenizer) -> Result<(), TokenizerError> {
    part("normalizer", file, loaded.get_normalizer())?;
    part("pre_tokenizer", file, loaded.get_pre_tokenizer())?;
    part("post_processor", file, loaded.get_post_processor())?;
    part("decoder", file, loaded.get_decoder())?;
    model(&file["model"], loaded.get_model())?;
    vocabulary(&file["model"]["vocab"], loaded)?;
    added_tokens(file["added_tokens"].as_array().map_or(&[][..], Vec::as_slice), loaded)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// Whether a setting that is not known would change something.
fn says(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false)) && value.as_array().is_none_or(|list| !list.is_empty())
}

fn not_as_written(part: &str, written: &Value, loaded: Option<&Value>) -> TokenizerError {
    const LONGEST: usize = 80;
    let short = |value: &Value| value.to_string().chars().take(LONGEST).collect::<String>();
    let loaded = loaded.map_or_else(|| "nothing".to_owned(), short);
    TokenizerError::NotAsWritten { part: part.to_owned(), written: short(written), loaded }
}

fn part(name: &str, file: &Value, loaded: Option<&impl Serialize>) -> Result<(), TokenizerError> {
    let loaded = serde_json::to_value(loaded).unwrap_or_default();
    same(name, &file[name], &loaded)
}

/// Everything that is written must be in what was loaded; what else is loaded is a default.
fn same(path: &str, written: &Value, loaded: &Value) -> Result<(), TokenizerError> {
    match (written, loaded) {
        (Value::Object(written), Value::Object(loaded)) => {
            for (key, value) in written {
                let path = format!("{path}.{key}");
                match loaded.get(key) {
                    Some(loaded) => same(&path, value, loaded)?,
                    None if TRANSLATED.contains(&key.as_str()) || !says(value) => {}
                    None => return Err(not_as_written(&path, value, None)),
                }
            }
            Ok(())
        }
        (Value::Array(list), Value::Array(other)) if list.len() == other.len() => {
            let mut pairs = list.iter().zip(other).enumerate();
            pairs.try_for_each(|(index, (a, b))| same(&format!("{path}[{index}]"), a, b))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => Ok(()),
        // A template may be written as one string; it is kept as a list.
        (Value::String(_), Value::Array(_)) if path.ends_with(".single") || path.ends_with(".pair") => Ok(()),
        (a, b) if a == b => Ok(()),
        // Left out, or off: as the default is.
        (a, b) if !says(a) && !says(b) => Ok(()),
        (a, b) => Err(not_as_written(path, a, Some(b))),
    }
}

/// Flags of the model.
fn model(written: &Value, loaded: &ModelWrapper) -> Result<(), TokenizerError> {
    // A vocabulary with merges may be long: only the flags are written out.
    let (flags, known) = match loaded {
        ModelWrapper::BPE(bpe) => {
            if let Some(dropout) = bpe.dropout.filter(|&dropout| dropout > 0.0) {
                return Err(TokenizerError::Dropout { dropout });
            }
            let flags = json!({
                "dropout": bpe.dropout, "unk_token": bpe.unk_token, "fuse_unk": bpe.fuse_unk,
                "continuing_subword_prefix": bpe.continuing_subword_prefix,
                "end_of_word_suffix": bpe.end_of_word_suffix, "byte_fallback": bpe.byte_fallback,
                "ignore_merges": bpe.ignore_merges,
            });
            (flags, &["merges"][..])
        }
        ModelWrapper::Unigram(_) => (Value::Null, &["unk_id", "byte_fallback"][..]),
        ModelWrapper::WordLevel(_) => (Value::Null, &["unk_token"][..]),
        ModelWrapper::WordPiece(_) => {
            (Value::Null, &["unk_token", "continuing_subword_prefix", "max_input_chars_per_word"][..])
        }
    };
    for (key, value) in members(written) {
        let path = format!("model.{key}");
        match flags.get(key) {
            Some(loaded) => same(&path, value, loaded)?,
            None if key == "type" || key == "vocab" || known.contains(&key.as_str()) || !says(value) => {}
            None => return Err(not_as_written(&path, value, None)),
        }
    }
    Ok(())
}

/// Ids of the vocabulary, which is a map, or a list with scores.
fn vocabulary(written: &Value, loaded: &Tokenizer) -> Result<(), TokenizerError> {
    let vocab = loaded.get_vocab(false);
    let mut tokens: HashMap<u64, &str> = HashMap::with_capacity(vocab.len());
    for (token, id) in members(written) {
        let id = id.as_u64().ok_or_else(|| not_as_written(&format!("model.vocab.{token:?}"), id, None))?;
        if vocab.get(token).map(|&id| u64::from(id)) != Some(id) {
            return Err(moved(token, id, vocab.get(token).copied()));
        }
        if let Some(other) = tokens.insert(id, token) {
            let both = format!("model.vocab: id {id}");
            return Err(not_as_written(&both, &json!([other, token]), Some(&json!(token))));
        }
    }
    Ok(())
}

fn moved(token: &str, written: u64, loaded: Option<u32>) -> TokenizerError {
    let loaded = loaded.map_or_else(|| "nothing".to_owned(), |id| id.to_string());
    TokenizerError::MovedId { token: token.to_owned(), written, loaded }
}

/// Ids and flags of the tokens that are found before anything else.
fn added_tokens(written: &[Value], loaded: &Tokenizer) -> Result<(), TokenizerError> {
    let tokens = loaded.get_added_tokens_decoder();
    for token in written {
        let content = token["content"].as_str().unwrap_or_default();
        let id = token["id"].as_u64().unwrap_or(u64::MAX);
        let by_id = u32::try_from(id).ok().and_then(|id| tokens.get(&id));
        let Some(kept) = by_id.filter(|kept| kept.content == content) else {
            return Err(moved(content, id, loaded.token_to_id(content)));
        };
        let kept = json!({
            "id": id, "content": content, "special": kept.special, "single_word": kept.single_word,
            "lstrip": kept.lstrip, "rstrip": kept.rstrip, "normalized": kept.normalized,
        });
        same(&format!("added_tokens.{content:?}"), token, &kept)?;
    }
    Ok(())
}
