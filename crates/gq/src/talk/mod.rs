//! Talking to a model: what was said so far, and the next answer to it.

mod not_done;
mod settings;
mod shown;
mod terminal;

pub use settings::{Most, SamplingArgs, Settings};
pub use shown::Shown;
pub use terminal::chat;

use crate::failure::{Exit, Failure};
use crate::source::Loaded;
use gq_model::{Asked, Generation, Sampling, StopReason};
use gq_text::{ChatMessage, ChatOptions, ChatTemplate, Harmony, Part, SpecialText, Tokenizer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A prompt leaves at least this share of the context to its answer; what is older than that is forgotten.
const ROOM: usize = 8;

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The model ended its turn.
    Turn,
    /// As many tokens as one answer may have.
    Limit,
    /// The context is full.
    Context,
    /// Somebody pressed Ctrl-C.
    Stopped,
}

impl End {
    /// The word for it in JSON and in the last line.
    pub fn name(self) -> &'static str {
        match self {
            End::Turn => "stop token",
            End::Limit => "token limit",
            End::Context => "full context",
            End::Stopped => "Ctrl-C",
        }
    }
}

/// Where pieces of an answer go as they come.
pub type Show<'a> = dyn FnMut(Part, &str) -> Result<(), Failure> + 'a;

/// One answer.
pub struct Answer {
    /// The text, without what was thought first.
    pub text: String,
    /// What the model thought, where its format tells that apart (Harmony).
    pub thinking: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Tokens of the prompt, with everything said before.
    pub prompt: Vec<u32>,
    /// Those of them that had been read already.
    pub reused: usize,
    /// Turns of the conversation that no longer fitted.
    pub forgotten: usize,
    /// Seconds until the first token could be chosen.
    pub prompt_seconds: f64,
    /// Seconds for the rest.
    pub seconds: f64,
    /// Why it ended.
    pub end: End,
}

impl Answer {
    /// New tokens of the prompt per second.
    pub fn prompt_rate(&self) -> f64 {
        (self.prompt.len() - self.reused) as f64 / self.prompt_seconds.max(1e-9)
    }

    /// Tokens per second; the first one came with the prompt.
    pub fn rate(&self) -> f64 {
        self.tokens.len().saturating_sub(1) as f64 / self.seconds.max(1e-9)
    }
}

/// How a conversation is led.
#[derive(Clone)]
pub struct Manner {
    /// What stands before the first turn.
    pub system: Option<String>,
    /// Most tokens of prompts and answers together.
    pub context: usize,
    /// Where one answer ends at the latest; `None` where the turn or the context does.
    pub most: Option<Most>,
    /// How tokens are chosen.
    pub sampling: Sampling,
}

/// A conversation with a model, or a text that both write on.
pub struct Conversation<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<&'a ChatTemplate>,
    generation: Generation<'a>,
    manner: Manner,
    messages: Vec<ChatMessage>,
    text: String,
    said: usize,
}

