//! Answers in Harmony's format, read token by token.

use crate::tiny;
use gq_text::{Harmony, ModelTexts, Part, Tokenizer};
use serde_json::{Map, Value, json};

/// Characters of two bytes and words, between the format's tokens: special as published, plain as in a GGUF.
fn tokenizer(special: bool, marks: &[&str]) -> Tokenizer {
    let mut vocab = Map::new();
    for piece in
        ["\u{c3}", "\u{a9}", "analysis", "commentary", "final", "assistant", "hm", "so", "\u{120}to=f"]
    {
        vocab.insert(piece.to_owned(), vocab.len().into());
    }
    let added: Vec<Value> = (vocab.len()..)
        .zip(marks)
        .map(|(id, content)| {
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": special})
        })
        .collect();
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": []},
    });
    let mut spec = tiny("llama").spec().clone();
    (spec.vocab_size, spec.bos, spec.eos) = (64, None, vec![]);
    let texts = ModelTexts { tokenizer: Some(file.to_string()), ..ModelTexts::default() };
    Tokenizer::new(&texts, &spec).unwrap()
}

const ALL: [&str; 6] = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|constrain|>"];

/// What is thought and what is said, of tokens by their contents.
fn read(special: bool, tokens: &[&str]) -> (String, String) {
    let tokenizer = tokenizer(special, &ALL);
    let mut harmony = Harmony::of(&tokenizer).unwrap();
    let (mut thinking, mut content) = (String::new(), String::new());
    let mut take = |piece: Option<(Part, String)>| match piece {
        Some((Part::Thinking, text)) => thinking += &text,
        Some((Part::Content, text)) => content += &text,
        None => {}
    };
    for token in tokens {
        take(harmony.push(tokenizer.token(token).unwrap()).unwrap());
    }
    take(harmony.finish().unwrap());
    (thinking, content)
}

#[test]
fn thinking_and_content_are_told_apart_by_tokens() {
    let pair = |thinking: &str, content: &str| (thinking.to_owned(), content.to_owned());
    let whole = [
        "<|channel|>",
        "analysis",
        "<|message|>",
        "hm",
        "\u{c3}",
        "\u{a9}",
        "<|end|>",
        "<|start|>",
        "assistant",
        "<|channel|>",
        "final",
        "<|message|>",
        "so",
        "final",
    ];
    for special in [true, false] {
        assert_eq!(read(special, &whole), pair("hm\u{e9}", "sofinal"));
        // Cut while it thinks, in the middle of a character, and while a channel is named.
        assert_eq!(read(special, &whole[..5]), pair("hm\u{fffd}", ""));
        assert_eq!(read(special, &whole[..11]), pair("hm\u{e9}", ""));
        // A model that does not write the format.
        assert_eq!(read(special, &["analysis", "so"]), pair("", "analysisso"));
        let tools = [
            "<|channel|>",
            "commentary",
            "<|message|>",
            "hm",
            "<|end|>",
            "<|start|>",
            "assistant",
            "<|channel|>",
            "commentary",
            "\u{120}to=f",
            "<|constrain|>",
            "<|message|>",
            "so",
        ];
        assert_eq!(read(special, &tools), pair("", "hm\nso"), "messages of one part");
    }
}

#[test]
fn other_tokenizers_have_no_such_format() {
    assert!(Harmony::of(&tokenizer(true, &ALL)).is_some());
    for left in 0..5 {
        let marks: Vec<&str> = (0..5).filter(|index| *index != left).map(|index| ALL[index]).collect();
        assert!(Harmony::of(&tokenizer(true, &marks)).is_none(), "{marks:?}");
    }
}
