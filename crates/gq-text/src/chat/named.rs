//! Which of a model's chat templates a conversation is rendered by.

use super::ChatError;
use crate::texts::ModelTexts;
use serde_json::Value;
use std::collections::BTreeMap;

/// The templates of a model, as they are written.
#[derive(Clone, Debug, Default)]
pub(super) struct Templates {
    /// The one for conversations without tools, and with them where there is none of their own.
    pub default: Option<String>,
    /// The one named `tool_use`.
    pub tool_use: Option<String>,
    /// All names, sorted; empty where there is one template without a name.
    pub names: Vec<String>,
    /// What has a name other than these, which only programs that ask for it by name use.
    pub others: BTreeMap<String, String>,
}

impl Templates {
    /// `settings` is `tokenizer_config.json`, where templates may have names.
    ///
    /// # Errors
    /// Where there is neither a template nor a list, or something in the list is no template.
    pub fn of(texts: &ModelTexts, settings: &Value) -> Result<Templates, ChatError> {
        let single = texts.chat_template.clone();
        let Some(list) = settings.get("chat_template").and_then(Value::as_array) else {
            let default = Some(single.ok_or(ChatError::Missing)?);
            return Ok(Templates { default, ..Templates::default() });
        };
        let mut named = BTreeMap::new();
        let mut unnamed = false;
        for entry in list {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
            match (text("name"), text("template")) {
                (Some(name), Some(template)) => drop(named.insert(name, template)),
                _ => unnamed = true,
            }
        }
        let default = named.get("default").cloned();
        // A file with a template comes before the settings, whatever names they have.
        if single.is_some() && single != default {
            return Ok(Templates { default: single, ..Templates::default() });
        }
        if unnamed {
            return Err(ChatError::Unnamed);
        }
        let names = named.keys().cloned().collect();
        named.remove("default");
        let tool_use = named.remove("tool_use");
        Ok(Templates { default, tool_use, names, others: named })
    }

    /// The same, as far as there is one that a conversation may choose.
    ///
    /// # Errors
    /// Where there is none.
    pub fn usable(self) -> Result<Templates, ChatError> {
        match &self {
            Templates { default: None, tool_use: None, names, .. } if names.is_empty() => {
                Err(ChatError::Missing)
            }
            Templates { default: None, tool_use: None, names, .. } => {
                Err(ChatError::NoDefault { names: names.clone() })
            }
            _ => Ok(self),
        }
    }

    /// Every one with its name, the default without.
    pub fn each(&self) -> impl Iterator<Item = (Option<&str>, &str)> {
        let default = self.default.as_deref().map(|template| (None, template));
        let tool_use = self.tool_use.as_deref().map(|template| (Some("tool_use"), template));
        let others = self.others.iter().map(|(name, template)| (Some(name.as_str()), template.as_str()));
        default.into_iter().chain(tool_use).chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(single: Option<&str>, list: Value) -> Result<Templates, ChatError> {
        let texts = ModelTexts { chat_template: single.map(str::to_owned), ..ModelTexts::default() };
        Templates::of(&texts, &json!({"chat_template": list})).and_then(Templates::usable)
    }

    fn named(name: &str) -> Value {
        json!({"name": name, "template": format!("for {name}")})
    }

    #[test]
    fn names_count_unless_a_file_comes_before_them() {
        let both = json!([named("tool_use"), named("default"), named("rag")]);
        let found = of(Some("for default"), both.clone()).unwrap();
        assert_eq!(found.tool_use.as_deref(), Some("for tool_use"));
        assert_eq!(found.names, ["default", "rag", "tool_use"]);
        let each: Vec<_> = found.each().collect();
        let all = [(None, "for default"), (Some("tool_use"), "for tool_use"), (Some("rag"), "for rag")];
        assert_eq!(each, all);
        let found = of(Some("of a file"), both).unwrap();
        assert_eq!((found.default.as_deref(), found.tool_use), (Some("of a file"), None));
        let found = of(None, json!([named("tool_use")])).unwrap();
        assert_eq!((found.default, found.tool_use.as_deref()), (None, Some("for tool_use")));
    }

    #[test]
    fn lists_that_name_nothing_to_use_are_refused() {
        assert!(matches!(
            of(None, json!([named("rag"), named("a")])),
            Err(ChatError::NoDefault { names }) if names == ["a", "rag"]
        ));
        assert!(matches!(of(None, json!([])), Err(ChatError::Missing)));
        assert!(matches!(of(None, json!([{"name": "default"}])), Err(ChatError::Unnamed)));
        assert!(of(Some("d"), json!([named("tool_use"), 1])).unwrap().tool_use.is_none());
        assert!(matches!(of(None, Value::Null), Err(ChatError::Missing)));
    }
}
