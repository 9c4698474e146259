//! One turn of a conversation.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Names that a model's reasoning is given under; templates read the first, some the second.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One turn: `role`, `content` (text, a list of parts, or nothing) and whatever else a template reads, such as
/// `tool_calls` and `reasoning_content`, in the order given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChatMessage(Map<String, Value>);

impl ChatMessage {
    /// A turn of plain text by `system`, `user`, `assistant` or `tool`.
    pub fn new(role: &str, content: &str) -> ChatMessage {
        let mut fields = Map::new();
        fields.insert("role".to_owned(), role.into());
        fields.insert("content".to_owned(), content.into());
        ChatMessage(fields)
    }

    /// The same turn with another field, such as `thinking`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> ChatMessage {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// A field, such as `role`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// What a template sees: no field that is null, and reasoning under the names that templates read, as the Hub's
    /// library hands it over.
    pub(super) fn seen(&self) -> Value {
        let said = |(name, value): (&String, &Value)| (name.clone(), value.clone());
        let fields: Map<String, Value> =
            self.0.iter().filter(|(_, value)| !value.is_null()).map(said).collect();
        let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() else {
            return Value::Object(fields);
        };
        let mut seen = Map::new();
        seen.insert("thinking".to_owned(), reasoning.clone());
        for (name, value) in fields {
            seen.insert(name, value);
        }
        seen.insert("reasoning_content".to_owned(), reasoning);
        Value::Object(seen)
    }
}
