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
    serde_json::from_str(&text).map_err(|_| {
        let place = path.display();
        let message =
            format!("{place}: neither a list of messages with role and content nor an object with one");
        Failure::new(Exit::Input, "chat.conversation", message)
            .at(place)
            .limit("[{\"role\": …, \"content\": …}]")
    })
}
