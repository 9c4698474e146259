//! The tokenizer: BOS, special tokens in texts, and text that comes in pieces.

use crate::{testdata, tiny};
use gq_checkpoint::ModelSpec;
use gq_text::{ChatTemplate, ModelTexts, SpecialText, Tokenizer, TokenizerError, token_difference};
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
        special_tokens_map: None,
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

/// The demo's tokenizer with a change.
fn changed(change: impl Fn(&mut Value)) -> Result<Tokenizer, TokenizerError> {
    let mut file: Value = serde_json::from_str(&demo_texts().tokenizer.unwrap()).unwrap();
    change(&mut file);
    Tokenizer::new(&ModelTexts { tokenizer: Some(file.to_string()), ..demo_texts() }, &spec())
}

fn token(id: u32, content: &str, special: bool) -> Value {
    json!({"id": id, "content": content, "special": special, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false})
}

#[test]
fn a_file_loads_as_it_is_written_or_not_at_all() {
    let size = u32::try_from(demo().vocab_size()).unwrap();
    let add = |id: u32, content: &'static str| {
        changed(|file| file["added_tokens"].as_array_mut().unwrap().push(token(id, content, true)))
    };
    assert_eq!(add(size, "<next>").unwrap().token("<next>"), Some(size));
    let error = add(size + 5, "<late>").unwrap_err();
    let TokenizerError::MovedId { token, written, loaded } = &error else { panic!("{error}") };
    assert_eq!((token.as_str(), *written, loaded.clone()), ("<late>", u64::from(size) + 5, size.to_string()));
    // A token of the vocabulary under another id, and one that stands twice.
    assert!(matches!(add(size, "a").unwrap_err(), TokenizerError::MovedId { .. }));
    assert!(matches!(add(size, "<bos>").unwrap_err(), TokenizerError::MovedId { .. }));
    let part = |change: &dyn Fn(&mut Value)| match changed(change).unwrap_err() {
        TokenizerError::NotAsWritten { part, .. } => part,
        other => panic!("{other}"),
    };
    let normalizer = json!({"type": "Sequence", "normalizers": [], "new": 1});
    assert_eq!(part(&|file| file["normalizer"] = normalizer.clone()), "normalizer.new");
    assert_eq!(part(&|file| file["model"]["new"] = json!("x")), "model.new");
    assert_eq!(part(&|file| file["added_tokens"][0]["new"] = json!(true)), "added_tokens.\"<pad>\".new");
    // What says nothing may be there.
    assert!(changed(|file| file["model"]["new"] = Value::Null).is_ok());
    assert!(changed(|file| file["model"]["new"] = json!(false)).is_ok());
    let error = changed(|file| file["model"]["dropout"] = json!(0.1)).unwrap_err();
    assert!(matches!(error, TokenizerError::Dropout { .. }), "{error}");
}

#[test]
fn tokens_without_a_row() {
    let rows = demo().vocab_size();
    let mut spec = spec();
    spec.vocab_size = rows;
    let with = |special: bool| {
        let mut file: Value = serde_json::from_str(&demo_texts().tokenizer.unwrap()).unwrap();
        let id = u32::try_from(rows).unwrap();
        file["added_tokens"].as_array_mut().unwrap().push(token(id, "<image>", special));
        Tokenizer::new(&ModelTexts { tokenizer: Some(file.to_string()), ..demo_texts() }, &spec)
    };
    let beyond = |error: TokenizerError| match error {
        TokenizerError::BeyondRows { token, id, rows } => (token, id as usize, rows),
        other => panic!("{other}"),
    };
    assert_eq!(beyond(with(false).unwrap_err()), ("<image>".to_owned(), rows, rows));
    // A special one is no fault until a text names it.
    let tokenizer = with(true).unwrap();
    assert!(tokenizer.encode("an <image>", SpecialText::Plain).is_ok());
    let error = tokenizer.encode("an <image>", SpecialText::Parsed).unwrap_err();
    assert_eq!(beyond(error), ("<image>".to_owned(), rows, rows));
}

/// What begins or ends texts has a row, whichever file names it.
#[test]
fn beginnings_and_ends_have_rows() {
    let rows = demo().vocab_size();
    let beyond = u32::try_from(rows).unwrap();
    let refused = |change: &dyn Fn(&mut ModelSpec, &mut ModelTexts)| {
        let (mut spec, mut texts) = (spec(), demo_texts());
        spec.vocab_size = rows;
        change(&mut spec, &mut texts);
        match Tokenizer::new(&texts, &spec) {
            Err(TokenizerError::SpecialBeyondRows { from, id, rows: of }) if of == rows => Some((from, id)),
            Err(other) => panic!("{other}"),
            Ok(_) => None,
        }
    };
    assert_eq!(refused(&|_, _| {}), None);
    assert_eq!(refused(&|spec, _| spec.bos = Some(beyond)), Some(("bos_token_id of config.json", beyond)));
    assert_eq!(
        refused(&|spec, _| spec.eos.push(beyond + 7)),
        Some(("eos_token_id of config.json", beyond + 7))
    );
    assert_eq!(
        refused(&|_, texts| {
            texts.generation_config = Some(json!({"eos_token_id": [1, beyond]}).to_string());
        }),
        Some(("eos_token_id of generation_config.json", beyond))
    );
    assert_eq!(
        refused(&|_, texts| {
            let mut file: Value = serde_json::from_str(texts.tokenizer.as_ref().unwrap()).unwrap();
            file["added_tokens"].as_array_mut().unwrap().push(token(beyond, "<late>", true));
            texts.tokenizer = Some(file.to_string());
            texts.tokenizer_config = Some(json!({"eos_token": "<late>"}).to_string());
        }),
        Some(("eos_token of tokenizer_config.json", beyond))
    );
}

