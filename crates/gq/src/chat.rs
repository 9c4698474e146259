//! A model's chat template shown at work: `gq inspect --render-chat`.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::jobs::evaluate;
use crate::{clock, source};
use gq_checkpoint::parse_config;
use gq_container::Container;
use gq_text::{ChatMessage, ChatOptions, ChatTemplate, ModelTexts, SpecialText, Tokenizer};
use jiff::civil::DateTime;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

/// A conversation as a file holds it: the messages, or an object with them and variables of the template.
#[derive(Deserialize)]
#[serde(untagged)]
enum Conversation {
    Messages(Vec<ChatMessage>),
    Whole {
        messages: Vec<ChatMessage>,
        #[serde(default = "yes")]
        add_generation_prompt: bool,
        #[serde(flatten)]
        extra: Map<String, Value>,
    },
}

fn yes() -> bool {
    true
}

/// What is rendered where no conversation is given.
pub fn sample() -> Vec<ChatMessage> {
    vec![
        ChatMessage::new("user", "Why is the sky blue?"),
        ChatMessage::new("assistant", "Air scatters blue light more than red."),
        ChatMessage::new("user", "And at sunset?"),
    ]
}

/// Renders the conversation in `given`, or a short sample, as if it were `date`, and shows the text.
pub fn show(
    model: &Path,
    given: Option<&Path>,
    date: Option<DateTime>,
    global: &Global,
) -> Result<(), Failure> {
    let conversation = given.map(read).transpose()?.unwrap_or_else(|| Conversation::Messages(sample()));
    let (messages, add_generation_prompt, extra) = match conversation {
        Conversation::Messages(messages) => (messages, true, Map::new()),
        Conversation::Whole { messages, add_generation_prompt, extra } => {
            (messages, add_generation_prompt, extra)
        }
    };
    let texts = match source::is_checkpoint(model)? {
        true => ModelTexts::from_checkpoint(&source::checkpoint(model, global)?)?,
        false => ModelTexts::from_container(&Container::open(model)?)?,
    };
    let template = ChatTemplate::new(&texts)?.with_clock(clock::clock(date));
    let options = ChatOptions { add_generation_prompt, extra };
    let text = template.render(&messages, &options)?;
    let tokenizer = match (&texts.config, &texts.tokenizer) {
        (Some(config), Some(_)) => Some(Tokenizer::new(&texts, &parse_config(config)?)?),
        _ => None,
    };
    let ids = tokenizer.as_ref().map(|t| t.encode(&text, SpecialText::Parsed)).transpose()?;
    let stop = tokenizer.as_ref().map(|t| t.stop_tokens(Some(&template)));
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({"text": text, "tokens": ids, "stop_tokens": stop}));
    }
    output.data(&text)?;
    if let Some(ids) = ids {
        // The text need not end its line, and what is shown after it must not be taken for a part of it.
        output.note(&format!("\n{} turns, {} tokens", messages.len(), ids.len()));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Conversation, Failure> {
    let text = evaluate::read_text(path)?;
    if let Some(number) = wide_integer(&text) {
        let message = format!("{}: the integer {number} is beyond 64 bits", path.display());
        let failure = Failure::new(Exit::Input, "chat.wide_integer", message).at(path.display());
        return Err(failure.limit("integers of 64 bits").actual(number));
    }
    serde_json::from_str(&text).map_err(|_| {
        let place = path.display();
        let message =
            format!("{place}: neither a list of messages with role and content nor an object with one");
        Failure::new(Exit::Input, "chat.conversation", message)
            .at(place)
            .limit("[{\"role\": …, \"content\": …}]")
    })
}

/// The first integer of a JSON text that 64 bits do not hold: it would become a rounded one without a word.
fn wide_integer(json: &str) -> Option<&str> {
    let (mut at, bytes) = (0, json.as_bytes());
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        if byte == b'"' {
            // To the end of the text: nothing in it is a number.
            while let Some(&inner) = bytes.get(at) {
                at += if inner == b'\\' { 2 } else { 1 };
                if inner == b'"' {
                    break;
                }
            }
        } else if byte == b'-' || byte.is_ascii_digit() {
            let number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
            at = start + 1 + bytes[start + 1..].iter().take_while(|byte| number(byte)).count();
            let number = &json[start..at];
            let is_integer = !number.contains(['.', 'e', 'E']);
            if is_integer && number.parse::<i64>().is_err() && number.parse::<u64>().is_err() {
                return Some(number);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_beyond_64_bits_are_found_and_nothing_else() {
        for (json, found) in [
            (r#"[{"n": 18446744073709551616}]"#, Some("18446744073709551616")),
            (r#"{"a": -9223372036854775809}"#, Some("-9223372036854775809")),
            (r#"{"a": -9223372036854775808, "b": 18446744073709551615}"#, None),
            (r#"{"a": 1e30, "b": 123456789012345678901234.5}"#, None),
            (r#"{"99999999999999999999": "\\\"99999999999999999999"}"#, None),
        ] {
            assert_eq!(wide_integer(json), found, "{json}");
        }
    }
}