impl<'a> Conversation<'a> {
    /// Nothing said yet. Without a template text is continued as it is.
    pub fn new(
        loaded: &'a Loaded,
        tokenizer: &'a Tokenizer,
        template: Option<&'a ChatTemplate>,
        manner: Manner,
    ) -> Conversation<'a> {
        let stop = tokenizer.stop_tokens(template);
        let generation =
            Generation::new(&loaded.model, Some(tokenizer), manner.context, manner.sampling, stop);
        let (messages, text, said) = (Vec::new(), String::new(), 0);
        Conversation { tokenizer, template, generation, manner, messages, text, said }
    }

    /// Forgets what was said.
    pub fn reset(&mut self) {
        self.generation.clear();
        self.messages.clear();
        self.text.clear();
        self.said = 0;
    }

    /// Whether turns are wrapped in a template.
    pub fn is_chat(&self) -> bool {
        self.template.is_some()
    }

    /// How it is led.
    pub fn manner(&self) -> &Manner {
        &self.manner
    }

    /// Tokens read and written, and the bytes of their keys and values when the context is full.
    pub fn used(&self) -> (usize, usize) {
        (self.generation.seen().len(), self.generation.cache().bytes())
    }

    /// Questions that are remembered with their answers, or texts that were gone on with.
    pub fn questions(&self) -> usize {
        match self.template {
            Some(_) => self
                .messages
                .iter()
                .filter(|message| message.get("role").is_some_and(|role| role == "user"))
                .count(),
            None => self.said,
        }
    }

    /// Answers what is said next; `show` gets every piece of text as it becomes certain, `stop` ends the answer early.
    ///
    /// What a model thinks in Harmony's format is kept apart from what it says: its template decides what of it later
    /// prompts have.
    ///
    /// # Errors
    /// When the template or the model refuses, or what was said does not fit the context; it counts as not said then.
    pub fn say(&mut self, said: &str, show: &mut Show<'_>, stop: &AtomicBool) -> Result<Answer, Failure> {
        let before = (self.messages.clone(), self.text.clone(), self.said);
        let outcome = self.answer(said, show, stop);
        if outcome.is_err() {
            (self.messages, self.text, self.said) = before;
        }
        outcome
    }

    fn answer(&mut self, said: &str, show: &mut Show<'_>, stop: &AtomicBool) -> Result<Answer, Failure> {
        match self.template {
            Some(_) => self.messages.push(ChatMessage::new("user", said)),
            None => {
                self.text += said;
                self.said += 1;
            }
        }
        let (prompt, forgotten) = self.fitting_prompt()?;
        let started = Instant::now();
        let limit = self.manner.most.map_or(usize::MAX, |most| most.tokens(prompt.len()));
        if let Some(most @ Most::Length(length)) = self.manner.most.filter(|_| limit == 0) {
            let message = format!("the prompt has {} tokens: {}", prompt.len(), most.source());
            let failure = Failure::new(Exit::Usage, "run.max_length", message).at("max_length");
            return Err(failure.limit(length).actual(prompt.len()));
        }
        let going = || !stop.load(Ordering::Relaxed);
        let asked = self.generation.ask(&prompt, limit, &going)?;
        let prompt_seconds = started.elapsed().as_secs_f64();
        let started = Instant::now();
        let (mut text, mut thinking, mut tokens) = (String::new(), String::new(), Vec::new());
        let mut take = |part: Part, piece: &str| {
            match part {
                Part::Thinking => thinking += piece,
                Part::Content => text += piece,
            }
            show(part, piece)
        };
        let mut parts = self.template.and_then(|_| Harmony::of(self.tokenizer));
        let mut end = None;
        for piece in &mut self.generation {
            let piece = piece?;
            tokens.extend(piece.token);
            match (&mut parts, piece.token) {
                (None, _) => take(Part::Content, &piece.text)?,
                (Some(parts), Some(token)) => {
                    parts.push(token)?.map_or(Ok(()), |(part, piece)| take(part, &piece))?;
                }
                (Some(_), None) => {} // text that was held back: of its parts one by one
            }
            if !going() {
                end = Some(End::Stopped);
                break;
            }
        }
        if let Some(parts) = &mut parts {
            parts.finish()?.map_or(Ok(()), |(part, piece)| take(part, &piece))?;
        }
        let seconds = started.elapsed().as_secs_f64();
        let (reused, end) = match (asked, self.generation.stop_reason()) {
            (Asked::Stopped, _) => (0, End::Stopped),
            (Asked::Ready { reused }, reason) => {
                let reason = match reason {
                    Some(StopReason::CacheFull) => End::Context,
                    Some(StopReason::MaxTokens) => End::Limit,
                    Some(StopReason::Stop(_)) | None => End::Turn,
                };
                (reused, end.unwrap_or(reason))
            }
        };
        match self.template {
            Some(_) => {
                let turn = ChatMessage::new("assistant", &text);
                let thought = !thinking.is_empty();
                self.messages.push(if thought { turn.with("thinking", &thinking) } else { turn });
            }
            None => self.text += &text,
        }
        Ok(Answer { text, thinking, tokens, prompt, reused, forgotten, prompt_seconds, seconds, end })
    }

    /// The prompt, without the oldest turns where all of them would leave no room for an answer.
    fn fitting_prompt(&mut self) -> Result<(Vec<u32>, usize), Failure> {
        let limit = self.manner.context;
        let mut forgotten = 0;
        loop {
            let prompt = self.prompt()?;
            if prompt.len() + limit / ROOM <= limit {
                return Ok((prompt, forgotten));
            }
            // A question goes with its answer.
            if self.messages.len() > 2 {
                self.messages.drain(..2);
                forgotten += 2;
                continue;
            }
            if prompt.len() < limit {
                return Ok((prompt, forgotten));
            }
            let message = format!("the prompt has {} tokens, the context holds {limit}", prompt.len());
            let failure = Failure::new(Exit::Usage, "run.context", message).at("--ctx");
            return Err(failure.limit(limit).actual(prompt.len()));
        }
    }

    fn prompt(&self) -> Result<Vec<u32>, Failure> {
        let Some(template) = self.template else {
            return Ok(self.tokenizer.prompt(&self.text, SpecialText::Plain)?);
        };
        let system = self.manner.system.iter().map(|text| ChatMessage::new("system", text));
        let turns: Vec<ChatMessage> = system.chain(self.messages.iter().cloned()).collect();
        let options = ChatOptions { add_generation_prompt: true, ..ChatOptions::default() };
        Ok(self.tokenizer.encode(&template.render(&turns, &options)?, SpecialText::Parsed)?)
    }
}

/// Text of a model as a terminal may see it: line ends and tabs stay, what could drive the terminal is escaped.
pub fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => shown.push(c),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_model_does_not_drive_the_terminal() {
        assert_eq!(super::harmless("a\n\tb\u{1b}[2J\u{9b}é"), "a\n\tb\\u{1b}[2J\\u{9b}é");
    }
}