/// A tokenizer that composes text (Qwen) and one that does not have the same tokens for composed text alone.
#[test]
fn composing_is_left_out_of_the_comparison() {
    let template = demo_texts().chat_template;
    let plain = changed(|file| file["normalizer"] = Value::Null).unwrap();
    let composing = changed(|file| file["normalizer"] = json!({"type": "NFC"})).unwrap();
    assert!(composing.composes() && !plain.composes());
    assert_eq!(token_difference(&composing, &plain, template.as_deref()).unwrap(), None);
    let (composed, apart) = ("caf\u{e9}", "cafe\u{301}");
    let ids = |tokenizer: &Tokenizer, text: &str| tokenizer.encode(text, SpecialText::Plain).unwrap();
    assert_eq!(ids(&composing, composed), ids(&plain, composed));
    assert_ne!(ids(&composing, apart), ids(&plain, apart));
    // The other way round it is the file that would change texts.
    assert!(token_difference(&plain, &composing, template.as_deref()).unwrap().is_some());
    let other = changed(|file| {
        file["normalizer"] = Value::Null;
        file["model"]["merges"].as_array_mut().unwrap().pop();
    });
    assert!(token_difference(&composing, &other.unwrap(), template.as_deref()).unwrap().is_some());
}

#[test]
fn normalizers_have_a_cap() {
    let longer = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to.repeat(20)});
    let steps = [longer("q", "x"), longer("x", "y")];
    let tokenizer =
        changed(|file| file["normalizer"] = json!({"type": "Sequence", "normalizers": steps})).unwrap();
    assert!(tokenizer.encode(&"plain text ".repeat(1000), SpecialText::Plain).is_ok());
    assert!(tokenizer.encode(&format!("q{}", "a".repeat(3000)), SpecialText::Plain).is_ok());
    let error = tokenizer.encode(&"q".repeat(3000), SpecialText::Plain).unwrap_err();
    assert!(matches!(error, TokenizerError::Grows { part: "normalizer", .. }), "{error}");
}

/// What the library rewrites when it loads a file is measured first: contents of added tokens, one by one and together.
#[test]
fn normalizers_have_a_cap_while_a_file_is_loaded() {
    let step = |pattern: Value, to: String| json!({"type": "Replace", "pattern": pattern, "content": to});
    let of = |steps: [Value; 3], contents: &[String]| {
        changed(|file| {
            let first = file["added_tokens"].as_array().unwrap().len();
            file["normalizer"] = json!({"type": "Sequence", "normalizers": steps});
            let size = u32::try_from(demo().vocab_size()).unwrap();
            for (id, content) in (size..).zip(contents) {
                let mut added = token(id, content, false);
                added["normalized"] = json!(true);
                file["added_tokens"].as_array_mut().unwrap().push(added);
            }
            assert_eq!(file["added_tokens"].as_array().unwrap().len(), first + contents.len());
        })
    };
    let from = |result: Result<Tokenizer, TokenizerError>| match result.unwrap_err() {
        TokenizerError::Grows { part: "normalizer", from, .. } => from,
        other => panic!("{other}"),
    };
    let string = |text: &str| json!({"String": text});
    let chain = || {
        [step(string("q"), "x".repeat(20)), step(string("x"), "y".repeat(20)), step(string("?"), "!".into())]
    };
    assert!(of(chain(), &["q".repeat(100)]).is_ok(), "40,000 bytes");
    assert_eq!(from(of(chain(), &["q".repeat(1000)])), 1000);
    let many: Vec<String> = (1..=20).map(|count| "q".repeat(80 + count)).collect();
    assert_eq!(from(of(chain(), &many)), many.iter().map(String::len).sum::<usize>());
    // Only a text that is this one letter, as which the file's special tokens are looked for.
    let alone = [
        step(json!({"Regex": "^a$"}), "x".repeat(20)),
        step(string("x"), "y".repeat(20)),
        step(string("y"), "z".repeat(200)),
    ];
    assert_eq!(from(of(alone, &[])), 1);
}

#[test]
fn tokenizers_are_told_apart() {
    let (own, same) = (demo(), demo());
    let template = demo_texts().chat_template;
    assert_eq!(token_difference(&own, &same, template.as_deref()).unwrap(), None);
    let kind = |change: &dyn Fn(&mut Value)| {
        let found = token_difference(&own, &changed(change).unwrap(), template.as_deref()).unwrap().unwrap();
        assert!(found.first != found.second || found.kind == "tokens as text", "{found:?}");
        (found.kind, found.count.0)
    };
    // One merge less is seen in the words of the vocabulary, if nowhere else.
    let (_, texts) = kind(&|file| drop(file["model"]["merges"].as_array_mut().unwrap().pop()));
    assert!(texts > 0);
    let (kind_of_end, _) = kind(&|file| {
        let single = file["post_processor"]["single"].as_array_mut().unwrap();
        let bos = single[0].clone();
        single.push(bos);
    });
    assert_eq!(kind_of_end, "what text ends with");
    assert_eq!(kind(&|file| file["decoder"] = json!({"type": "Fuse"})).0, "tokens as text");
    assert_eq!(kind(&|file| file["added_tokens"][2]["rstrip"] = json!(true)).0, "added tokens");
}
