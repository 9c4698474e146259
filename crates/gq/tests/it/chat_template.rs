//! Chat templates that ask for the date, that write no BOS, that have no end; shown by `inspect --render-chat`.

use crate::run::{Gq, testdata};
use serde_json::{Value, json};

/// The demo model with another chat template, in `m`.
fn with_template(template: &str) -> Gq {
    let gq = Gq::new();
    let folder = gq.path("m");
    std::fs::create_dir(&folder).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(format!("{}/{name}", testdata("demo")), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("chat_template.jinja"), template).unwrap();
    gq
}

const DATED: &str = "{{ bos_token }}<|turn>system\nToday is {{ strftime_now('%d %B %Y') }}.<turn|>\n\
    {% for m in messages %}<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n{% endfor %}\
    {% if add_generation_prompt %}<|turn>model\n{% endif %}";

#[test]
fn a_template_may_ask_for_the_date() {
    let gq = with_template(DATED);
    std::fs::write(gq.path("c.json"), r#"[{"role": "user", "content": "Hello"}]"#).unwrap();
    let expected =
        "<bos><|turn>system\nToday is 23 December 1815.<turn|>\n<|turn>user\nHello<turn|>\n<|turn>model\n";
    let asked = ["inspect", "m", "--render-chat=c.json", "--date", "1815-12-23"];
    assert_eq!(gq.ok(&asked), expected);
    let today = gq.ok(&["inspect", "m", "--render-chat=c.json"]);
    assert!(today.contains("Today is ") && !today.contains("1815"), "{today}");
    let shown = gq.fails(2, &["inspect", "m", "--render-chat", "--date", "yesterday"]);
    assert!(shown.contains("'yesterday' is no date"), "{shown}");
    // It converts, and everything that renders chats goes on.
    gq.ok(&["convert", "m", "-o", "d.gq"]);
    assert_eq!(gq.ok(&["inspect", "d.gq", "--render-chat=c.json", "--date", "1815-12-23"]), expected);
    let tokens = |date: &str, model: &str| {
        gq.json(&["run", model, "--chat", "-p", "Hello", "-n", "1", "--date", date])["prompt_tokens"].clone()
    };
    let dated = gq.json(&["inspect", "m", "--render-chat=c.json", "--date", "1815-12-23"])["tokens"].clone();
    assert_eq!(tokens("1815-12-23", "d.gq"), dated);
    assert_ne!(tokens("1816-12-23", "d.gq"), dated);
    gq.ok(&["run", "m", "--chat", "-p", "Hello", "-n", "1"]);
    gq.ok(&[
        "eval",
        "d.gq",
        "--reference",
        "m",
        "--self",
        "--windows",
        "1",
        "--ctx",
        "32",
        "--cache-limit",
        "0",
    ]);
    // A Modelfile cannot say the date, but where an answer ends.
    gq.ok(&["export", "m", "--gguf", "--ollama", "--no-measure", "-o", "d.gguf"]);
    let modelfile = std::fs::read_to_string(gq.path("d.Modelfile")).unwrap();
    assert!(
        modelfile.contains("PARAMETER stop \"<turn|>\"") && !modelfile.contains("TEMPLATE"),
        "{modelfile}"
    );
}

/// Tokens by `apply_chat_template(…, tokenize=True)` of transformers 5.23.
#[test]
fn nothing_is_put_in_front_of_a_rendered_chat() {
    let gq = with_template(
        "{% for m in messages %}<|turn>{{ m['role'] }}\n{{ m['content'] }}<turn|>\n{% endfor %}\
         {% if add_generation_prompt %}<|turn>model\n{% endif %}",
    );
    std::fs::write(gq.path("c.json"), r#"[{"role": "user", "content": "Hello there"}]"#).unwrap();
    let expected = json!([3, 477, 272, 203, 44, 570, 83, 481, 4, 203, 3, 81, 574, 498, 203]);
    assert_eq!(gq.json(&["inspect", "m", "--render-chat=c.json"])["tokens"], expected);
    let answered = gq.json(&["run", "m", "--chat", "-p", "Hello there", "-n", "1"]);
    assert_eq!(answered["prompt_tokens"], expected);
    let gq = with_template(&std::fs::read_to_string(testdata("demo/chat_template.jinja")).unwrap());
    std::fs::write(gq.path("c.json"), r#"[{"role": "user", "content": "Hello there"}]"#).unwrap();
    let mut whole = expected.as_array().unwrap().clone();
    whole.insert(0, Value::from(2));
    assert_eq!(gq.json(&["inspect", "m", "--render-chat=c.json"])["tokens"], Value::from(whole));
}

#[test]
fn fields_of_messages_are_what_the_reference_hands_over() {
    let gq = with_template("{% for m in messages %}{{ m }}\n{% endfor %}{{ tools }} {{ enable_thinking }}");
    let conversation = json!({
        "messages": [
            {"content": null, "role": "assistant", "tool_calls": [{"x": 1.0}], "reasoning": "so"},
            {"role": "user", "content": [{"type": "text", "text": "it's"}]},
        ],
        "tools": [{"name": "t"}],
        "enable_thinking": false,
        "add_generation_prompt": false,
    });
    std::fs::write(gq.path("c.json"), conversation.to_string()).unwrap();
    // By transformers 5.23.
    let expected = "{'thinking': 'so', 'role': 'assistant', 'tool_calls': [{'x': 1.0}], 'reasoning': 'so', \
        'reasoning_content': 'so'}\n{'role': 'user', 'content': [{'type': 'text', 'text': \"it's\"}]}\n\
        [{'name': 't'}] False";
    assert_eq!(gq.ok(&["inspect", "m", "--render-chat=c.json"]), expected);
}

#[test]
fn a_template_without_an_end_is_one_clear_error() {
    // Ends by itself, but not within the steps that are allowed.
    let gq = with_template(
        "{% for a in range(3000) %}{% for b in range(3000) %}{% set x = b %}{% endfor %}{% endfor %}",
    );
    let shown = gq.fails(3, &["inspect", "m", "--render-chat"]);
    assert!(shown.contains("takes more than 8000000 steps"), "{shown}");
    let output = gq.run(&["inspect", "m", "--render-chat", "--json"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&told["error"]["code"], &told["error"]["limit"]),
        (&json!("chat_template.limit"), &json!("8000000 steps"))
    );
}

/// Templates for tools: in files as transformers writes them now, in the list of the settings as it did before, and in
/// both, where the files count.
#[test]
fn templates_with_names_are_read_where_transformers_reads_them() {
    let gq = with_template("default of the file");
    std::fs::create_dir(gq.path("m/additional_chat_templates")).unwrap();
    std::fs::write(gq.path("m/additional_chat_templates/tool_use.jinja"), "tools of the file").unwrap();
    let settings = gq.path("m/tokenizer_config.json");
    let plain: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
    let list = json!([
        {"name": "default", "template": "default of the file"},
        {"name": "tool_use", "template": "tools of the list"}
    ]);
    let mut listed = plain.clone();
    listed["chat_template"] = list;
    std::fs::write(gq.path("c.json"), r#"{"messages": [], "tools": [1]}"#).unwrap();
    let rendered = |model: &str| {
        [&["--render-chat"][..], &["--render-chat=c.json"]]
            .map(|how| gq.ok(&[&["inspect", model][..], how].concat()))
    };
    let expected = ["default of the file", "tools of the file"];
    assert_eq!(rendered("m"), expected);
    std::fs::write(&settings, listed.to_string()).unwrap();
    assert_eq!(rendered("m"), expected);
    // Through a file and back they stay what they are.
    gq.ok(&["convert", "m", "-o", "m.gq", "-e", "tq4", "--no-grid"]);
    assert_eq!(rendered("m.gq"), expected);
    gq.ok(&["export", "m.gq", "--safetensors", "--no-measure", "-o", "back"]);
    assert!(!gq.path("back/chat_template.jinja").exists());
    assert_eq!(rendered("back"), expected);
    gq.ok(&["export", "m.gq", "--gguf", "--no-measure", "-o", "back.gguf"]);
    assert_eq!(rendered("back.gguf"), expected);
    // Taken out, none comes back from the settings.
    gq.ok(&["meta", "set", "m.gq", "--remove", "chat_template", "-o", "none.gq"]);
    let said = gq.fails(3, &["inspect", "none.gq", "--render-chat"]);
    assert!(said.contains("no chat template"), "{said}");
    // The one file hides the whole list.
    std::fs::remove_dir_all(gq.path("m/additional_chat_templates")).unwrap();
    assert_eq!(rendered("m"), ["default of the file"; 2]);
    std::fs::remove_file(gq.path("m/chat_template.jinja")).unwrap();
    assert_eq!(rendered("m"), ["default of the file", "tools of the list"]);
}
