//! Parameters of a request, taken one by one; what is left over at the end is not known.

use super::error::ApiError;
use serde_json::{Map, Value};

/// Parameters that change nothing of what is answered here.
const IGNORED: [&str; 8] = [
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
];

/// Parameters that are not done, but whose neutral values are accepted.
const NEUTRAL: [(&str, &[&str]); 8] = [
    ("n", &["1"]),
    ("best_of", &["1"]),
    ("echo", &["false"]),
    ("presence_penalty", &["0", "0.0"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("logit_bias", &["{}"]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("modalities", &["[\"text\"]"]),
];

/// A request's JSON object.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Parses a body.
    pub(super) fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        let value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the body is no valid JSON: {error}")))?;
        match value {
            Value::Object(map) => Ok(Fields(map)),
            _ => Err(ApiError::invalid("the body is no JSON object")),
        }
    }

    /// A parameter; null is none.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| ApiError::param(name, format!("{name} is neither true nor false")))
    }

    /// A whole number in a range.
    pub(super) fn count(&mut self, name: &str, least: usize, most: usize) -> Result<Option<usize>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        let Some(number) = number else {
            return Err(ApiError::param(name, format!("{name} is no whole number of 0 or more")));
        };
        match (least..=most).contains(&number) {
            true => Ok(Some(number)),
            false if most == usize::MAX => {
                Err(ApiError::param(name, format!("{name} is {number}, {least} is the least")))
            }
            false => Err(ApiError::param(name, format!("{name} is {number}, allowed is {least} to {most}"))),
        }
    }

    /// A number in a range.
    pub(super) fn number(&mut self, name: &str, least: f64, most: f64) -> Result<Option<f32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let Some(number) = value.as_f64() else {
            return Err(ApiError::param(name, format!("{name} is no number")));
        };
        match number >= least && number <= most {
            true => Ok(Some(number as f32)),
            false => Err(ApiError::param(name, format!("{name} is {number}, allowed is {least} to {most}"))),
        }
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(ApiError::param(name, format!("{name} is no string"))),
        }
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(ApiError::param(name, format!("{name} is no object"))),
        }
    }

    /// Refuses what is left: what is not done, and what is not known.
    pub(super) fn end(mut self) -> Result<(), ApiError> {
        for name in IGNORED {
            self.0.shift_remove(name);
        }
        for (name, neutral) in NEUTRAL {
            let Some(value) = self.take(name) else { continue };
            let text = value.to_string();
            if !neutral.contains(&text.as_str()) {
                let (of, value) = (neutral[0], text.chars().take(80).collect::<String>());
                return Err(ApiError::unsupported(
                    name,
                    format!("{name} is {value}; only {of} is supported"),
                ));
            }
        }
        match self.0.into_iter().find(|(_, value)| !value.is_null()) {
            None => Ok(()),
            Some((name, _)) => {
                let name: String = name.chars().take(80).collect();
                let message = format!("unrecognized request argument supplied: {name}");
                Err(ApiError::unsupported(&name, message))
            }
        }
    }
}
