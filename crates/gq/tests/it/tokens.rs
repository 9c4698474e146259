//! Tokenizers on the way in and out: what is not certain is refused by name, what is carried has the same tokens.

use crate::run::{Gq, testdata};
use gq_checkpoint::gguf::{Array, Gguf, GgufWriter, Metadata, NewTensor, Value as Metadatum};
use serde_json::{Value, json};
use std::path::Path;

/// A tiny checkpoint with a tokenizer in the scratch directory; `change` edits tokenizer and template.
fn checkpoint(gq: &Gq, name: &str, family: &str, change: impl Fn(&mut Value)) {
    let dir = gq.path(name);
    std::fs::create_dir_all(&dir).unwrap();
    for entry in std::fs::read_dir(testdata(&format!("tiny/{family}"))).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_str().unwrap();
        if file.starts_with("model") || file == "config.json" {
            std::fs::copy(&path, dir.join(file)).unwrap();
        }
    }
    // What a GGUF has no place for, as its readers assume it.
    let config = std::fs::read_to_string(dir.join("config.json")).unwrap();
    let config = config.replace("\"query_pre_attn_scalar\": 24", "\"query_pre_attn_scalar\": 32");
    std::fs::write(dir.join("config.json"), config).unwrap();
    let tokenizers = testdata(&format!("gguf/tokenizers/{family}"));
    for file in ["tokenizer_config.json", "chat_template.jinja"] {
        std::fs::copy(Path::new(&tokenizers).join(file), dir.join(file)).unwrap();
    }
    let text = std::fs::read_to_string(Path::new(&tokenizers).join("tokenizer.json")).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    change(&mut file);
    std::fs::write(dir.join("tokenizer.json"), file.to_string()).unwrap();
}

