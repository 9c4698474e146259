//! Tokenizers of GGUFs as a prebuilt llama.cpp reads them; `scripts/judge_gguf_tokenizers.py` asked it.

use super::support::fixture;
use gq_checkpoint::gguf::{Array, Gguf, GgufError, Metadata, Value};
use gq_checkpoint::gguf_model::{pre_tokenizer_names, tokenizer_texts};
use gq_checkpoint::{OpenOptions, TurnTokens};
use serde_json::Value as Json;
use tokenizers::Tokenizer;

fn judged() -> Json {
    serde_json::from_str(&std::fs::read_to_string(fixture("judged/ids.json")).unwrap()).unwrap()
}

fn metadata(name: &str) -> Metadata {
    Gguf::open(fixture(&format!("judged/{name}.gguf"))).unwrap().metadata().clone()
}

/// The same without a key.
fn without(metadata: &Metadata, key: &str) -> Metadata {
    let mut kept = Metadata::default();
    metadata.iter().filter(|(name, _)| *name != key).for_each(|(name, value)| kept.set(name, value.clone()));
    kept
}

fn tokenizer(metadata: &Metadata, options: &OpenOptions) -> Tokenizer {
    let texts = tokenizer_texts(metadata, options).unwrap().unwrap();
    texts.tokenizer.parse().unwrap()
}

/// Ids with what stands around a text, as llama.cpp was asked for them.
fn ids(tokenizer: &mut Tokenizer, text: &str, parse: bool) -> Json {
    tokenizer.set_encode_special_tokens(!parse);
    tokenizer.encode(text, true).unwrap().get_ids().into()
}

fn compare(what: &str, tokenizer: &mut Tokenizer, texts: &Json, expected: &Json, parse: bool) {
    let (texts, expected) = (texts.as_array().unwrap(), expected.as_array().unwrap());
    assert!(texts.len() <= expected.len());
    for (text, expected) in texts.iter().zip(expected) {
        let text = text.as_str().unwrap();
        assert_eq!(&ids(tokenizer, text, parse), expected, "{what}: {text:?}");
    }
}

#[test]
fn every_pre_tokenizer_splits_as_llama_cpp_does() {
    let (judged, mut metadata) = (judged(), metadata("bytes"));
    let mut seen = Vec::new();
    let by_pre = judged["pre"].as_object().unwrap();
    for (name, expected) in by_pre.iter().filter(|(name, _)| !name.is_empty()) {
        metadata.set("tokenizer.ggml.pre", Value::String(name.clone()));
        compare(name, &mut tokenizer(&metadata, &OpenOptions::default()), &judged["texts"], expected, false);
        seen.push(name.as_str());
    }
    for (name, known) in judged["same_as"].as_object().unwrap() {
        metadata.set("tokenizer.ggml.pre", Value::String(name.clone()));
        let expected = &by_pre[known.as_str().unwrap()];
        compare(name, &mut tokenizer(&metadata, &OpenOptions::default()), &judged["texts"], expected, false);
        seen.push(name);
    }
    // None is known here that llama.cpp was not asked about.
    assert!(pre_tokenizer_names().iter().all(|name| seen.contains(name)), "{seen:?}");
    metadata.set("tokenizer.ggml.pre", Value::String("gpt-2".into()));
    let mut texts = judged["texts"].clone();
    texts.as_array_mut().unwrap().push("<s>a</s><|im_start|>  <tool>b <tool>".into());
    let mut tokenizer = tokenizer(&metadata, &OpenOptions::default());
    compare("parsed", &mut tokenizer, &texts, &judged["parsed"], true);
}

