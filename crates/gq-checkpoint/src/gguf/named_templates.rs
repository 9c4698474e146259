//! Chat templates with names: a list in `tokenizer_config.json`, a key each in a GGUF, as gguf-py writes them.

use super::{Array, Metadata, Value as Metadatum};
use serde_json::{Value, json};

/// Names of the templates other than the default.
const NAMES: &str = "tokenizer.chat_templates";
const DEFAULT: &str = "default";

fn key(name: &str) -> String {
    format!("tokenizer.chat_template.{name}")
}

/// Writes the named templates of `tokenizer_config.json`, where `default` is the one of the list: a file with a template
/// comes before all of it.
pub(super) fn write(metadata: &mut Metadata, config: &Value, default: &str) {
    let list = config.get("chat_template").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let named =
        |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["template"].as_str()?.to_owned()));
    let named: Vec<_> = list.iter().filter_map(named).collect();
    if !named.iter().any(|(name, template)| name == DEFAULT && template == default) {
        return;
    }
    let mut names: Vec<String> = Vec::new();
    for (name, template) in named.into_iter().filter(|(name, _)| name != DEFAULT) {
        let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        metadata.set(&key(&name), Metadatum::String(template));
        names.push(name);
    }
    names.sort();
    names.dedup();
    if !names.is_empty() {
        metadata.set(NAMES, Metadatum::Array(Array::String(names)));
    }
}

/// The list that these were written from, the default in it; `None` where there are no names.
pub(super) fn read(metadata: &Metadata) -> Option<Value> {
    let names = metadata.get(NAMES).and_then(Metadatum::as_array).and_then(Array::as_strings)?;
    let text = |key: &str| metadata.get(key).and_then(Metadatum::as_str);
    let named = names.iter().filter_map(|name| Some(json!({"name": name, "template": text(&key(name))?})));
    let default =
        text("tokenizer.chat_template").map(|template| json!({"name": DEFAULT, "template": template}));
    let list: Vec<Value> = default.into_iter().chain(named).collect();
    (!list.is_empty()).then_some(Value::Array(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_templates_go_out_and_come_back() {
        let list = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
        let config = json!({"chat_template": list});
        let mut metadata = Metadata::default();
        write(&mut metadata, &config, "d");
        metadata.set("tokenizer.chat_template", Metadatum::String("d".to_owned()));
        assert_eq!(read(&metadata), Some(list));
        // The template of a file is the only one.
        let mut metadata = Metadata::default();
        write(&mut metadata, &config, "of a file");
        assert_eq!(read(&metadata), None);
        assert!(metadata.get("tokenizer.chat_template.tool_use").is_none());
    }
}
