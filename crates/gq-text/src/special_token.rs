//! How configurations spell a special token.

use serde_json::Value;

/// A special token of `tokenizer_config.json`: a string, or an object with its content.
pub(crate) fn special_token(config: &Value, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}