#[test]
fn without_a_pre_tokenizer_nothing_is_assumed_in_silence() {
    let (judged, metadata) = (judged(), metadata("bytes"));
    for metadata in [without(&metadata, "tokenizer.ggml.pre"), {
        let mut empty = metadata.clone();
        empty.set("tokenizer.ggml.pre", Value::String(String::new()));
        empty
    }] {
        let error = tokenizer_texts(&metadata, &OpenOptions::default()).unwrap_err();
        assert!(matches!(error, GgufError::NoPreTokenizer { .. }), "{error}");
        let message = error.to_string();
        assert!(
            message.contains("llama.cpp assumes \"default\"") && message.contains("llama-bpe"),
            "{message}"
        );
        // What llama.cpp does is one of the things that can be asked for.
        for (name, expected) in [("default", &judged["pre"][""]), ("llama-bpe", &judged["pre"]["llama-bpe"])]
        {
            let mut options = OpenOptions::default();
            options.assume_pre = Some(name.to_owned());
            compare(name, &mut tokenizer(&metadata, &options), &judged["texts"], expected, false);
        }
    }
    // What a file says is not overridden.
    let mut options = OpenOptions::default();
    options.assume_pre = Some("qwen2".to_owned());
    compare("gpt-2", &mut tokenizer(&metadata, &options), &judged["texts"], &judged["pre"]["gpt-2"], false);
    assert_ne!(judged["pre"][""], judged["pre"]["llama-bpe"]);
}

#[test]
fn sentence_pieces_with_and_without_a_space_in_front() {
    let (judged, metadata) = (judged(), metadata("pieces"));
    for name in ["space", "no_space", "gemma4"] {
        let mut metadata = metadata.clone();
        match name {
            "no_space" => metadata.set("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
            "gemma4" => {
                metadata.set("tokenizer.ggml.model", Value::String("gemma4".into()));
                metadata.set("tokenizer.ggml.add_space_prefix", Value::Bool(false));
            }
            _ => {}
        }
        let mut tokenizer = tokenizer(&metadata, &OpenOptions::default());
        compare(name, &mut tokenizer, &judged["texts"], &judged["pieces"][name], false);
    }
    // Ids that the file does not name are those that readers take.
    let bare = without(&without(&metadata, "tokenizer.ggml.bos_token_id"), "tokenizer.ggml.add_bos_token");
    let mut bare = tokenizer(&bare, &OpenOptions::default());
    compare("bare", &mut bare, &judged["texts"], &judged["pieces"]["space"], false);
}

/// Types of turn tokens as a popular exporter wrote them.
#[test]
fn hidden_turn_tokens_are_refused_by_name() {
    let (judged, mut metadata) = (judged(), metadata("pieces"));
    let (turns, start) = (&judged["turns"], 4);
    let mut good = tokenizer(&metadata, &OpenOptions::default());
    assert_eq!(ids(&mut good, turns["prompt"].as_str().unwrap(), true), turns["control"]);
    let Some(Value::Array(Array::I32(types))) = metadata.get("tokenizer.ggml.token_type") else { panic!() };
    let mut types = types.clone();
    assert_eq!(types[start..start + 2], [3, 3]);
    types[start..start + 2].fill(1);
    metadata.set("tokenizer.ggml.token_type", Value::Array(Array::I32(types)));
    let error = tokenizer_texts(&metadata, &OpenOptions::default()).unwrap_err();
    // llama.cpp knows <end_of_turn> by its spelling.
    let GgufError::TurnTokens { tokens, ids: hidden } = &error else { panic!("{error}") };
    assert_eq!((tokens.as_slice(), hidden.as_slice()), (&["<start_of_turn>".to_owned()][..], &[start][..]));
    assert!(error.to_string().contains("the chat template writes \"<start_of_turn>\""), "{error}");
    for (how, expected) in [(TurnTokens::Single, "control"), (TurnTokens::Text, "normal")] {
        let mut options = OpenOptions::default();
        options.turn_tokens = Some(how);
        let mut tokenizer = tokenizer(&metadata, &options);
        assert_eq!(ids(&mut tokenizer, turns["prompt"].as_str().unwrap(), true), turns[expected], "{how:?}");
    }
    // Without a template nobody writes them.
    let metadata = without(&metadata, "tokenizer.chat_template");
    assert!(tokenizer_texts(&metadata, &OpenOptions::default()).is_ok());
}
