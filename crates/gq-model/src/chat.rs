//! Chat templates: the checkpoint's own, rendered as the Hub's library renders them.

use crate::texts::ModelTexts;
use crate::tokenizer::special_token;
use minijinja::value::{Kwargs, Rest};
use minijinja::{Environment, Error, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};
use std::io::{self, Write};
use std::sync::Arc;

const NAME: &str = "chat";

/// Special tokens that a template may name.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    tokens: Vec<(&'static str, String)>,
}

/// One turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user`, `assistant`, …
    pub role: String,
    /// What was said: text, or a list of parts.
    pub content: serde_json::Value,
    /// Further fields, such as `tool_calls`.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl ChatMessage {
    /// A turn of plain text.
    pub fn new(role: &str, content: &str) -> ChatMessage {
        ChatMessage { role: role.to_owned(), content: content.into(), extra: serde_json::Map::new() }
    }
}

/// Formats the present time by a `strftime` format.
pub type Clock = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// How a conversation is rendered.
#[derive(Clone, Default)]
pub struct ChatOptions {
    /// Whether the model's turn is begun at the end.
    pub add_generation_prompt: bool,
    /// Further variables, such as `tools` and `enable_thinking`.
    pub extra: serde_json::Map<String, serde_json::Value>,
    /// `strftime_now`; a template that asks for the time without one fails.
    pub clock: Option<Clock>,
}

impl std::fmt::Debug for ChatOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ChatOptions { add_generation_prompt, extra, clock } = self;
        let mut shown = f.debug_struct("ChatOptions");
        shown.field("add_generation_prompt", add_generation_prompt).field("extra", extra);
        shown.field("clock", &clock.is_some()).finish()
    }
}

/// A conversation that cannot be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The model came without a template.
    #[error("the model has no chat template")]
    Missing,
    /// The template is not understood.
    #[error("the chat template cannot be read")]
    Unreadable(#[source] Error),
    /// `tokenizer_config.json`, which names the special tokens, is not JSON.
    #[error("tokenizer_config.json is not valid JSON")]
    Settings(#[source] serde_json::Error),
    /// The template refuses the conversation, or fails.
    #[error("the chat template refuses the conversation")]
    Refused(#[source] Error),
}

impl ChatTemplate {
    /// The template among a model's texts.
    ///
    /// # Errors
    /// [`ChatError::Missing`] where there is none; others when it is not understood.
    pub fn new(texts: &ModelTexts) -> Result<ChatTemplate, ChatError> {
        let template = texts.chat_template.as_deref().ok_or(ChatError::Missing)?;
        let config = texts.tokenizer_config.as_deref().unwrap_or("{}");
        let config = serde_json::from_str(config).map_err(ChatError::Settings)?;
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_function("raise_exception", raise_exception);
        let template = without_generation_tags(template);
        environment.add_template_owned(NAME, template).map_err(ChatError::Unreadable)?;
        let tokens = TOKENS.iter().filter_map(|key| Some((*key, special_token(&config, key)?)));
        Ok(ChatTemplate { environment, tokens: tokens.collect() })
    }

    /// The text of a conversation; its special tokens are to be parsed.
    ///
    /// # Errors
    /// When the template refuses the conversation.
    pub fn render(&self, messages: &[ChatMessage], options: &ChatOptions) -> Result<String, ChatError> {
        let template = self.environment.get_template(NAME).map_err(ChatError::Unreadable)?;
        let mut variables: Vec<(String, Value)> = vec![
            ("messages".to_owned(), Value::from_serialize(messages)),
            ("add_generation_prompt".to_owned(), options.add_generation_prompt.into()),
            ("tools".to_owned(), ().into()),
            ("documents".to_owned(), ().into()),
        ];
        variables.extend(self.tokens.iter().map(|(key, token)| ((*key).to_owned(), token.into())));
        if let Some(clock) = options.clock.clone() {
            let now = Value::from_function(move |format: String| clock(&format));
            variables.push(("strftime_now".to_owned(), now));
        }
        variables
            .extend(options.extra.iter().map(|(key, value)| (key.clone(), Value::from_serialize(value))));
        template.render(variables.into_iter().collect::<Value>()).map_err(ChatError::Refused)
    }

    /// What follows the words of a finished turn of the model, such as `<end_of_turn>`; `None` where it cannot be told.
    pub fn end_of_turn(&self) -> Option<String> {
        const WORDS: &str = "gq-words";
        let turns = [ChatMessage::new("user", "gq-question"), ChatMessage::new("assistant", WORDS)];
        let text = self.render(&turns, &ChatOptions::default()).ok()?;
        let (_, rest) = text.rsplit_once(WORDS)?;
        let rest = rest.trim_start();
        let end = rest.find('>')?;
        rest.get(..=end).filter(|token| token.starts_with('<')).map(str::to_owned)
    }
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// The Hub marks the model's words with `{% generation %}` for training; to everybody else it is a block that is
/// always rendered.
fn without_generation_tags(template: &str) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{%") {
        text.push_str(before);
        text.push_str("{%");
        let (tag, tail) = after.split_once("%}").map_or((after, None), |(tag, tail)| (tag, Some(tail)));
        match tag.trim_matches(['-', '+', ' ', '\n', '\t']) {
            "generation" => text.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => text.push_str(&tag.replace("endgeneration", "endif")),
            _ => text.push_str(tag),
        }
        text.push_str(if tail.is_some() { "%}" } else { "" });
        rest = tail.unwrap_or("");
    }
    text.push_str(rest);
    text
}

/// `json.dumps` with `ensure_ascii=False`: nothing is escaped for HTML.
fn to_json(value: Value, rest: Rest<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent = options.get::<Option<usize>>("indent")?.or_else(|| rest.first()?.as_usize());
    for unused in ["ensure_ascii", "separators", "sort_keys"] {
        let _ = options.has(unused);
    }
    let text = match indent {
        Some(indent) => serialize(&value, PrettyFormatter::with_indent(" ".repeat(indent).as_bytes())),
        None => serialize(&value, Spaced),
    };
    text.map(Value::from_safe_string)
        .map_err(|source| Error::new(ErrorKind::BadSerialization, "not JSON").with_source(source))
}

fn serialize(value: &Value, formatter: impl Formatter) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A space after every comma and colon, as Python writes JSON.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_are_rendered() {
        let text = "a{%- generation -%} b {%- endgeneration %}{% if x %}{% endif %}{% unfinished";
        let expected = "a{%- if true -%} b {%- endif %}{% if x %}{% endif %}{% unfinished";
        assert_eq!(without_generation_tags(text), expected);
    }

    #[test]
    fn json_as_python_writes_it() {
        let value: serde_json::Value =
            serde_json::from_str(r#"{"b": [1, 2.0, "é<"], "a": {}, "c": null}"#).unwrap();
        let texts =
            |template: &str| ModelTexts { chat_template: Some(template.to_owned()), ..ModelTexts::default() };
        let render = |template: &str| {
            let mut options = ChatOptions::default();
            options.extra.insert("x".to_owned(), value.clone());
            ChatTemplate::new(&texts(template)).unwrap().render(&[], &options).unwrap()
        };
        assert_eq!(render("{{ x | tojson }}"), r#"{"b": [1, 2.0, "é<"], "a": {}, "c": null}"#);
        assert_eq!(render("{{ x.b | tojson(indent=2) }}"), "[\n  1,\n  2.0,\n  \"é<\"\n]");
    }
}
