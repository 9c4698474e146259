//! Chat templates against renderings of the reference library, and what templates in the wild use.

use crate::fixtures::testdata;
use gq_model::{ChatError, ChatMessage, ChatOptions, ChatTemplate, ModelTexts};
use serde_json::{Value, json};
use std::sync::Arc;

fn template(text: &str) -> ChatTemplate {
    let config = r#"{"bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>"}"#;
    let texts = ModelTexts {
        chat_template: Some(text.to_owned()),
        tokenizer_config: Some(config.to_owned()),
        ..ModelTexts::default()
    };
    ChatTemplate::new(&texts).unwrap()
}

#[test]
fn demo_template_as_the_reference_renders_it() {
    let read = |path: &str| std::fs::read_to_string(testdata(path)).unwrap();
    let texts = ModelTexts {
        chat_template: Some(read("demo/chat_template.jinja")),
        tokenizer_config: Some(read("demo/tokenizer_config.json")),
        ..ModelTexts::default()
    };
    let template = ChatTemplate::new(&texts).unwrap();
    assert_eq!(template.end_of_turn().as_deref(), Some("<turn|>"));
    let cases: Vec<Value> = serde_json::from_str(&read("chat/demo.json")).unwrap();
    assert!(cases.len() >= 20);
    for case in cases {
        let messages: Vec<ChatMessage> = serde_json::from_value(case["messages"].clone()).unwrap();
        let mut options = ChatOptions {
            add_generation_prompt: case["add_generation_prompt"].as_bool().unwrap(),
            ..ChatOptions::default()
        };
        options.extra.insert("enable_thinking".to_owned(), case["enable_thinking"].clone());
        assert_eq!(template.render(&messages, &options).ok().as_deref(), case["text"].as_str());
    }
}

#[test]
fn what_templates_use() {
    for (text, expected) in [
        ("{{ bos_token }}{{ eos_token }}{{ pad_token }}", "<s></s>"),
        ("  {% for m in messages %}\n{{ m.role }}:{{ m['content'] }}\n  {% endfor %}\n", "user: Hi \n"),
        ("{{ messages[0].content.strip() | upper }}", "HI"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        ),
        ("{% if messages[0].tool_calls %}x{% elif tools is none %}none{% endif %}", "none"),
        ("{{ strftime_now('%Y') }}", "1815 by %Y"),
        ("{{ schema | tojson }}", r#"{"z": 1, "a": ["<b>", null]}"#),
        ("{% for k, v in schema.items() %}{{ k }} {% endfor %}", "z a "),
        ("{% generation %}{{ messages[-1].content }}{% endgeneration %}", " Hi "),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
    ] {
        let mut options = ChatOptions {
            clock: Some(Arc::new(|format: &str| format!("1815 by {format}"))),
            ..ChatOptions::default()
        };
        options.extra.insert("schema".to_owned(), json!({"z": 1, "a": ["<b>", null]}));
        let rendered = template(text).render(&[ChatMessage::new("user", " Hi ")], &options);
        assert_eq!(rendered.unwrap(), expected, "{text}");
    }
}

#[test]
fn a_template_may_refuse() {
    let refusing = template("{{ raise_exception('no system turn') }}");
    let error = refusing.render(&[], &ChatOptions::default()).unwrap_err();
    assert!(matches!(&error, ChatError::Refused(source) if source.to_string().contains("no system turn")));
    let timeless = template("{{ strftime_now('%Y') }}");
    assert!(matches!(timeless.render(&[], &ChatOptions::default()), Err(ChatError::Refused(_))));
    let broken = ModelTexts { chat_template: Some("{% if %}".to_owned()), ..ModelTexts::default() };
    assert!(matches!(ChatTemplate::new(&broken), Err(ChatError::Unreadable(_))));
}