/// A copy of a GGUF with other metadata.
fn rewrite(from: &Path, to: &Path, drop: &[&str], change: impl Fn(&mut Metadata)) {
    let gguf = Gguf::open(from).unwrap();
    let mut metadata = Metadata::default();
    let kept = gguf.metadata().iter().filter(|(key, _)| !drop.contains(key));
    kept.for_each(|(key, value)| metadata.set(key, value.clone()));
    change(&mut metadata);
    let new = |info: &gq_checkpoint::gguf::TensorInfo| NewTensor {
        name: info.name.clone(),
        shape: info.shape.clone(),
        kind: info.kind,
    };
    let tensors: Vec<_> = gguf.tensors().iter().map(|tensor| new(&tensor.info)).collect();
    let mut writer = GgufWriter::create(to, &metadata, &tensors).unwrap();
    for tensor in gguf.tensors() {
        let mut bytes = vec![0; tensor.info.bytes as usize];
        gguf.read_bytes(tensor, 0, &mut bytes).unwrap();
        writer.append(&bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn prompt_tokens(gq: &Gq, args: &[&str]) -> Value {
    gq.json(&[&["run"], args, &["-n", "1"]].concat())["prompt_tokens"].clone()
}

/// A GGUF from before `tokenizer.ggml.pre` existed.
#[test]
fn a_gguf_that_does_not_say_how_text_is_split() {
    let gq = Gq::new();
    checkpoint(&gq, "new", "llama", |_| {});
    gq.ok(&["export", "new", "--gguf", "--type", "F32", "--no-measure", "-o", "new.gguf"]);
    rewrite(&gq.path("new.gguf"), &gq.path("old.gguf"), &["tokenizer.ggml.pre"], |_| {});
    for command in [
        &["convert", "old.gguf", "-o", "old.gq"][..],
        &["inspect", "old.gguf"],
        &["run", "old.gguf", "-p", "x"],
    ] {
        let shown = gq.fails(3, command);
        assert!(
            shown.contains("tokenizer.ggml.pre is missing") && shown.contains("--assume-pre llama-bpe"),
            "{shown}"
        );
    }
    assert!(!gq.path("old.gq").exists());
    let error: Value = serde_json::from_slice(&gq.run(&["inspect", "old.gguf", "--json"]).stdout).unwrap();
    assert_eq!((&error["error"]["code"], &error["error"]["actual"]), (&json!("gguf.pre"), &json!("missing")));
    let text = "In 12345 days (about 3 years) the-model says";
    let expected = prompt_tokens(&gq, &["new", "-p", text]);
    assert_eq!(prompt_tokens(&gq, &["old.gguf", "-p", text, "--assume-pre", "llama-bpe"]), expected);
    gq.ok(&["run", "old.gguf", "-p", text, "-n", "1", "--assume-pre", "default"]);
    gq.ok(&["convert", "old.gguf", "-o", "old.gq", "--assume-pre", "llama-bpe"]);
    assert_eq!(prompt_tokens(&gq, &["old.gq", "-p", text]), expected);
    let shown = gq.fails(2, &["inspect", "old.gguf", "--assume-pre", "llama"]);
    assert!(shown.contains("expected one of") && shown.contains("llama-bpe"), "{shown}");
}

/// Turn tokens of the type NORMAL, as a popular exporter wrote them.
#[test]
fn a_gguf_whose_turn_tokens_are_hidden() {
    let gq = Gq::new();
    let named = |file: &mut Value| {
        let text = file.to_string().replace("<|turn>", "<start_of_turn>").replace("<turn|>", "<end_of_turn>");
        *file = serde_json::from_str(&text).unwrap();
    };
    checkpoint(&gq, "hf", "gemma3", named);
    let template = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}\
        <end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}";
    std::fs::write(gq.path("hf/chat_template.jinja"), template).unwrap();
    gq.ok(&["export", "hf", "--gguf", "--type", "F32", "--no-measure", "-o", "good.gguf"]);
    rewrite(&gq.path("good.gguf"), &gq.path("bad.gguf"), &["tokenizer.ggml.eot_token_id"], |metadata| {
        let Some(Metadatum::Array(Array::I32(types))) = metadata.get("tokenizer.ggml.token_type") else {
            panic!()
        };
        let mut types = types.clone();
        types[4..6].fill(1);
        metadata.set("tokenizer.ggml.token_type", Metadatum::Array(Array::I32(types)));
    });
    let shown = gq.fails(3, &["convert", "bad.gguf", "-o", "bad.gq"]);
    assert!(shown.contains("\"<start_of_turn>\"") && shown.contains("--turn-tokens single"), "{shown}");
    assert!(!gq.path("bad.gq").exists());
    let chat = |model: &str, more: &[&str]| {
        prompt_tokens(&gq, &[&[model, "--chat", "-p", "hello there"], more].concat())
    };
    let expected = chat("hf", &[]);
    assert_eq!(expected.as_array().unwrap().iter().filter(|id| **id == 4).count(), 2);
    assert_eq!(chat("good.gguf", &[]), expected);
    assert_eq!(chat("bad.gguf", &["--turn-tokens", "single"]), expected);
    let pieces = chat("bad.gguf", &["--turn-tokens", "text"]);
    assert!(pieces.as_array().unwrap().len() > expected.as_array().unwrap().len() + 10, "{pieces}");
}

#[test]
fn an_export_has_the_sources_tokens_or_is_refused_by_name() {
    let gq = Gq::new();
    let export = |name: &str, more: &[&str]| {
        let args = ["export", name, "--gguf", "--no-measure", "-o", "out.gguf"];
        gq.run(&[&args[..], more].concat())
    };
    let refused = |family: &str, what: &str, part: &str, change: &dyn Fn(&mut Value)| {
        checkpoint(&gq, what, family, change);
        let output = export(what, &["--json"]);
        assert_eq!(output.status.code(), Some(3), "{what}");
        let error = serde_json::from_slice::<Value>(&output.stdout).unwrap()["error"].clone();
        assert_eq!(error["code"], "export.tokens", "{what}: {error}");
        assert!(error["message"].as_str().unwrap().contains(part), "{what}: {error}");
        assert!(error["hint"].as_str().unwrap().contains("--allow-other-tokens"), "{what}: {error}");
        assert!(!gq.path("out.gguf").exists(), "{what}");
        let output = export(what, &["--allow-other-tokens"]);
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::remove_file(gq.path("out.gguf")).unwrap();
    };
    refused("llama", "compatible", "normalizer", &|file| file["normalizer"] = json!({"type": "NFKC"}));
    // Qwen's: llama.cpp composes no text, and text that is composed has the same tokens.
    checkpoint(&gq, "composed", "llama", |file| file["normalizer"] = json!({"type": "NFC"}));
    let output = export("composed", &[]);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(3) && shown.contains("U+0301") && shown.contains("--drop-nfc"),
        "{shown}"
    );
    assert!(!gq.path("out.gguf").exists());
    let output = export("composed", &["--drop-nfc"]);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && shown.contains("warning") && shown.contains("NFC"), "{shown}");
    let args = ["export", "composed", "--gguf", "--no-measure", "--force", "--drop-nfc", "-o", "out.gguf"];
    assert_eq!(gq.json(&args)["normalizer_not_carried"], "NFC");
    let tokens = |model: &str, text: &str| prompt_tokens(&gq, &[model, "--raw", "-p", text]);
    assert_eq!(tokens("composed", "caf\u{e9}"), tokens("out.gguf", "caf\u{e9}"));
    assert_ne!(tokens("composed", "cafe\u{301}"), tokens("out.gguf", "cafe\u{301}"));
    std::fs::remove_file(gq.path("out.gguf")).unwrap();
    checkpoint(&gq, "composed and different", "llama", |file| {
        file["normalizer"] = json!({"type": "NFC"});
        file["added_tokens"][3]["single_word"] = json!(true);
    });
    let output = export("composed and different", &["--drop-nfc"]);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(3) && shown.contains("added tokens"), "{shown}");
    let output = export("composed and different", &["--allow-other-tokens"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(gq.path("out.gguf")).unwrap();
    refused("llama", "suffix", "end_of_word_suffix", &|file| {
        file["model"]["end_of_word_suffix"] = json!("</w>")
    });
    for flag in ["lstrip", "rstrip", "single_word"] {
        refused("llama", flag, "added tokens", &|file| file["added_tokens"][3][flag] = json!(true));
    }
    refused("gemma3", "behind", "text ends with", &|file| {
        let eos = json!({"SpecialToken": {"id": "<eos>", "type_id": 0}});
        let processor = &mut file["post_processor"];
        processor["single"].as_array_mut().unwrap().extend([eos.clone(), eos]);
        processor["special_tokens"]["<eos>"] = json!({"id": "<eos>", "ids": [1], "tokens": ["<eos>"]});
    });
    // Spaces in front of a text, and only there (`prepend_scheme`): llama.cpp puts them behind every special token.
    refused("gemma3", "first", "", &|file| {
        file["normalizer"] = Value::Null;
        file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "first", "split": false});
    });
    // Gemma 3 has `</s>` as a mark of crossed-out text; llama.cpp takes it for an end, whatever the file says.
    checkpoint(&gq, "crossed", "gemma3", |file| {
        let text = file.to_string().replace("\"\\n\"", "\"</s>\"");
        *file = serde_json::from_str(&text).unwrap();
    });
    let output = export("crossed", &[]);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && shown.contains("special ones by their spelling"), "{shown}");
    std::fs::remove_file(gq.path("out.gguf")).unwrap();
    // What a training left in the file changes no tokens.
    checkpoint(&gq, "cut", "llama", |file| {
        file["truncation"] =
            json!({"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0});
        file["normalizer"] = json!({"type": "Sequence", "normalizers": []});
    });
    let output = export("cut", &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_tokenizer_is_tried_before_anything_is_made() {
    let gq = Gq::new();
    let refused = |what: &str, code: &str, change: &dyn Fn(&mut Value)| {
        checkpoint(&gq, what, "llama", change);
        for command in [
            &["convert", what, "-o", "x.gq"][..],
            &["inspect", what],
            &["export", what, "--gguf", "--no-measure", "-o", "x.gguf"],
        ] {
            let output = gq.run(&[command, &["--json"]].concat());
            assert_eq!(output.status.code(), Some(3), "{command:?}");
            let document: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(document["error"]["code"], code, "{command:?}: {document}");
            assert!(output.stderr.is_empty(), "{command:?}");
        }
        assert!(!gq.path("x.gq").exists() && !gq.path("x.gguf").exists(), "{what}");
    };
    refused("gap", "tokenizer.ids", &|file| {
        let token = json!({"id": 287, "content": "<late>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false});
        let vocab = file["model"]["vocab"].as_object_mut().unwrap();
        let last = vocab.iter().find(|(_, id)| **id == 287).map(|(token, _)| token.clone());
        last.iter().for_each(|token| drop(vocab.remove(token)));
        let before = vocab.iter().find(|(_, id)| **id == 286).map(|(token, _)| token.clone());
        before.iter().for_each(|token| drop(vocab.remove(token)));
        file["model"]["merges"] = json!([]);
        file["added_tokens"].as_array_mut().unwrap().push(token);
    });
    refused("rows", "tokenizer.rows", &|file| file["model"]["vocab"]["beyond"] = json!(288));
    refused("unknown", "tokenizer.not_as_written", &|file| {
        file["pre_tokenizer"]["new_setting"] = json!(true)
    });
    refused("random", "tokenizer.dropout", &|file| file["model"]["dropout"] = json!(0.5));
    refused("grows", "tokenizer.grows", &|file| {
        let content = "b".repeat(300);
        file["normalizer"] = json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
    });
}

/// Where `tokenizer_config.json` names no special tokens, `special_tokens_map.json` does, as in transformers.
#[test]
fn special_tokens_of_the_map_reach_a_gguf() {
    let gq = Gq::new();
    checkpoint(&gq, "m", "llama", |_| ());
    let path = gq.path("m/tokenizer_config.json");
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    settings.as_object_mut().unwrap().remove("added_tokens_decoder");
    let tokenizer: Value =
        serde_json::from_slice(&std::fs::read(gq.path("m/tokenizer.json")).unwrap()).unwrap();
    let added = tokenizer["added_tokens"].as_array().unwrap();
    // Not what the configuration falls back to.
    let [eos, pad] = [added.len() - 1, added.len() - 2].map(|index| &added[index]);
    let fields = settings.as_object_mut().unwrap();
    for name in ["eos_token", "pad_token"] {
        fields.remove(name).unwrap();
    }
    std::fs::write(&path, settings.to_string()).unwrap();
    let map = json!({"eos_token": eos["content"], "pad_token": {"content": pad["content"]}});
    std::fs::write(gq.path("m/special_tokens_map.json"), map.to_string()).unwrap();
    let args = ["export", "m", "--gguf", "--no-measure", "--no-check", "-o", "out.gguf"];
    let output = gq.run(&args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let gguf = Gguf::open(gq.path("out.gguf")).unwrap();
    let id = |key: &str| gguf.metadata().get(&format!("tokenizer.ggml.{key}_token_id")).unwrap().as_u64();
    assert_eq!((id("eos"), id("padding")), (eos["id"].as_u64(), pad["id"].as_u64()));
}

/// A special token that only the map names and that has no row, so that a GGUF cannot name it.
#[test]
fn an_export_says_which_special_token_of_the_map_it_could_not_carry() {
    let gq = Gq::new();
    checkpoint(&gq, "m", "llama", |file| {
        let added = file["added_tokens"].as_array_mut().unwrap();
        added.push(
            json!({"id": 288, "content": "<late>", "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false}),
        );
    });
    let export = || {
        let args = ["export", "m", "--gguf", "--no-measure", "--no-check", "--force", "-o", "out.gguf"];
        let output = gq.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    assert!(!export().contains("pad_token is"));
    let map = json!({"pad_token": {"content": "<late>"}, "eos_token": "<turn|>"});
    std::fs::write(gq.path("m/special_tokens_map.json"), map.to_string()).unwrap();
    let said = export();
    assert!(said.contains("pad_token is 288 by special_tokens_map.json, and 0 in the GGUF"), "{said}");
    // What it could carry is not warned of.
    assert!(!said.contains("eos_token is") && !said.contains("bos_token is"), "{said}");
    let path = gq.path("m/tokenizer_config.json");
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    settings["pad_token"] = "<late>".into();
    // With this key transformers does not look at the map.
    settings["added_tokens_decoder"] = json!({});
    std::fs::write(&path, settings.to_string()).unwrap();
    let said = export();
    assert!(said.contains("pad_token is 288 by tokenizer_config.json, and 0 in the GGUF"), "{said}");
}

/// A GGUF has two keys for ends of an answer, and some spellings that end one by themselves.
#[test]
fn an_export_says_which_ends_of_an_answer_it_could_not_carry() {
    let gq = Gq::new();
    checkpoint(&gq, "m", "llama", |_| ());
    let said = |ends: Value, of_config: Value| {
        std::fs::write(gq.path("m/generation_config.json"), json!({"eos_token_id": ends}).to_string())
            .unwrap();
        let path = gq.path("m/config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["eos_token_id"] = of_config;
        std::fs::write(&path, config.to_string()).unwrap();
        let args = ["export", "m", "--gguf", "--no-measure", "--no-check", "--force", "-o", "out.gguf"];
        let output = gq.run(&args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said
    };
    // 1 is `<eos>`, 4 is `<turn|>`: by key, and by their spelling.
    let quiet = said(json!([1, 4]), json!(1));
    assert!(!quiet.contains("answers end"), "{quiet}");
    let two = said(json!([9, 4, 7]), json!(1));
    assert!(two.contains("answers end at tokens [1, 4, 7, 9] here"), "{two}");
    assert!(two.contains("no place for [7, 9], and llama.cpp goes on there"), "{two}");
    // The second end of the configuration has a key.
    let one = said(json!([9, 4, 7]), json!([1, 7]));
    assert!(one.contains("no place for [9],"), "{one}");
    let none = said(json!([7]), json!([1, 7]));
    assert!(!none.contains("answers end"), "{none}");
}
