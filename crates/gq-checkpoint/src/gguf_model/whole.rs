//! `tokenizer.huggingface.json`: a whole tokenizer next to the one that llama.cpp reads. Both are to say the same.

use super::token_types::UNUSED;
use super::vocabulary::Vocabulary;
use crate::gguf::GgufError;
use serde_json::Value;
use std::collections::BTreeMap;

/// Where the whole tokenizer is.
pub(super) const KEY: &str = "tokenizer.huggingface.json";

/// Compares tokens, ids and listed merges; `listed` are those of `tokenizer.ggml.merges`, where the kind has them.
///
/// # Errors
/// When one says something that the other does not.
pub(super) fn compare(
    whole: &str,
    vocabulary: &Vocabulary<'_>,
    listed: Option<&[(&str, &str)]>,
) -> Result<(), GgufError> {
    let contradiction = |fault: String| GgufError::Contradiction { key: KEY.to_owned(), fault };
    let json: Value = serde_json::from_str(whole).map_err(|error| contradiction(error.to_string()))?;
    let count = vocabulary.tokens.len();
    let tokens = tokens(&json);
    for (&id, token) in &tokens {
        let listed = usize::try_from(id).ok().and_then(|id| vocabulary.tokens.get(id));
        match listed {
            None => {
                return Err(contradiction(format!(
                    "{token:?} has the id {id}, and tokenizer.ggml.tokens has {count} tokens"
                )));
            }
            // Converters write spaces of tokens that are found first as they are in text.
            Some(listed) if spaced(listed) != spaced(token) => {
                return Err(contradiction(format!(
                    "the id {id} is {token:?}, in tokenizer.ggml.tokens it is {listed:?}"
                )));
            }
            Some(_) => {}
        }
    }
    // Rows of the embedding that no token has are filled up.
    let filling = |id: usize| {
        let token = &vocabulary.tokens[id];
        vocabulary.types[id] == UNUSED as u64 || token.is_empty() || token.starts_with("[PAD")
    };
    if let Some(id) = (0..count).find(|&id| !tokens.contains_key(&(id as u64)) && !filling(id)) {
        let token = &vocabulary.tokens[id];
        return Err(contradiction(format!("it lacks {token:?}, {id} of tokenizer.ggml.tokens")));
    }
    let Some(listed) = listed else { return Ok(()) };
    let merges = merges(&json);
    let plain = |pair: &(&str, &str)| (pair.0.replace(' ', "\u{120}"), pair.1.replace(' ', "\u{120}"));
    let differ = merges.iter().zip(listed).position(|(a, b)| plain(a) != plain(b));
    match differ {
        Some(at) => Err(contradiction(format!(
            "merge {at} is {:?}, in tokenizer.ggml.merges it is {:?}",
            merges[at], listed[at]
        ))),
        None if merges.len() != listed.len() => Err(contradiction(format!(
            "it has {} merges, tokenizer.ggml.merges has {}",
            merges.len(),
            listed.len()
        ))),
        None => Ok(()),
    }
}

fn spaced(token: &str) -> String {
    token.replace('\u{2581}', " ")
}

/// Tokens by id; added ones decide.
fn tokens(json: &Value) -> BTreeMap<u64, &str> {
    let vocab = &json["model"]["vocab"];
    let map = vocab.as_object().into_iter().flatten();
    let map = map.filter_map(|(token, id)| Some((id.as_u64()?, token.as_str())));
    let list = (0..).zip(vocab.as_array().into_iter().flatten());
    let list = list.filter_map(|(id, item)| Some((id, item.get(0)?.as_str()?)));
    let added = json["added_tokens"].as_array().into_iter().flatten();
    let added = added.filter_map(|token| Some((token["id"].as_u64()?, token["content"].as_str()?)));
    map.chain(list).chain(added).collect()
}

fn merges(json: &Value) -> Vec<(&str, &str)> {
    let mut seen = std::collections::HashSet::new();
    let list = json["model"]["merges"].as_array().into_iter().flatten();
    list.filter_map(pair).filter(|pair| seen.insert(*pair)).collect()
}

fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(parts) => Some((parts.first()?.as_str()?, parts.get(1)?.as_str()?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::OpenOptions;
    use crate::gguf::{Array, GgufError, Metadata, Value as Metadatum};
    use crate::gguf_model::tokenizer_texts;
    use serde_json::{Value, json};

    const TOKENS: [&str; 5] = ["a", "b", "ab", "<end>", "[PAD4]"];

    fn opened(json: &Value) -> Result<String, GgufError> {
        let mut metadata = Metadata::default();
        let strings = |list: &[&str]| {
            Metadatum::Array(Array::String(list.iter().map(|text| (*text).to_owned()).collect()))
        };
        metadata.set("tokenizer.ggml.model", Metadatum::String("gpt2".to_owned()));
        metadata.set("tokenizer.ggml.tokens", strings(&TOKENS));
        metadata.set("tokenizer.ggml.token_type", Metadatum::Array(Array::I32(vec![1, 1, 1, 3, 5])));
        metadata.set("tokenizer.ggml.merges", strings(&["a b"]));
        metadata.set(super::KEY, Metadatum::String(json.to_string()));
        tokenizer_texts(&metadata, &OpenOptions::default()).map(|texts| texts.unwrap().tokenizer)
    }

    fn file() -> Value {
        json!({"added_tokens": [{"id": 3, "content": "<end>"}],
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}})
    }

    #[test]
    fn one_that_agrees_is_taken_as_it_is() {
        assert_eq!(opened(&file()).unwrap(), file().to_string());
        let mut older = file();
        older["model"]["merges"] = json!(["a b"]);
        assert_eq!(opened(&older).unwrap(), older.to_string());
    }

    #[test]
    fn one_that_says_something_else_is_refused() {
        let refused = |expected: &str, change: &dyn Fn(&mut Value)| {
            let mut changed = file();
            change(&mut changed);
            let error = opened(&changed).unwrap_err();
            let GgufError::Contradiction { key, fault } = &error else { panic!("{error}") };
            assert!(key == super::KEY && fault.contains(expected), "{error}");
        };
        refused("the id 1 is \"c\"", &|file| file["model"]["vocab"] = json!({"a": 0, "c": 1, "ab": 2}));
        refused("it lacks \"ab\"", &|file| {
            drop(file["model"]["vocab"].as_object_mut().unwrap().remove("ab"))
        });
        refused("it lacks \"<end>\"", &|file| file["added_tokens"] = json!([]));
        refused("has the id 5", &|file| file["model"]["vocab"]["late"] = json!(5));
        refused("0 merges", &|file| file["model"]["merges"] = json!([]));
        refused("merge 0", &|file| file["model"]["merges"] = json!([["b", "a"]]));
    }
}
