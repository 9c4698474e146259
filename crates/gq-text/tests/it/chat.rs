//! Chat templates against renderings of the reference library, and what templates in the wild use.

use crate::testdata;
use gq_text::{ChatError, ChatMessage, ChatOptions, ChatTemplate, ModelTexts, TemplateLimits};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

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
        let template = template(text).with_clock(Arc::new(|format: &str| Ok(format!("1815 by {format}"))));
        let mut options = ChatOptions::default();
        options.extra.insert("schema".to_owned(), json!({"z": 1, "a": ["<b>", null]}));
        let rendered = template.render(&[ChatMessage::new("user", " Hi ")], &options);
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

/// The template with the demo model's special tokens and a clock that says `now`.
fn demo_template(text: &str, now: &str) -> Result<ChatTemplate, ChatError> {
    let texts = ModelTexts {
        chat_template: Some(text.to_owned()),
        tokenizer_config: Some(std::fs::read_to_string(testdata("demo/tokenizer_config.json")).unwrap()),
        ..ModelTexts::default()
    };
    let now = now.to_owned();
    Ok(ChatTemplate::new(&texts)?.with_clock(Arc::new(move |_: &str| Ok(now.clone()))))
}

fn read_cases(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(testdata("chat").join(name)).unwrap()).unwrap()
}

fn messages(value: &Value) -> Vec<ChatMessage> {
    serde_json::from_value(value.clone()).unwrap()
}

/// What transformers renders and this crate refuses: every one of them by name, nothing else.
const REFUSED: [(&str, &str); 26] = [
    ("{{ d.items }}", "printing a method"),
    ("{{ d['items'] }}", "printing a method"),
    ("{{ 2 ** -1 }}", "`**`"),
    ("{{ 2 ** 0.5 }}", "`**`"),
    ("{{ 'ǆx'.title() }}", "title case"),
    ("{{ 'é'.isalpha() }}", "str.isalpha"),
    ("{{ 'abc'.encode() }}", "str.encode"),
    ("{{ d | items }}", "what a filter yields"),
    ("{{ [1] | items }}", "item pairs"),
    ("{{ [1, 2, 3] | reverse }}", "what a filter yields"),
    ("{{ 1234.5678 | round(-2) }}", "filter 'round'"),
    ("{{ ['<a>' | e] }}", "escaped text"),
    ("{{ raise_exception is callable }}", "test 'callable'"),
    ("{{ +1 }}", "unexpected `+`"),
    ("{{ namespace(a=1) }}", "a namespace"),
    ("{{ d.__class__ }}", "'__class__'"),
    ("{{ cycler('a', 'b') }}", "'cycler'"),
    ("{{ joiner(',') }}", "'joiner'"),
    ("{{ lipsum() }}", "'lipsum'"),
    ("{{ self }}", "'self'"),
    ("{% set x = 5 %}{% with x = 1, y = x %}{{ y }}{% endwith %}", "{% with %}"),
    ("{% macro f(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ f(1) }}", "'varargs'"),
    ("{% block a %}b{% endblock %}", "block"),
    ("{% autoescape true %}{{ '<' }}{% endautoescape %}", "{% autoescape %}"),
    ("{{ 1, 2 }}", "unexpected `,`"),
    ("{% for g in messages | groupby('role') %}{{ g.grouper }}{% endfor %}", "'grouper'"),
];

/// The error and what it comes from, in one line.
fn whole(error: &ChatError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!("{error}{}", source.unwrap_or_default())
}

#[test]
fn small_templates_as_the_reference_renders_them_or_refused_by_name() {
    let document = read_cases("constructs.json");
    let cases = document["cases"].as_array().unwrap();
    assert!(cases.iter().filter(|case| case["set"] == "reported").count() == 50 && cases.len() > 650);
    let mut refused = Vec::new();
    for case in cases {
        let text = case["template"].as_str().unwrap();
        let conversation = &document["conversations"][case["conversation"].as_str().unwrap()];
        let rendered = demo_template(text, document["now"].as_str().unwrap())
            .and_then(|template| template.render(&messages(conversation), &ChatOptions::default()));
        match (&rendered, case["text"].as_str()) {
            (Ok(rendered), expected) => assert_eq!(Some(rendered.as_str()), expected, "{text}"),
            (Err(_), None) => (),
            (Err(error), Some(_)) => {
                let construct = REFUSED.iter().find(|(template, _)| text.ends_with(template));
                let named = construct.is_some_and(|(_, name)| whole(error).contains(name));
                assert!(named, "{text}: {}", whole(error));
                refused.push(text);
            }
        }
    }
    assert_eq!(refused.len(), REFUSED.len(), "{refused:?}");
}

