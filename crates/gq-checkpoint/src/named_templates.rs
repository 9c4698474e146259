//! Chat templates of a folder: files come before what `tokenizer_config.json` says, as in transformers.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Folder of the templates with names, next to `chat_template.jinja`.
pub(crate) const FOLDER: &str = "additional_chat_templates";
/// Name of the template that is not in the folder.
pub(crate) const DEFAULT: &str = "default";

/// The name of the template in a file, given by its path within the checkpoint.
pub(crate) fn template_name(path: &str) -> Option<&str> {
    let name = path.strip_prefix(FOLDER)?.strip_prefix('/')?.strip_suffix(".jinja")?;
    (!name.is_empty() && !name.contains('/')).then_some(name)
}

/// `tokenizer_config.json` with the templates of files: a list where some have names, none where the one file stands
/// for all. `None` where it stays as it is.
///
/// # Errors
/// When it is no JSON.
pub(crate) fn with_files(
    config: Option<&str>,
    default: Option<&str>,
    named: &[(String, String)],
) -> Result<Option<String>, serde_json::Error> {
    if named.is_empty() {
        // One template in the settings is merely not looked at, and whoever reads broken ones says so.
        let parsed = config.filter(|_| default.is_some()).map(serde_json::from_str);
        let Some(Ok(Value::Object(mut config))) = parsed else { return Ok(None) };
        if !config.get("chat_template").is_some_and(Value::is_array) {
            return Ok(None);
        }
        config.shift_remove("chat_template");
        return Ok(Some(format!("{:#}", Value::Object(config))));
    }
    let parsed = config.map(|config| crate::json::parse(config.as_bytes())).transpose()?;
    let mut config = match parsed.unwrap_or_else(|| Value::Object(Map::new())) {
        Value::Object(config) => config,
        _ => return Ok(None),
    };
    let entry = |name: &str, template: &str| json!({"name": name, "template": template});
    let first = default.map(|template| entry(DEFAULT, template));
    let others = named.iter().map(|(name, template)| entry(name, template));
    config.insert("chat_template".to_owned(), first.into_iter().chain(others).collect());
    Ok(Some(format!("{:#}", Value::Object(config))))
}

/// The list of templates with names in `tokenizer_config.json`.
pub(crate) fn list(config: Option<&str>) -> Option<Value> {
    let config: Value = crate::json::parse(config?.as_bytes()).ok()?;
    config.get("chat_template").filter(|list| list.is_array()).cloned()
}

/// `tokenizer_config.json` with this list of templates, or with none. What is not to be changed stays as it is written,
/// and so does what is no JSON, which is refused where it is used.
pub(crate) fn with_list(config: Option<String>, list: Option<&Value>) -> Option<String> {
    let Some(text) = config else { return list.map(|list| json!({"chat_template": list}).to_string()) };
    let parsed = crate::json::parse(text.as_bytes());
    let Ok(Value::Object(mut config)) = parsed else { return Some(text) };
    let has = config.get("chat_template").filter(|has| has.is_array());
    if has == list {
        return Some(text);
    }
    match list {
        Some(list) => drop(config.insert("chat_template".to_owned(), list.clone())),
        None => drop(config.shift_remove("chat_template")),
    }
    Some(format!("{:#}", Value::Object(config)))
}

/// Every template by its name, as a conversation may choose it. A file with a template comes before the list, unless it
/// is the default of it.
pub(crate) fn by_name(single: Option<&str>, list: Option<&Value>) -> BTreeMap<String, String> {
    let text = |entry: &Value, key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let listed = list.and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(|entry| Some((text(entry, "name")?, text(entry, "template")?)));
    let listed: BTreeMap<String, String> = listed.collect();
    match single {
        Some(single) if listed.get(DEFAULT).is_none_or(|default| default != single) => {
            BTreeMap::from([(DEFAULT.to_owned(), single.to_owned())])
        }
        _ => listed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_comes_and_goes_and_the_rest_stays() {
        let list_of = |name: &str| json!([{"name": name, "template": "t"}]);
        let text = json!({"a": 1, "chat_template": list_of("x")}).to_string();
        assert_eq!(list(Some(&text)), Some(list_of("x")));
        assert_eq!(with_list(Some(text.clone()), Some(&list_of("x"))), Some(text.clone()));
        let changed = with_list(Some(text.clone()), Some(&list_of("y"))).unwrap();
        assert_eq!(list(Some(&changed)), Some(list_of("y")));
        let without = with_list(Some(text), None).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&without).unwrap(), json!({"a": 1}));
        // One template without a name is no list.
        let one = r#"{"chat_template":"x"}"#.to_owned();
        assert_eq!((list(Some(&one)), with_list(Some(one.clone()), None)), (None, Some(one)));
        assert_eq!(list(with_list(None, Some(&list_of("x"))).as_deref()), Some(list_of("x")));
        assert_eq!((with_list(None, None), with_list(Some("{".into()), None)), (None, Some("{".into())));
    }

    #[test]
    fn templates_by_name_as_they_are_chosen() {
        let both = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
        let names = |single| by_name(single, Some(&both)).into_values().collect::<Vec<_>>();
        assert_eq!(names(Some("d")), ["d", "t"]);
        assert_eq!(names(None), ["d", "t"]);
        assert_eq!(names(Some("of a file")), ["of a file"]);
        assert!(by_name(None, None).is_empty());
    }

    #[test]
    fn names_of_files() {
        assert_eq!(template_name("additional_chat_templates/tool_use.jinja"), Some("tool_use"));
        for other in
            ["chat_template.jinja", "additional_chat_templates/.jinja", "additional_chat_templates/x"]
        {
            assert_eq!(template_name(other), None, "{other}");
        }
    }

    /// As `_from_pretrained` of transformers does it.
    #[test]
    fn files_come_before_settings() {
        let list = json!([{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]);
        let settings = json!({"a": 1, "chat_template": list}).to_string();
        let with = |default: Option<&str>, named: &[(String, String)]| {
            let text = with_files(Some(&settings), default, named).unwrap();
            text.map(|text| serde_json::from_str::<Value>(&text).unwrap())
        };
        let tools = [("tool_use".to_owned(), "u".to_owned())];
        assert_eq!(with(None, &[]), None);
        assert_eq!(with(Some("d"), &[]), Some(json!({"a": 1})));
        let listed = |list: Value| Some(json!({"a": 1, "chat_template": list}));
        let (default, used) =
            (json!({"name": "default", "template": "f"}), json!({"name": "tool_use", "template": "u"}));
        assert_eq!(with(Some("f"), &tools), listed(json!([default, used])));
        assert_eq!(with(None, &tools), listed(json!([used])));
        assert_eq!(with_files(Some(r#"{"chat_template":"x"}"#), Some("f"), &[]).unwrap(), None);
        assert!(with_files(None, Some("f"), &tools).unwrap().unwrap().contains("tool_use"));
        assert!(with_files(Some("{"), Some("f"), &tools).is_err());
        assert_eq!(with_files(Some("{"), Some("f"), &[]).unwrap(), None);
    }
}
