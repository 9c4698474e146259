//! `/v1/completions`: a text, or tokens, to go on with.

use super::ask::Ask;
use super::error::ApiError;
use super::fields::Fields;
use gq_text::{SpecialText, Tokenizer};
use serde_json::Value;

/// Most of the likeliest tokens that are told.
const TOP: usize = 5;

/// A text that is to be gone on with.
pub(super) struct Completion {
    pub(super) ask: Ask,
    pub(super) logprobs: Option<usize>,
    prompt: Prompt,
}

enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl Completion {
    /// Takes the parameters of this way of asking after those that both have; nothing may be left.
    pub(super) fn take(ask: Ask, mut fields: Fields) -> Result<Completion, ApiError> {
        let logprobs = fields.count("logprobs", 0, TOP)?;
        let prompt = fields.take("prompt").ok_or_else(|| ApiError::param("prompt", "prompt is missing"))?;
        let prompt = take_prompt(prompt, true)?;
        if fields.text("suffix")?.is_some_and(|suffix| !suffix.is_empty()) {
            return Err(ApiError::unsupported("suffix", "suffix is not supported"));
        }
        fields.end()?;
        Ok(Completion { ask, logprobs, prompt })
    }

    /// Its tokens; a text's begin with BOS where the model wants it.
    pub(super) fn prompt(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
        match &self.prompt {
            Prompt::Text(text) => Ok(tokenizer.prompt(text, SpecialText::Plain)?),
            Prompt::Tokens(tokens) => Ok(tokens.clone()),
        }
    }
}

/// A text, a list of token ids, or a list of one of these.
fn take_prompt(value: Value, may_be_list: bool) -> Result<Prompt, ApiError> {
    let wrong = || ApiError::param("prompt", "prompt is neither a string nor a list of token ids");
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::String(text) => Ok(Prompt::Text(text)),
        Value::Array(list) if list.is_empty() => Err(ApiError::param("prompt", "prompt is empty")),
        Value::Array(list) if list.iter().all(Value::is_number) => {
            let tokens = list.iter().map(id).collect::<Option<_>>();
            tokens.map(Prompt::Tokens).ok_or_else(wrong)
        }
        Value::Array(list) if list.len() > 1 && list.iter().all(|one| one.is_string() || one.is_array()) => {
            let message = format!("prompt is a list of {} prompts; only one is supported", list.len());
            Err(ApiError::unsupported("prompt", message))
        }
        Value::Array(mut list) if may_be_list && list.len() == 1 => take_prompt(list.remove(0), false),
        _ => Err(wrong()),
    }
}
