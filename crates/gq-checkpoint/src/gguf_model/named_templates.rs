//! Chat templates with names: a list in `tokenizer_config.json`, a key each in a GGUF, as gguf-py writes them.

use crate::gguf::{Array, GgufError, Metadata, Value as Metadatum};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Names of the templates other than the default.
const NAMES: &str = "tokenizer.chat_templates";
const DEFAULT: &str = "default";

fn key(name: &str) -> String {
    format!("tokenizer.chat_template.{name}")
}

/// Writes the templates of a model: `default`, and those with names in `tokenizer_config.json`, unless `default` is not
/// the one of that list: a file with a template comes before all of it.
///
/// # Errors
/// When two names have the same key, or one has none: keys have letters and digits of ASCII.
pub(super) fn write(metadata: &mut Metadata, config: &Value, default: Option<&str>) -> Result<(), GgufError> {
    if let Some(default) = default {
        metadata.set("tokenizer.chat_template", Metadatum::String(default.to_owned()));
    }
    let list = config.get("chat_template").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let named =
        |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["template"].as_str()?.to_owned()));
    let named: Vec<_> = list.iter().filter_map(named).collect();
    let of_list = |default: &str| named.iter().any(|(name, text)| name == DEFAULT && text == default);
    if !default.is_none_or(of_list) {
        return Ok(());
    }
    // Of a name that stands twice, readers take the last.
    let named: BTreeMap<String, String> = named.into_iter().filter(|(name, _)| name != DEFAULT).collect();
    let mut written: BTreeMap<String, &str> = BTreeMap::new();
    for (name, template) in &named {
        let plain: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let refused = |fault: String| Err(GgufError::TemplateNames { key: key(&plain), fault });
        if plain.is_empty() {
            return refused("a chat template with an empty name".to_owned());
        }
        metadata.set(&key(&plain), Metadatum::String(template.clone()));
        if let Some(first) = written.insert(plain.clone(), name) {
            return refused(format!("both chat templates {first:?} and {name:?}"));
        }
    }
    if !written.is_empty() {
        metadata.set(NAMES, Metadatum::Array(Array::String(written.into_keys().collect())));
    }
    Ok(())
}

/// The default template and those with names.
pub(super) fn all(metadata: &Metadata) -> Vec<&str> {
    let names = metadata.get(NAMES).and_then(Metadatum::as_array).and_then(Array::as_strings);
    let keys = names.into_iter().flatten().map(|name| key(name));
    let keys = std::iter::once("tokenizer.chat_template".to_owned()).chain(keys);
    keys.filter_map(|key| metadata.get(&key).and_then(Metadatum::as_str)).collect()
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
        write(&mut metadata, &config, Some("d")).unwrap();
        assert_eq!(read(&metadata), Some(list));
        // The template of a file is the only one.
        let mut metadata = Metadata::default();
        write(&mut metadata, &config, Some("of a file")).unwrap();
        assert_eq!(read(&metadata), None);
        assert_eq!(metadata.get("tokenizer.chat_template").and_then(Metadatum::as_str), Some("of a file"));
        assert!(metadata.get("tokenizer.chat_template.tool_use").is_none());
    }

    /// As `add_chat_template` of gguf-py writes them.
    #[test]
    fn without_a_default_the_others_go_out_all_the_same() {
        let list = json!([{"name": "rag", "template": "r"}, {"name": "tool-use", "template": "t"}]);
        let mut metadata = Metadata::default();
        write(&mut metadata, &json!({"chat_template": list}), None).unwrap();
        let text = |key: &str| metadata.get(key).and_then(Metadatum::as_str);
        assert_eq!(text("tokenizer.chat_template"), None);
        assert_eq!(text("tokenizer.chat_template.rag"), Some("r"));
        assert_eq!(text("tokenizer.chat_template.tool_use"), Some("t"));
        let names = metadata.get(NAMES).and_then(Metadatum::as_array).and_then(Array::as_strings).unwrap();
        assert_eq!(names, ["rag", "tool_use"]);
        let back = json!([{"name": "rag", "template": "r"}, {"name": "tool_use", "template": "t"}]);
        assert_eq!(read(&metadata), Some(back));
    }

    #[test]
    fn names_that_would_have_one_key_are_refused() {
        let refused = |list: Value| {
            let error = write(&mut Metadata::default(), &json!({"chat_template": list}), None).unwrap_err();
            error.to_string()
        };
        let (first, second) =
            (json!({"name": "tool-use", "template": "a"}), json!({"name": "tool_use", "template": "b"}));
        let said = refused(json!([first, second]));
        assert!(
            said.contains("tokenizer.chat_template.tool_use")
                && said.contains("tool-use")
                && said.contains("has no place for both"),
            "{said}"
        );
        assert!(refused(json!([{"name": "", "template": "a"}])).contains("empty name"));
        // The same name twice is one template, the last, as transformers reads it.
        let mut metadata = Metadata::default();
        let twice = json!([{"name": "x", "template": "a"}, {"name": "x", "template": "b"}]);
        write(&mut metadata, &json!({"chat_template": twice}), None).unwrap();
        assert_eq!(metadata.get("tokenizer.chat_template.x").and_then(Metadatum::as_str), Some("b"));
    }
}
