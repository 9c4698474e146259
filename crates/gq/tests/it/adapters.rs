//! Adapters' folders as trainers and other programs write them: tokenizers, added tokens, layouts; merged or refused
//! with a sentence that is true.

use crate::run::{Gq, testdata};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub const TEMPLATE: &str = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

pub fn copy(from: &str, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(testdata(from)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

pub fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub fn write(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

/// A tensor of a safetensors file: name, dtype, shape, bytes.
pub type Tensor = (String, String, Vec<usize>, Vec<u8>);

/// Tensors of a safetensors file.
pub fn tensors(path: &Path) -> Vec<Tensor> {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let header = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let tensor = |(name, info): (String, Value)| {
        let at = |i: usize| 8 + length + info["data_offsets"][i].as_u64().unwrap() as usize;
        let shape = info["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        (name, info["dtype"].as_str().unwrap().to_owned(), shape, bytes[at(0)..at(1)].to_vec())
    };
    header.map(tensor).collect()
}

/// Writes a safetensors file.
pub fn save(tensors: &[Tensor], path: &Path) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::<u8>::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        data.extend(bytes);
        header.insert(name.clone(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    fs::write(path, file).unwrap();
}

/// An adapter for the demo model that was trained with ChatML: two unused tokens got other names.
pub fn chatml(gq: &Gq) -> PathBuf {
    let dir = gq.path("chatml");
    copy("lora/demo", &dir);
    let text = fs::read_to_string(testdata("demo/tokenizer.json")).unwrap();
    let text = text.replace("<|turn>", "<|im_start|>").replace("<turn|>", "<|im_end|>");
    assert!(text.contains("<|im_end|>"));
    fs::write(dir.join("tokenizer.json"), text).unwrap();
    let mut config = read(Path::new(&testdata("demo/tokenizer_config.json")));
    config["eos_token"] = "<|im_end|>".into();
    write(&dir.join("tokenizer_config.json"), &config);
    fs::write(dir.join("chat_template.jinja"), TEMPLATE).unwrap();
    dir
}

#[test]
fn an_adapters_tokenizer_and_template_are_taken_and_said() {
    let gq = Gq::new();
    let (demo, adapter) = (testdata("demo"), chatml(&gq));
    let adapter = adapter.to_str().unwrap();
    let shown = gq.run(&["convert", &demo, "--lora", adapter, "-o", "mine.gq", "--bits", "4"]);
    let said = String::from_utf8(shown.stderr).unwrap();
    assert!(shown.status.success(), "{said}");
    assert!(said.contains("tokenizer") && said.contains("chat template of chatml taken"), "{said}");
    assert!(said.contains("--tokenizer-from base"), "{said}");
    assert_eq!(gq.ok(&["meta", "get", "mine.gq", "chat_template"]).trim_end(), TEMPLATE);
    let config: Value =
        serde_json::from_str(&gq.ok(&["meta", "get", "mine.gq", "tokenizer_config"])).unwrap();
    assert_eq!(config["eos_token"], "<|im_end|>");
    // As transformers renders it with the tokenizer of the adapter's folder.
    fs::write(gq.path("chat.json"), r#"[{"role": "user", "content": "Hello"}]"#).unwrap();
    let tokenizer = gq.ok(&["meta", "get", "mine.gq", "tokenizer"]);
    assert!(tokenizer.contains("<|im_start|>") && !tokenizer.contains("<|turn>"));
    let told = gq.json(&["inspect", "mine.gq"])["provenance"]["source"].clone();
    assert_eq!(told["texts"]["from"], "chatml");
    let names: Vec<&str> =
        told["texts"]["files"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]);
    assert_eq!(told["texts"]["files"][0]["sha256"].as_str().unwrap().len(), 64);

    // The weights are the same whichever texts are taken.
    gq.ok(&["convert", &demo, "--lora", adapter, "--tokenizer-from", "base", "-o", "base.gq", "--bits", "4"]);
    let payload = |file: &str| gq.json(&["inspect", file])["payload_sha256"].clone();
    assert_eq!(payload("mine.gq"), payload("base.gq"));
    let own = fs::read_to_string(testdata("demo/chat_template.jinja")).unwrap();
    assert_eq!(gq.ok(&["meta", "get", "base.gq", "chat_template"]).trim_end(), own.trim_end());
    assert!(gq.json(&["inspect", "base.gq"])["provenance"]["source"]["texts"].is_null());
}

/// Templates of a folder belong together: none of the base's is left among them, and all of them are there.
#[test]
fn an_adapters_templates_with_names_are_taken_and_said() {
    let gq = Gq::new();
    let (base, adapter) = (gq.path("base"), gq.path("mine"));
    copy("demo", &base);
    copy("lora/demo", &adapter);
    for folder in [&base, &adapter] {
        fs::create_dir(folder.join("additional_chat_templates")).unwrap();
    }
    let tools = |folder: &Path, text: &str| {
        fs::write(folder.join("additional_chat_templates/tool_use.jinja"), text).unwrap();
    };
    tools(&base, "the base's, for tools");
    fs::write(base.join("additional_chat_templates/rag.jinja"), "the base's, for documents").unwrap();
    fs::write(gq.path("tools.json"), r#"{"messages": [], "tools": [1]}"#).unwrap();
    let (base_dir, mine) = (base.to_str().unwrap().to_owned(), adapter.to_str().unwrap().to_owned());
    let convert = |more: &[&str]| {
        let all = ["convert", &base_dir, "--lora", &mine, "-o", "m.gq", "--bits", "4", "--force"];
        let shown = gq.run(&[&all[..], more].concat());
        let said = String::from_utf8(shown.stderr).unwrap();
        assert!(shown.status.success(), "{said}");
        said
    };
    let rendered = |how: &str| gq.run(&["inspect", "m.gq", how]);
    let text = |how: &str| String::from_utf8(rendered(how).stdout).unwrap();
    let settings =
        || -> Value { serde_json::from_str(&gq.ok(&["meta", "get", "m.gq", "tokenizer_config"])).unwrap() };
    let names = || -> Vec<String> {
        let settings = settings();
        let list = settings["chat_template"].as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    let own: Value = read(&base.join("tokenizer_config.json"));

    // A folder without any leaves the base's, and its settings.
    fs::remove_dir_all(adapter.join("additional_chat_templates")).unwrap();
    convert(&[]);
    assert_eq!(names(), ["default", "rag", "tool_use"]);
    // Its own tokenizer and settings, which name no templates, change nothing of that.
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(base.join(file), adapter.join(file)).unwrap();
    }
    convert(&[]);
    assert_eq!((names().len(), text("--render-chat=tools.json")), (3, "the base's, for tools".to_owned()));
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::remove_file(adapter.join(file)).unwrap();
    }

    // Files alone: settings stay the base's, templates are the adapter's, all of them.
    fs::create_dir(adapter.join("additional_chat_templates")).unwrap();
    tools(&adapter, "mine, for tools");
    fs::write(adapter.join("chat_template.jinja"), TEMPLATE).unwrap();
    let said = convert(&[]);
    assert!(said.contains("chat template, named chat templates of mine taken"), "{said}");
    assert!(said.contains("additional_chat_templates/tool_use.jinja"), "{said}");
    assert_eq!(names(), ["default", "tool_use"]);
    assert_eq!(text("--render-chat=tools.json"), "mine, for tools");
    assert_eq!(settings()["eos_token"], own["eos_token"]);
    let told = gq.json(&["inspect", "m.gq"])["provenance"]["source"]["texts"]["files"].clone();
    let files: Vec<_> = told.as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(files, ["chat_template.jinja", "additional_chat_templates/tool_use.jinja"]);
    let said = convert(&["--tokenizer-from", "base"]);
    assert!(said.contains("named chat templates of the checkpoint kept"), "{said}");
    assert_eq!(text("--render-chat=tools.json"), "the base's, for tools");
    fs::copy(base.join("tokenizer.json"), adapter.join("tokenizer.json")).unwrap();
    convert(&["--tokenizer-from", &mine]);
    assert_eq!(text("--render-chat=tools.json"), "mine, for tools");
    // One template of a file stands for all.
    fs::remove_dir_all(adapter.join("additional_chat_templates")).unwrap();
    convert(&[]);
    assert_eq!((names().len(), settings()["eos_token"].clone()), (0, own["eos_token"].clone()));
    assert!(text("--render-chat=tools.json").contains("<|im_start|>"));

    // Without a default there is none, as in transformers: the base's is not put in its place.
    fs::remove_file(adapter.join("chat_template.jinja")).unwrap();
    fs::create_dir(adapter.join("additional_chat_templates")).unwrap();
    tools(&adapter, "mine, for tools");
    convert(&[]);
    assert_eq!(
        (names(), text("--render-chat=tools.json")),
        (vec!["tool_use".into()], "mine, for tools".into())
    );
    let refused = String::from_utf8(rendered("--render-chat").stderr).unwrap();
    assert!(refused.contains("for other uses alone: tool_use"), "{refused}");

    // Two adapters whose templates differ by one with a name.
    let second = gq.path("second");
    copy("lora/demo", &second);
    fs::create_dir(second.join("additional_chat_templates")).unwrap();
    tools(&second, "another, for tools");
    fs::copy(base.join("tokenizer.json"), second.join("tokenizer.json")).unwrap();
    let both = ["plan", &base_dir, "--lora", &mine, "--lora", second.to_str().unwrap()];
    let shown = gq.fails(3, &both);
    assert!(shown.contains("named chat templates") && shown.contains("second"), "{shown}");
    tools(&second, "mine, for tools");
    gq.ok(&both);
    // What only the map of special tokens says is compared too.
    fs::write(second.join("special_tokens_map.json"), r#"{"pad_token": "<|turn>"}"#).unwrap();
    let shown = gq.run(&both);
    let said = String::from_utf8(shown.stderr).unwrap();
    let listed = own.get("added_tokens_decoder").is_some();
    assert_eq!(shown.status.code(), Some(if listed { 0 } else { 3 }), "{said}");
    assert!(listed || said.contains("special tokens"), "{said}");
}

#[test]
fn adapters_that_disagree_are_refused_without_a_choice() {
    let gq = Gq::new();
    let (demo, first) = (testdata("demo"), chatml(&gq));
    let second = gq.path("second");
    copy("lora/demo", &second);
    for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        fs::copy(first.join(file), second.join(file)).unwrap();
    }
    let (first, second) = (first.to_str().unwrap().to_owned(), second.to_str().unwrap().to_owned());
    let both = ["convert", &demo, "-o", "m.gq", "--bits", "4", "--lora", &first, "--lora", &second];
    gq.ok(&both);
    fs::remove_file(gq.path("m.gq")).unwrap();
    fs::write(Path::new(&second).join("chat_template.jinja"), "{{ messages[0]['content'] }}").unwrap();
    let shown = gq.fails(3, &both);
    assert!(
        shown.contains("chatml") && shown.contains("second") && shown.contains("chat template"),
        "{shown}"
    );
    assert!(shown.contains("--tokenizer-from") && !gq.path("m.gq").exists(), "{shown}");
    gq.ok(&[&both[..], &["--tokenizer-from", &second]].concat());
    assert_eq!(gq.ok(&["meta", "get", "m.gq", "chat_template"]).trim_end(), "{{ messages[0]['content'] }}");
    assert_eq!(gq.json(&["inspect", "m.gq"])["provenance"]["source"]["texts"]["from"], "second");
    let shown = gq.fails(2, &["convert", &demo, "-o", "n.gq", "--tokenizer-from", "base"]);
    assert!(shown.contains("--lora"), "{shown}");
    let shown =
        gq.fails(2, &["convert", &demo, "--lora", &first, "-o", "n.gq", "--tokenizer-from", "absent"]);
    assert!(shown.contains("base, adapter, or a folder"), "{shown}");
}

/// The tiny Llama with a tokenizer, and an adapter that was trained after two tokens were added.
pub fn grown(gq: &Gq) -> (PathBuf, PathBuf) {
    let (base, adapter) = (gq.path("base"), gq.path("grown"));
    copy("tiny/llama", &base);
    fs::remove_file(base.join("reference.safetensors")).ok();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(testdata(&format!("gguf/tokenizers/llama/{file}")), base.join(file)).unwrap();
    }
    copy("lora/plain", &adapter);
    let weights = adapter.join("adapter_model.safetensors");
    let mut list = tensors(&weights);
    for (name, dtype, shape, bytes) in tensors(Path::new(&testdata("tiny/llama/model.safetensors"))) {
        if name == "lm_head.weight" || name == "model.embed_tokens.weight" {
            let row = bytes.len() / shape[0];
            let more = [bytes.as_slice(), &bytes[..row], &bytes[3 * row..4 * row]].concat();
            list.push((format!("base_model.model.{name}"), dtype, vec![shape[0] + 2, shape[1]], more));
        }
    }
    save(&list, &weights);
    let mut config = read(&adapter.join("adapter_config.json"));
    config["modules_to_save"] = json!(["embed_tokens", "lm_head"]);
    write(&adapter.join("adapter_config.json"), &config);
    let mut tokenizer = read(&base.join("tokenizer.json"));
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for (id, content) in [(288, "<|im_start|>"), (289, "<|im_end|>")] {
        added.push(json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }));
    }
    write(&adapter.join("tokenizer.json"), &tokenizer);
    fs::copy(base.join("tokenizer_config.json"), adapter.join("tokenizer_config.json")).unwrap();
    (base, adapter)
}

#[test]
fn an_adapter_with_added_tokens_resizes_the_base() {
    let gq = Gq::new();
    let (base, adapter) = grown(&gq);
    let (base, adapter) = (base.to_str().unwrap(), adapter.to_str().unwrap());
    let shown = gq.run(&["convert", base, "--lora", adapter, "-o", "m.gq", "--bits", "8"]);
    let said = String::from_utf8(shown.stderr).unwrap();
    assert!(shown.status.success(), "{said}");
    assert!(said.contains("vocabulary of 290 rows") && said.contains("the checkpoint has 288"), "{said}");
    let config: Value = serde_json::from_str(&gq.ok(&["meta", "get", "m.gq", "config"])).unwrap();
    assert_eq!(config["vocab_size"], 290);
    assert!(gq.ok(&["meta", "get", "m.gq", "tokenizer"]).contains("<|im_end|>"));
    let tensors = gq.json(&["inspect", "m.gq", "--tensors"])["tensors"].clone();
    let shape =
        |name: &str| tensors.as_array().unwrap().iter().find(|t| t["name"] == name).unwrap()["shape"].clone();
    assert_eq!(shape("model.embed_tokens.weight"), json!([290, 96]));
    assert_eq!(shape("lm_head.weight"), json!([290, 96]));
    let source = gq.json(&["inspect", "m.gq"])["provenance"]["source"].clone();
    let files: Vec<&str> =
        source["files"].as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap()).collect();
    assert!(!files.contains(&"adapter_model.safetensors"), "{files:?}");
    assert_eq!(source["adapters"][0]["files"][1]["name"], "adapter_model.safetensors");
    gq.ok(&["run", "m.gq", "-p", "<|im_start|>x", "-n", "2"]);
    gq.ok(&["run", base, "--lora", adapter, "-p", "x", "-n", "1"]);
    gq.ok(&["verify", "m.gq"]);

    // Without the rows the tokens mean nothing.
    let bare = gq.path("bare");
    copy("lora/plain", &bare);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(adapter).join(file), bare.join(file)).unwrap();
    }
    let bare = bare.to_str().unwrap();
    let shown = gq.fails(3, &["convert", base, "--lora", bare, "-o", "n.gq"]);
    assert!(shown.contains("<|im_start|>") && shown.contains("288 rows"), "{shown}");
    gq.ok(&["convert", base, "--lora", bare, "--tokenizer-from", "base", "-o", "n.gq", "--bits", "8"]);
}

