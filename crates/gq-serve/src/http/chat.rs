//! `/v1/chat/completions`: a conversation to a prompt.

use super::ask::Ask;
use super::error::ApiError;
use super::fields::Fields;
use gq_text::{ChatMessage, ChatOptions, ChatTemplate, SpecialText, Tokenizer};
use serde_json::{Map, Value};

/// Most of the likeliest tokens that are told.
const TOP: usize = 20;

/// A conversation that is to be answered.
pub(super) struct Chat {
    pub(super) ask: Ask,
    pub(super) logprobs: Option<usize>,
    messages: Vec<ChatMessage>,
    options: ChatOptions,
}

impl Chat {
    /// Takes the parameters of this way of asking after those that both have; nothing may be left.
    pub(super) fn take(ask: Ask, mut fields: Fields) -> Result<Chat, ApiError> {
        let top = fields.count("top_logprobs", 0, TOP)?;
        let logprobs = match (fields.flag("logprobs")?.unwrap_or(false), top) {
            (true, top) => Some(top.unwrap_or(0)),
            (false, Some(1..)) => {
                return Err(ApiError::param("top_logprobs", "top_logprobs needs \"logprobs\": true"));
            }
            (false, _) => None,
        };
        let messages = match fields.take("messages") {
            Some(Value::Array(list)) if !list.is_empty() => {
                let message = |(index, value)| take_message(index, value);
                list.into_iter().enumerate().map(message).collect::<Result<_, _>>()?
            }
            Some(Value::Array(_)) => return Err(ApiError::param("messages", "messages is empty")),
            Some(_) => return Err(ApiError::param("messages", "messages is no list")),
            None => return Err(ApiError::param("messages", "messages is missing")),
        };
        let mut extra = fields.object("chat_template_kwargs")?.unwrap_or_default();
        if let Some(name) =
            ["messages", "tools", "add_generation_prompt"].into_iter().find(|name| extra.contains_key(*name))
        {
            let message = format!("chat_template_kwargs.{name} is no variable of its own");
            return Err(ApiError::param("chat_template_kwargs", message));
        }
        if let Some(effort) = fields.text("reasoning_effort")? {
            extra.insert("reasoning_effort".to_owned(), effort.into());
        }
        if let Some(tools) = take_tools(&mut fields)? {
            extra.insert("tools".to_owned(), tools);
        }
        fields.end()?;
        Ok(Chat { ask, logprobs, messages, options: ChatOptions { add_generation_prompt: true, extra } })
    }

    /// The prompt.
    pub(super) fn prompt(
        &self,
        template: Option<&ChatTemplate>,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<u32>, ApiError> {
        let template = template.ok_or(gq_text::ChatError::Missing)?;
        let text = template.render(&self.messages, &self.options)?;
        Ok(tokenizer.encode(&text, SpecialText::Parsed)?)
    }
}

fn take_tools(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let tools = match fields.take("tools") {
        None => None,
        Some(Value::Array(list)) if list.is_empty() => None,
        Some(Value::Array(list)) if list.iter().all(Value::is_object) => Some(Value::Array(list)),
        Some(_) => return Err(ApiError::param("tools", "tools is no list of objects")),
    };
    match fields.take("tool_choice") {
        None => Ok(tools),
        Some(Value::String(choice)) if choice == "auto" => Ok(tools),
        Some(Value::String(choice)) if choice == "none" => Ok(None),
        Some(_) => Err(ApiError::unsupported(
            "tool_choice",
            "tool_choice is \"auto\" or \"none\": a model is not made to call a tool",
        )),
    }
}

/// A turn as templates read it: text in one piece, arguments of calls as objects.
fn take_message(index: usize, value: Value) -> Result<ChatMessage, ApiError> {
    let name = |field: &str| format!("messages[{index}]{field}");
    let Value::Object(mut message) = value else {
        return Err(ApiError::param(&name(""), format!("{} is no object", name(""))));
    };
    if !message.get("role").is_some_and(Value::is_string) {
        return Err(ApiError::param(&name(".role"), format!("{} is no string", name(".role"))));
    }
    if let Some(content) = message.get_mut("content") {
        let part = name(".content");
        match content {
            Value::Null | Value::String(_) => {}
            Value::Array(parts) => *content = Value::String(joined(parts, &part)?),
            _ => {
                return Err(ApiError::param(
                    &part,
                    format!("{part} is neither a string nor a list of parts"),
                ));
            }
        }
    }
    match message.get_mut("tool_calls") {
        None | Some(Value::Null) => {}
        Some(Value::Array(calls)) => calls.iter_mut().for_each(parse_arguments),
        Some(_) => {
            let part = name(".tool_calls");
            return Err(ApiError::param(&part, format!("{part} is no list")));
        }
    }
    let message = serde_json::from_value(Value::Object(message));
    message.map_err(|error| ApiError::param(&name(""), format!("{}: {error}", name(""))))
}

/// Parts of a text, a line each.
fn joined(parts: &[Value], place: &str) -> Result<String, ApiError> {
    let text = |(index, part): (usize, &Value)| -> Result<String, ApiError> {
        let kind = part.get("type").and_then(Value::as_str);
        match (kind, part.get("text").and_then(Value::as_str)) {
            (Some("text"), Some(text)) => Ok(text.to_owned()),
            (Some("text") | None, _) => {
                Err(ApiError::param(place, format!("{place}[{index}] is no part with a type and a text")))
            }
            (Some(kind), _) => {
                let kind: String = kind.chars().take(80).collect();
                Err(ApiError::unsupported(
                    place,
                    format!("{place}[{index}] is of type {kind}; only text is supported"),
                ))
            }
        }
    };
    Ok(parts.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?.join("\n"))
}

/// OpenAI writes a call's arguments as a text, templates read an object.
fn parse_arguments(call: &mut Value) {
    let Some(arguments) = call.get_mut("function").and_then(|function| function.get_mut("arguments")) else {
        return;
    };
    let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<Map<String, Value>>(text).ok());
    if let Some(parsed) = parsed {
        *arguments = Value::Object(parsed);
    }
}
