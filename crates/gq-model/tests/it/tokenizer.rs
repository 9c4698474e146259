//! The tokenizer: BOS, special tokens in texts, and text that comes in pieces.

use crate::fixtures::{testdata, tiny};
use gq_checkpoint::ModelSpec;
use gq_model::{ChatTemplate, ModelTexts, SpecialText, Tokenizer};
use serde_json::{Value, json};

/// A model with rows for every token here.
fn spec() -> ModelSpec {
    let mut spec = tiny("llama").spec().clone();
    spec.vocab_size = 1 << 16;
    spec
}

fn demo_texts() -> ModelTexts {
    let read = |name: &str| std::fs::read_to_string(testdata("demo").join(name)).ok();
    ModelTexts {
        config: read("config.json"),
        tokenizer: read("tokenizer.json"),
        tokenizer_config: read("tokenizer_config.json"),
        chat_template: read("chat_template.jinja"),
        generation_config: read("generation_config.json"),
    }
}

fn demo() -> Tokenizer {
    Tokenizer::new(&demo_texts(), &spec()).unwrap()
}

/// Words, and bytes where there is no word, as Gemma's tokenizer has them.
fn with_bytes() -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    for piece in ["<unk>", "<s>", "\u{2581}", "a", "b", "\u{2581}a"] {
        vocab.insert(piece.to_owned(), vocab.len().into());
    }
    for byte in 0..=255u8 {
        vocab.insert(format!("<0x{byte:02X}>"), vocab.len().into());
    }
    let special = json!({"id": 1, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true});
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
            "merges": [["\u{2581}", "a"]]},
    });
    let texts = ModelTexts { tokenizer: Some(file.to_string()), ..ModelTexts::default() };
    Tokenizer::new(&texts, &spec()).unwrap()
}

#[test]
fn bos_is_the_tokenizers_decision() {
    let config = |add: Value| Some(json!({"bos_token": "<bos>", "add_bos_token": add}).to_string());
    let mut without: Value = serde_json::from_str(&demo_texts().tokenizer.unwrap()).unwrap();
    without["post_processor"] = Value::Null;
    let without = Some(without.to_string());
    let with = demo_texts().tokenizer;
    for (tokenizer, tokenizer_config, bos) in [
        (&with, None, Some(2)),
        (&without, None, None),
        (&without, config(false.into()), None),
        (&without, config(true.into()), Some(2)),
        (&without, config(Value::Null), None),
    ] {
        let texts = ModelTexts { tokenizer: tokenizer.clone(), tokenizer_config, ..ModelTexts::default() };
        let mut spec = spec();
        spec.bos = Some(2); // A model may have a BOS token and not start text with it.
        let tokenizer = Tokenizer::new(&texts, &spec).unwrap();
        assert_eq!(tokenizer.bos(), bos);
        let prompt = tokenizer.prompt("She", SpecialText::Plain).unwrap();
        assert_eq!(prompt.first() == Some(&2), bos.is_some());
    }
}

#[test]
fn special_tokens_in_a_text() {
    let tokenizer = demo();
    let text = "<bos><|turn>user\nHi<turn|>\n";
    let (plain, parsed) = (
        tokenizer.encode(text, SpecialText::Plain).unwrap(),
        tokenizer.encode(text, SpecialText::Parsed).unwrap(),
    );
    assert!(plain.iter().all(|&token| token > 4), "{plain:?}");
    assert_eq!(parsed.iter().filter(|&&token| token <= 4).collect::<Vec<_>>(), [&2, &3, &4]);
    assert_eq!(tokenizer.decode(&plain).unwrap(), text);
    assert_eq!(tokenizer.decode(&parsed).unwrap(), "user\nHi\n");
    // What has a BOS gets no second one, and the mode of one call is not the next one's.
    assert_eq!(tokenizer.prompt(text, SpecialText::Parsed).unwrap(), parsed);
    assert_eq!(tokenizer.encode(text, SpecialText::Plain).unwrap(), plain);
}

/// The model's `eos`, the list in the generation settings, `eos_token`, and the end of a turn in the chat template.
#[test]
fn tokens_that_end_an_answer() {
    let mut spec = spec();
    spec.eos = vec![7];
    let texts =
        ModelTexts { generation_config: Some(r#"{"eos_token_id": [9, 7]}"#.to_owned()), ..demo_texts() };
    let tokenizer = Tokenizer::new(&texts, &spec).unwrap();
    assert_eq!(tokenizer.eos(), [1, 7, 9]);
    let chat = ChatTemplate::new(&texts).unwrap();
    assert_eq!(tokenizer.stop_tokens(Some(&chat)), [1, 7, 9, 4]);
    assert_eq!(tokenizer.stop_tokens(None), [1, 7, 9]);
}

#[test]
fn streamed_text_is_the_whole_text() {
    let text = "She\u{2019}d said: na\u{EF}ve \u{2014} \u{1F999}\u{1F468}\u{200D}\u{1F4BB} \u{4F60}\u{597D}  a b\n\n  end.";
    for tokenizer in [demo(), with_bytes()] {
        let tokens = tokenizer.encode(text, SpecialText::Plain).unwrap();
        let whole = tokenizer.decode(&tokens).unwrap();
        let mut stream = tokenizer.stream();
        let pieces: Vec<_> = tokens.iter().map(|&token| stream.push(token).unwrap()).collect();
        assert!(pieces.iter().any(String::is_empty), "some tokens are parts of characters");
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')));
        assert_eq!(pieces.concat(), whole);
        assert_eq!(stream.finish().unwrap(), "");
    }
    assert_eq!(demo().decode(&demo().encode(text, SpecialText::Plain).unwrap()).unwrap(), text);
}

#[test]
fn an_unfinished_character_is_shown_at_the_end() {
    for tokenizer in [demo(), with_bytes()] {
        let tokens = tokenizer.encode("a\u{1F999}", SpecialText::Plain).unwrap();
        let mut stream = tokenizer.stream();
        let cut = &tokens[..tokens.len() - 1];
        let shown: String = cut.iter().map(|&token| stream.push(token).unwrap()).collect();
        assert_eq!(shown, "a");
        let rest = stream.finish().unwrap();
        assert!(!rest.is_empty() && rest.chars().all(|c| c == '\u{FFFD}'), "{rest:?}");
    }
}