#[test]
fn pointers_are_called_pointers_wherever_they_lie() {
    let gq = Gq::new();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9085657\n";
    let dir = gq.path("demo");
    copy("demo", &dir);
    let demo = dir.to_str().unwrap();
    for file in ["tokenizer.json", "chat_template.jinja", "model.safetensors", "config.json"] {
        let path = dir.join(file);
        let content = fs::read(&path).unwrap();
        fs::write(&path, pointer).unwrap();
        let shown = gq.fails(3, &["convert", demo, "-o", "m.gq"]);
        assert!(shown.contains("a Git LFS pointer to 9085657 bytes"), "{file}: {shown}");
        assert!(shown.contains("git lfs pull") && !gq.path("m.gq").exists(), "{file}: {shown}");
        fs::write(&path, content).unwrap();
    }
    for file in ["p.gq", "p.gguf"] {
        fs::write(gq.path(file), pointer).unwrap();
        let shown = gq.fails(3, &["inspect", file]);
        assert!(shown.contains("a Git LFS pointer"), "{file}: {shown}");
        let shown = gq.fails(3, &["run", file, "-p", "x"]);
        assert!(shown.contains("a Git LFS pointer"), "{file}: {shown}");
    }
    let shown = gq.fails(3, &["verify", "p.gq"]);
    assert!(shown.contains("a Git LFS pointer"), "{shown}");
}