#[test]
fn templates_of_the_large_families_as_the_reference_renders_them() {
    let document = read_cases("families.json");
    let cases = document["cases"].as_array().unwrap();
    assert!(cases.len() >= 84);
    for case in cases {
        let (name, conversation) =
            (case["template"].as_str().unwrap(), case["conversation"].as_str().unwrap());
        let text = document["templates"][name].as_str().unwrap();
        let given = &document["conversations"][conversation];
        let extra: Map<String, Value> = given["variables"].as_object().unwrap().clone();
        let options = ChatOptions { add_generation_prompt: true, extra };
        let template = demo_template(text, document["now"].as_str().unwrap()).unwrap();
        let rendered = template.render(&messages(&given["messages"]), &options);
        assert_eq!(rendered.ok().as_deref(), case["text"].as_str(), "{name}, {conversation}");
    }
}

/// Expected: jinja2 3.1 on Python 3.11; an error where it has one, or where its number has more than 128 bits.
#[test]
fn numbers_are_made_and_rounded_as_python_does() {
    let cases = [
        ("{{ '99999999999999999999'|int }}", Ok("99999999999999999999")),
        ("{{ ('9'*38)|int }}", Ok("99999999999999999999999999999999999999")),
        ("{{ ('9'*40)|int(7) }}", Err("128 bits")),
        ("{{ ('0'*50 ~ '9')|int(7) }}", Ok("9")),
        ("{{ ('f'*40)|int(7, 16) }}", Err("128 bits")),
        (
            "{{ '1e30'|int }} {{ 1e30|int }}",
            Ok("1000000000000000019884624838656 1000000000000000019884624838656"),
        ),
        ("{{ 1.2e38|int }}", Ok("120000000000000008632251347034389348352")),
        ("{{ 1e39|int(7) }}", Err("128 bits")),
        ("{{ '1e39'|int(7) }}", Err("128 bits")),
        ("{{ 'inf'|int(2) }} {{ '1e400'|int(3) }} {{ 'nan'|int(4) }}", Ok("2 3 4")),
        ("{{ (1e300*1e300)|int(2) }}", Err("infinity")),
        ("{{ (1e300*1e300-1e300*1e300)|int(4) }}", Ok("4")),
        ("{{ missing|int }}", Err("undefined")),
        ("{{ missing|float }}", Err("undefined")),
        ("{{ none|int }} {{ []|int(5) }} {{ '+-5'|int(9) }} {{ ''|int(9) }}", Ok("0 5 9 9")),
        ("{{ '0x1f'|int(base=16) }} {{ 'zz'|int(0,36) }} {{ '1.9'|int(0,16) }}", Ok("31 1295 1")),
        ("{{ '-0.5'|int }} {{ (-0.5)|int }} {{ ' -12 '|int }}", Ok("0 0 -12")),
        (
            "{{ (-0.5)|round(0,'ceil') }} {{ (-0.0)|round(0,'floor') }} {{ (-0.04)|round(1,'ceil') }}",
            Ok("0.0 0.0 0.0"),
        ),
        ("{{ (-0.4)|round }} {{ 2.5|round }} {{ 0.3|round(25) }}", Ok("-0.0 2.0 0.3")),
        ("{{ 5|round(0,'ceil') }} {{ 5|round(2,'floor') }} {{ true|round(1,'ceil') }}", Ok("5.0 5.0 1.0")),
        ("{{ 9007199254740993|round(0,'ceil') }}", Ok("9007199254740992.0")),
        ("{{ 123456789012345678901234567890|round(2,'ceil') }}", Ok("1.2345678901234568e+29")),
        ("{{ 2.675|round(2,'floor') }} {{ 1e18|round(5,'floor') }}", Ok("2.67 9.999999999999999e+17")),
        ("{{ 0.1|round(22,'ceil') }}", Ok("0.1")),
        ("{{ 0.1|round(23,'ceil') }}", Err("precision")),
        ("{{ (1e300*1e300)|round }}", Ok("inf")),
        ("{{ (1e300*1e300)|round(0,'ceil') }}", Err("infinity")),
        ("{{ 1e300|round(20,'ceil') }}", Err("infinity")),
    ];
    for (text, expected) in cases {
        let rendered = template(text).render(&[], &ChatOptions::default());
        match (&rendered, expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected),
            (Err(error), Err(part)) => assert!(whole(error).contains(part), "{text}: {}", whole(error)),
            _ => panic!("{text}: {rendered:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_template_for_tools_is_taken_where_there_are_tools() {
    let named = |names: &[&str]| {
        let list: Vec<Value> = names
            .iter()
            .map(|name| json!({"name": name, "template": format!("{name}{{{{ tools }}}}")}))
            .collect();
        let single = names.contains(&"default").then(|| "default{{ tools }}".to_owned());
        let config = json!({"chat_template": list}).to_string();
        ChatTemplate::new(&ModelTexts {
            chat_template: single,
            tokenizer_config: Some(config),
            ..ModelTexts::default()
        })
    };
    let render = |template: &ChatTemplate, tools: Value| {
        let mut options = ChatOptions::default();
        options.extra.insert("tools".to_owned(), tools);
        template.render(&[], &options)
    };
    let both = named(&["tool_use", "default"]).unwrap();
    assert_eq!(both.render(&[], &ChatOptions::default()).unwrap(), "defaultNone");
    assert_eq!(render(&both, json!(null)).unwrap(), "defaultNone");
    assert_eq!(render(&both, json!([])).unwrap(), "tool_use[]");
    assert_eq!(render(&named(&["default", "rag"]).unwrap(), json!([1])).unwrap(), "default[1]");
    let tools_alone = named(&["tool_use", "rag"]).unwrap();
    assert_eq!(render(&tools_alone, json!([1])).unwrap(), "tool_use[1]");
    let error = render(&tools_alone, json!(null)).unwrap_err();
    assert!(matches!(&error, ChatError::NoDefault { names } if names == &["rag", "tool_use"]), "{error:?}");
    assert!(matches!(named(&["rag"]), Err(ChatError::NoDefault { .. })));
    // One that is not understood is in nobody's way until it is chosen.
    let list = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "{% if"}]);
    let broken = ChatTemplate::new(&ModelTexts {
        chat_template: Some("d".to_owned()),
        tokenizer_config: Some(json!({"chat_template": list}).to_string()),
        ..ModelTexts::default()
    });
    let broken = broken.unwrap();
    assert_eq!(render(&broken, json!(null)).unwrap(), "d");
    let error = render(&broken, json!([1])).unwrap_err();
    assert!(matches!(&error, ChatError::UnreadableNamed { name, .. } if name == "tool_use"), "{error:?}");
}

