//! Chat templates of a folder: files come before what `tokenizer_config.json` says, as in transformers.

use serde_json::{Map, Value, json};

/// Folder of the templates with names, next to `chat_template.jinja`.
pub(crate) const FOLDER: &str = "additional_chat_templates";
/// Name of the template that is not in the folder.
const DEFAULT: &str = "default";

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

#[cfg(test)]
mod tests {
    use super::*;

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
