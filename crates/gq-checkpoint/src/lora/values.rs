//! Values of options: names, patterns, what is switched off.

use super::AdapterError;
use regex::{Regex, RegexBuilder};
use serde_json::Value;

/// Whether a module is `name` or is called so in something.
pub(super) fn ends_with(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

/// Whether a value is as good as leaving its option out.
pub(super) fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// A list of names.
pub(super) fn names(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Compiles `whole`, made from the option's `pattern`.
pub(super) fn regex(option: &'static str, pattern: &str, whole: &str) -> Result<Regex, AdapterError> {
    RegexBuilder::new(whole).size_limit(1 << 20).build().map_err(|error| {
        // The last line says what is wrong, those before it draw the pattern.
        let message = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
        AdapterError::Pattern { option, pattern: pattern.to_owned(), message }
    })
}