/// With a default and without, in a file and in the list: all are looked at, those that no conversation chooses too.
#[test]
fn every_template_that_cannot_be_read_is_found_by_its_name() {
    let list = |entries: &[(&str, &str)]| {
        let entry = |(name, template): &(&str, &str)| json!({"name": name, "template": template});
        json!({"chat_template": entries.iter().map(entry).collect::<Vec<_>>()}).to_string()
    };
    let broken = |single: Option<&str>, config: Option<String>| {
        let texts = ModelTexts {
            chat_template: single.map(str::to_owned),
            tokenizer_config: config,
            ..ModelTexts::default()
        };
        let found = ChatTemplate::check_all(&texts).unwrap();
        found.iter().for_each(|(name, error)| match (name, error) {
            (None, ChatError::Unreadable(_)) => {}
            (Some(name), ChatError::UnreadableNamed { name: said, .. }) if said == name => {}
            other => panic!("{other:?}"),
        });
        found.into_iter().map(|(name, _)| name.unwrap_or_default()).collect::<Vec<_>>()
    };
    let whole = [("default", "d"), ("tool_use", "t"), ("rag", "r")];
    assert!(broken(Some("d"), Some(list(&whole))).is_empty() && broken(None, None).is_empty());
    assert!(broken(None, Some(list(&whole[1..]))).is_empty() && broken(None, Some(list(&[]))).is_empty());
    let faulty = [("rag", "{% if"), ("default", "d"), ("tool_use", "{{ x"), ("more", "m")];
    assert_eq!(broken(Some("d"), Some(list(&faulty))), ["tool_use", "rag"]);
    assert_eq!(broken(None, Some(list(&faulty))), ["tool_use", "rag"]);
    assert_eq!(broken(None, Some(list(&[faulty[0], faulty[2]]))), ["tool_use", "rag"]);
    assert_eq!(broken(None, Some(list(&[faulty[0]]))), ["rag"]);
    assert_eq!(broken(Some("{% for"), Some(list(&[("default", "{% for"), faulty[0]]))), ["", "rag"]);
    // One in a file stands for all.
    assert_eq!(broken(Some("{% for"), Some(list(&faulty))), [""]);
    let unnamed = ModelTexts {
        tokenizer_config: Some(r#"{"chat_template": [{"name": "x"}]}"#.to_owned()),
        ..ModelTexts::default()
    };
    assert!(matches!(ChatTemplate::check_all(&unnamed), Err(ChatError::Unnamed)));
    // Without a default one for tools is in nobody's way either, until there are tools.
    let texts = ModelTexts { tokenizer_config: Some(list(&[("tool_use", "{{ x")])), ..ModelTexts::default() };
    let alone = ChatTemplate::new(&texts).unwrap();
    let error = alone.render(&[], &ChatOptions::default()).unwrap_err();
    assert!(matches!(error, ChatError::NoDefault { .. }), "{error:?}");
    let mut options = ChatOptions::default();
    options.extra.insert("tools".to_owned(), json!([1]));
    let error = alone.render(&[], &options).unwrap_err();
    assert!(matches!(error, ChatError::UnreadableNamed { .. }), "{error:?}");
}

#[test]
fn special_tokens_come_from_their_map_where_transformers_reads_it() {
    let texts = |config: &str| ModelTexts {
        chat_template: Some("{{ bos_token }}{{ eos_token }}{{ unk_token }}".to_owned()),
        tokenizer_config: Some(config.to_owned()),
        special_tokens_map: Some(r#"{"bos_token": "<m>", "unk_token": {"content": "<u>"}}"#.to_owned()),
        ..ModelTexts::default()
    };
    let rendered = |config: &str| {
        ChatTemplate::new(&texts(config)).unwrap().render(&[], &ChatOptions::default()).unwrap()
    };
    assert_eq!(rendered(r#"{"eos_token": "</s>"}"#), "<m></s><u>");
    assert_eq!(rendered(r#"{"eos_token": "</s>", "added_tokens_decoder": {}}"#), "</s>");
}

#[test]
fn a_model_may_name_tokens_of_its_own() {
    let texts = ModelTexts {
        chat_template: Some("{{ image_token }}{{ bos_token }}{{ boi_token }}".to_owned()),
        tokenizer_config: Some(
            r#"{"bos_token": "<s>", "extra_special_tokens": {"image_token": "<img>", "boi_token": {"content": "<boi>"}}}"#
                .to_owned(),
        ),
        ..ModelTexts::default()
    };
    let rendered = ChatTemplate::new(&texts).unwrap().render(&[], &ChatOptions::default());
    assert_eq!(rendered.unwrap(), "<img><s><boi>");
}

/// Limits far below the ones in force, and templates that stay harmless without any.
fn limited(text: &str) -> ChatError {
    let limits =
        TemplateLimits { steps: 5000, output_bytes: 2000, nesting: 40, time: Duration::from_secs(60) };
    template(text)
        .with_limits(limits)
        .render(&[ChatMessage::new("user", "Hi")], &ChatOptions::default())
        .unwrap_err()
}

#[test]
fn steps_are_limited() {
    for text in [
        "{% for i in range(3000) %}{% set x = i %}{% endfor %}",
        "{{ ('x' * 500000) | length }}",
        "{{ ([1] * 500000) | length }}",
        "{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(16) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='0123456789abcdef') %}{% for i in range(16) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'x'.center(500000) | length }}",
        "{{ 'x'.ljust(500000) | length }}",
        "{{ 'x'.zfill(500000) | length }}",
        "{{ ('x' | center(500000)) | length }}",
        "{{ ('%500000d' % 1) | length }}",
        "{{ ('%.500000d' % 1) | length }}",
        "{{ ('{:500000}'.format(1)) | length }}",
        "{{ ([1] | tojson(indent=500000)) | length }}",
        "{{ ([1] | tojson(indent=99999999999999999999)) | length }}",
        "{{ ('a\nb' | indent(500000)) | length }}",
        "{{ ('x' * 1000) | replace('x', 'y' * 1000) | length }}",
        "{{ ('x' * 1000).replace('x', 'y' * 1000) | length }}",
        "{{ (range(100) | join('y' * 9000)) | length }}",
        "{{ range(50) | map('center', 9000) | list | length }}",
        "{{ (['x' * 9000] * 60) | sort | length }}",
    ] {
        let error = limited(text);
        assert!(matches!(error, ChatError::Steps { limit: 5000 }), "{text}: {}", whole(&error));
    }
}

#[test]
fn output_is_limited() {
    let print = "{% for i in range(100) %}0123456789012345678901234567890123456789{% endfor %}";
    let within = format!("{{% set x %}}{print}{{% endset %}}");
    let said = "{% for i in range(100) %}{{ '0123456789012345678901234567890123456789' }}{% endfor %}";
    for text in [print, &within, said] {
        let error = limited(text);
        assert!(matches!(error, ChatError::Output { limit: 2000 }), "{text}: {}", whole(&error));
    }
}

#[test]
fn nesting_is_limited() {
    let macros = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(30) }}";
    assert!(whole(&limited(macros)).contains("recursion limit"), "{}", whole(&limited(macros)));
    for build in
        ["[ns.s]", "(ns.s,)", "{'a': ns.s}", "dict(a=ns.s)", "namespace(s=ns.s)", "ns.s | batch(1) | list"]
    {
        let text = format!(
            "{{% set ns = namespace(s=[1]) %}}{{% for i in range(250) %}}{{% set ns.s = {build} %}}{{% endfor %}}"
        );
        let error = template(&text).render(&[], &ChatOptions::default()).unwrap_err();
        assert!(whole(&error).contains("nested deeper than 200"), "{text}: {}", whole(&error));
    }
    for text in [
        format!("{{{{ 1{} }}}}", " + 1".repeat(2500)),
        format!("{{{{ x{} }}}}", ".a".repeat(2500)),
        format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(2500)),
        format!("{{{{ {}{} }}}}", "(".repeat(300), ")".repeat(300)),
    ] {
        let texts = ModelTexts { chat_template: Some(text), ..ModelTexts::default() };
        assert!(matches!(ChatTemplate::new(&texts), Err(ChatError::Unreadable(_))));
    }
    // What is at the bound is still understood, on the stack that there is.
    let long = format!("{{{{ 1{} }}}}", " + 1".repeat(1990));
    assert_eq!(template(&long).render(&[], &ChatOptions::default()).unwrap(), "1991");
}

#[test]
fn a_value_that_repeats_itself_is_limited() {
    let text =
        "{% set ns = namespace(s=[1]) %}{% for i in range(21) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}";
    let error = template(text).render(&[], &ChatOptions::default()).unwrap_err();
    assert!(whole(&error).contains("more than 1000000 values"), "{}", whole(&error));
}

#[test]
fn time_is_limited() {
    let limits = TemplateLimits { time: Duration::ZERO, ..TemplateLimits::default() };
    let text = "{% for m in messages %}{{ m.role == 'user' }}{% endfor %}";
    let error =
        template(text).with_limits(limits).render(&[ChatMessage::new("user", "Hi")], &ChatOptions::default());
    assert!(matches!(error, Err(ChatError::Time { limit: Duration::ZERO })), "{error:?}");
    // What it takes to read the template counts.
    let texts = ModelTexts { chat_template: Some(text.to_owned()), ..ModelTexts::default() };
    let error = ChatTemplate::within(&texts, limits);
    assert!(matches!(error, Err(ChatError::Time { limit: Duration::ZERO })), "{error:?}");
}

#[test]
fn a_panic_of_the_engine_is_an_error() {
    let template =
        template("{{ strftime_now('%Y') }}").with_clock(Arc::new(|_: &str| panic!("no clock here")));
    let error = template.render(&[], &ChatOptions::default()).unwrap_err();
    assert!(matches!(&error, ChatError::Outside(panic) if panic.message == "no clock here"), "{error:?}");
}
