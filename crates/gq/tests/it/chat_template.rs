//! Chat templates that ask for the date, that write no BOS, that have no end; shown by `inspect --render-chat`.

use crate::run::{Gq, testdata};
use gq_checkpoint::gguf::{Array, Gguf, Value as Metadatum};
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

/// Whether templates lie in the list of the settings or in files, with a default and without.
#[test]
fn every_template_that_cannot_be_read_is_called_by_its_name() {
    for (listed, default) in [(true, true), (true, false), (false, true), (false, false)] {
        let gq = with_template("{% for m in messages %}{{ m['content'] }}{% endfor %}");
        let standing = std::fs::read_to_string(gq.path("m/chat_template.jinja")).unwrap();
        let settings = gq.path("m/tokenizer_config.json");
        let plain: Value = serde_json::from_slice(&std::fs::read(&settings).unwrap()).unwrap();
        let named = [("rag", "{% for"), ("tool_use", "{{ tools")];
        if !default || listed {
            std::fs::remove_file(gq.path("m/chat_template.jinja")).unwrap();
        }
        if listed {
            let first = default.then_some(("default", standing.as_str()));
            let entry = |(name, template): (&str, &str)| json!({"name": name, "template": template});
            let mut all = plain;
            all["chat_template"] = first.into_iter().chain(named).map(entry).collect();
            std::fs::write(&settings, all.to_string()).unwrap();
        } else {
            std::fs::create_dir(gq.path("m/additional_chat_templates")).unwrap();
            for (name, template) in named {
                let path = gq.path(&format!("m/additional_chat_templates/{name}.jinja"));
                std::fs::write(path, template).unwrap();
            }
        }
        let case = format!("listed {listed}, default {default}");
        let both =
            |said: &str| ["rag", "tool_use"].iter().all(|name| said.contains(&format!("named {name} ")));
        let warned = |args: &[&str]| {
            let output = gq.run(args);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && both(&said), "{case}: {args:?}: {said}");
        };
        warned(&["convert", "m", "-o", "m.gq", "-e", "tq4", "--no-grid"]);
        let said = gq.fails(1, &["verify", "m.gq"]);
        assert!(both(&said) && said.contains("cannot be read"), "{case}: {said}");
        warned(&["export", "m.gq", "--gguf", "--no-measure", "-o", "out.gguf"]);
        warned(&["export", "m", "--safetensors", "--no-measure", "-o", "out"]);
        // In nobody's way until a conversation asks for one.
        gq.ok(&["run", "m.gq", "--raw", "-p", "x", "-n", "1"]);
        std::fs::write(gq.path("c.json"), r#"{"messages": [], "tools": [1]}"#).unwrap();
        let said = gq.fails(3, &["inspect", "m.gq", "--render-chat=c.json"]);
        assert!(said.contains("named tool_use") && !said.contains("rag"), "{case}: {said}");
        match default {
            true => drop(gq.ok(&["run", "m.gq", "--chat", "-p", "x", "-n", "1"])),
            false => {
                let said = gq.fails(3, &["run", "m.gq", "--chat", "-p", "x", "-n", "1"]);
                assert!(said.contains("for other uses alone: rag, tool_use"), "{case}: {said}");
            }
        }
        // One that is new is refused, what is there is in the way of no other change, and whole ones are fine.
        gq.ok(&["meta", "set", "m.gq", "generation_config.temperature=0.5"]);
        let list = |template: &str| {
            let list = json!([{"name": "default", "template": "d"}, {"name": "more", "template": template}]);
            format!("tokenizer_config.chat_template={list}")
        };
        let said = gq.fails(3, &["meta", "set", "m.gq", "chat_template=d", &list("{% if")]);
        assert!(said.contains("named more"), "{case}: {said}");
        gq.ok(&["meta", "set", "m.gq", "chat_template=d", &list("whole")]);
        gq.ok(&["verify", "m.gq"]);
    }
}

/// As gguf-py writes them: a key each and their names, whether there is a default or not.
#[test]
fn templates_without_a_default_go_into_a_gguf_and_come_out() {
    let gq = with_template("");
    std::fs::remove_file(gq.path("m/chat_template.jinja")).unwrap();
    std::fs::create_dir(gq.path("m/additional_chat_templates")).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(gq.path(&format!("m/additional_chat_templates/{name}.jinja")), text).unwrap();
    };
    write("tool_use", "for tools");
    write("rag", "for documents");
    std::fs::write(gq.path("c.json"), r#"{"messages": [], "tools": [1]}"#).unwrap();
    gq.ok(&["export", "m", "--gguf", "--no-measure", "-o", "m.gguf"]);
    let gguf = Gguf::open(gq.path("m.gguf")).unwrap();
    let text = |key: &str| gguf.metadata().get(key).and_then(Metadatum::as_str).map(str::to_owned);
    assert_eq!(text("tokenizer.chat_template"), None);
    assert_eq!(text("tokenizer.chat_template.rag").as_deref(), Some("for documents"));
    let names = gguf.metadata().get("tokenizer.chat_templates").and_then(Metadatum::as_array);
    assert_eq!(names.and_then(Array::as_strings).unwrap(), ["rag", "tool_use"]);
    gq.ok(&["convert", "m.gguf", "-o", "m.gq", "-e", "tq4", "--no-grid", "--allow-requantize"]);
    assert_eq!(gq.ok(&["inspect", "m.gq", "--render-chat=c.json"]), "for tools");
    // All of them can be taken out, though there is no text of that name.
    let output = gq.run(&["meta", "set", "m.gq", "--remove", "chat_template", "-o", "none.gq"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && said.contains("taken out of tokenizer_config: rag, tool_use"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("changed tokenizer_config"), "{output:?}");
    let said = gq.fails(3, &["inspect", "none.gq", "--render-chat=c.json"]);
    assert!(said.contains("no chat template"), "{said}");
    let said = gq.fails(3, &["meta", "set", "none.gq", "--remove", "chat_template"]);
    assert!(said.contains("the file has no chat_template"), "{said}");
    // Two names of which the format makes one.
    write("tool-use", "other tools");
    let said = gq.fails(3, &["export", "m", "--gguf", "--no-measure", "-o", "two.gguf"]);
    assert!(
        said.contains("\"tool-use\" and \"tool_use\"") && said.contains("additional_chat_templates"),
        "{said}"
    );
    assert!(!gq.path("two.gguf").exists());
}
