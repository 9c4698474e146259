//! Metadata shown and edited, and chat templates at work.

use crate::run::{Gq, testdata};
use serde_json::Value;

fn converted() -> Gq {
    let gq = Gq::new();
    gq.ok(&["convert", &testdata("demo"), "-o", "m.gq", "--bits", "4"]);
    gq
}

#[test]
fn texts_change_and_weights_do_not() {
    let gq = converted();
    let before = gq.json(&["verify", "m.gq"]);
    let says = |file: &str| gq.ok(&["run", file, "-p", "It is", "-n", "4", "--temp", "0", "--raw"]);
    let said = says("m.gq");
    std::fs::write(gq.path("t.jinja"), "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")
        .unwrap();
    let told = gq.json(&[
        "meta",
        "set",
        "m.gq",
        "chat_template=@t.jinja",
        "generation_config.temperature=0.5",
        "generation_config.note=as text",
        "licence=apache-2.0",
    ]);
    assert_eq!(told["changed"], serde_json::json!(["chat_template", "generation_config", "licence"]));
    let after = gq.json(&["verify", "m.gq"]);
    assert_eq!(after["payload_sha256"], before["payload_sha256"]);
    assert_ne!(after["file_sha256"], before["file_sha256"]);
    assert_eq!(
        (&after["file_sha256"], &after["payload_sha256"]),
        (&told["file_sha256"], &told["payload_sha256"])
    );
    assert_eq!(says("m.gq"), said);
    assert_eq!(gq.ok(&["meta", "get", "m.gq", "licence"]), "apache-2.0");
    let settings: Value =
        serde_json::from_str(&gq.ok(&["meta", "get", "m.gq", "generation_config"])).unwrap();
    assert_eq!((settings["temperature"].as_f64(), settings["note"].as_str()), (Some(0.5), Some("as text")));
    let shown = gq.ok(&["inspect", "m.gq", "--render-chat"]);
    assert!(shown.starts_with("[user] Why is the sky blue?\n[assistant] Air"), "{shown}");
    // Elsewhere, and with a text taken out: what is left of the file is as it was.
    gq.ok(&["meta", "set", "m.gq", "--remove", "licence", "-o", "n.gq"]);
    assert!(!gq.ok(&["meta", "get", "n.gq"]).contains("licence"));
    assert!(gq.ok(&["meta", "get", "m.gq"]).contains("licence"));
    gq.fails(3, &["meta", "get", "n.gq", "licence"]);
    // The same texts make the same bytes.
    gq.ok(&["meta", "set", "n.gq", "licence=apache-2.0"]);
    assert!(std::fs::read(gq.path("n.gq")).unwrap() == std::fs::read(gq.path("m.gq")).unwrap());
}

#[test]
fn what_a_reader_would_refuse_is_not_written() {
    let gq = converted();
    let before = std::fs::read(gq.path("m.gq")).unwrap();
    let refused = |code: i32, change: &str, expected: &str| {
        let shown = gq.fails(code, &["meta", "set", "m.gq", change]);
        assert!(shown.contains(expected), "{change}: {shown}");
    };
    refused(2, "config={}", "cannot be changed");
    refused(2, "nothing=x", "expected one of config, tokenizer,");
    refused(2, "licence.x=1", "has no keys");
    refused(2, "license=mit", "it is called licence");
    refused(2, "generation_config.json=@x.json", "it is called generation_config");
    let told = gq.fails(2, &["meta", "get", "m.gq", "generation_config.json"]);
    assert!(told.contains("it is called generation_config"), "{told}");
    refused(3, "chat_template={% if %}", "the chat template cannot be read");
    refused(3, "generation_config=[1]", "generation_config: not an object");
    refused(3, "tokenizer_config={", "tokenizer_config: not JSON");
    refused(3, "tokenizer={}", "tokenizer");
    refused(3, "licence=@missing.txt", "missing.txt");
    gq.fails(2, &["meta", "set", "m.gq"]);
    assert!(std::fs::read(gq.path("m.gq")).unwrap() == before);
}

#[test]
fn a_template_that_leaves_out_what_is_said_is_told() {
    let gq = converted();
    let told = |template: &str| {
        let output =
            gq.run(&["meta", "set", "m.gq", &format!("chat_template={template}"), "-o", "o.gq", "--force"]);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = "the chat template leaves out what a conversation says";
    assert!(told("foo").contains(said));
    assert!(!told("{{ messages[-1].content }}").contains(said));
    // What refuses a conversation cannot be tried on it.
    assert!(!told("{{ raise_exception('no') }}").contains(said));
}

#[test]
fn conversations_are_rendered_as_transformers_does() {
    let gq = converted();
    gq.ok(&["export", "--no-measure", &testdata("demo"), "--gguf", "-o", "m.gguf"]);
    let cases = std::fs::read(testdata("chat/demo.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&cases).unwrap();
    for (index, case) in cases.iter().enumerate() {
        let mut conversation = case.clone();
        let expected = conversation.as_object_mut().unwrap().remove("text").unwrap();
        std::fs::write(gq.path("c.json"), conversation.to_string()).unwrap();
        let model = ["m.gq", "m.gguf", &testdata("demo")][index % 3].to_owned();
        let args = ["inspect", &model, "--render-chat=c.json"];
        match expected.as_str() {
            Some(expected) => assert_eq!(gq.ok(&args), expected, "{conversation}"),
            None => assert!(gq.fails(3, &args).contains("refuses the conversation")),
        }
    }
    let seen = gq.json(&["inspect", "m.gq", "--render-chat"]);
    assert!(seen["text"].as_str().unwrap().contains("And at sunset?"));
    assert!(
        seen["tokens"].as_array().unwrap().len() > 10 && !seen["stop_tokens"].as_array().unwrap().is_empty()
    );
    std::fs::write(gq.path("c.json"), "{\"role\": \"user\"}").unwrap();
    let shown = gq.fails(3, &["inspect", "m.gq", "--render-chat=c.json"]);
    assert!(shown.contains("neither a list of messages"), "{shown}");
    let shown = gq.fails(3, &["inspect", &testdata("tiny/llama"), "--render-chat"]);
    assert!(shown.contains("has no chat template"), "{shown}");
}
