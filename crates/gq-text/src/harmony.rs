//! Answers in OpenAI's Harmony format: what a model thinks and what it says, told apart by tokens.

use crate::{TextStream, Tokenizer, TokenizerError};

/// Tokens that stand around messages, in the order of [`Mark`].
const MARKS: [&str; 4] = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];
/// The channel of what a model thinks.
const THINKING: &str = "analysis";

/// Which part of an answer a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the model thinks; a chat template takes it as `thinking` of a turn.
    Thinking,
    /// What it says: `content` of a turn.
    Content,
}

/// Reads an answer token by token: a row of messages `<|channel|>NAME<|message|>TEXT<|end|><|start|>assistant…`.
///
/// The channel `analysis` is thinking; other channels and what stands outside of messages are content. Names of channels
/// and roles are no text, and messages of the same part are put on lines of their own.
#[derive(Clone, Debug)]
pub struct Harmony<'a> {
    tokenizer: &'a Tokenizer,
    marks: [u32; 4],
    stream: TextStream<'a>,
    place: Place,
    /// What was written about the message that begins.
    header: String,
    /// Parts that have text already.
    given: Vec<Part>,
    /// Whether the next text begins a message.
    begins: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Header,
    Text(Part),
}

#[derive(Clone, Copy)]
enum Mark {
    Start,
    Channel,
    Message,
    End,
}

impl<'a> Harmony<'a> {
    /// For a tokenizer that has the format's tokens, `<|return|>` among them; others' models do not write it.
    pub fn of(tokenizer: &'a Tokenizer) -> Option<Harmony<'a>> {
        tokenizer.token("<|return|>")?;
        let [Some(start), Some(channel), Some(message), Some(end)] = MARKS.map(|mark| tokenizer.token(mark))
        else {
            return None;
        };
        Some(Harmony {
            tokenizer,
            marks: [start, channel, message, end],
            stream: tokenizer.stream(),
            place: Place::Text(Part::Content),
            header: String::new(),
            given: Vec::new(),
            begins: true,
        })
    }

    /// Adds a token and returns the text that is now certain, if it has any.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<Option<(Part, String)>, TokenizerError> {
        let [start, channel, message, end] = self.marks;
        let mark = match token {
            token if token == start => Mark::Start,
            token if token == channel => Mark::Channel,
            token if token == message => Mark::Message,
            token if token == end => Mark::End,
            _ => {
                let text = self.stream.push(token)?;
                return Ok(self.take(text));
            }
        };
        let rest = self.finish()?;
        self.stream = self.tokenizer.stream();
        self.place = match mark {
            Mark::Start | Mark::Channel => Place::Header,
            Mark::Message if self.header.split_whitespace().next() == Some(THINKING) => {
                Place::Text(Part::Thinking)
            }
            Mark::Message | Mark::End => Place::Text(Part::Content),
        };
        self.header.clear();
        self.begins = true;
        Ok(rest)
    }

    /// The rest at the end: an unfinished character as U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<Option<(Part, String)>, TokenizerError> {
        let text = self.stream.finish()?;
        Ok(self.take(text))
    }

    /// The part that the next text belongs to; `None` within a message's header.
    pub fn part(&self) -> Option<Part> {
        match self.place {
            Place::Header => None,
            Place::Text(part) => Some(part),
        }
    }

    /// Whether a token stands around messages and is no text.
    pub fn is_mark(&self, token: u32) -> bool {
        self.marks.contains(&token)
    }

    fn take(&mut self, text: String) -> Option<(Part, String)> {
        let part = match self.place {
            _ if text.is_empty() => return None,
            Place::Header => {
                self.header += &text;
                return None;
            }
            Place::Text(part) => part,
        };
        let apart = std::mem::take(&mut self.begins) && self.given.contains(&part);
        if !self.given.contains(&part) {
            self.given.push(part);
        }
        Some((part, if apart { format!("\n{text}") } else { text }))
    }
}
