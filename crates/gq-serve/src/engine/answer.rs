//! Tokens of an answer as text: what is thought and what is said, up to a stop string.

use super::logprobs::TokenLogprob;
use super::stops::Stops;
use gq_text::{Harmony, Part, TextStream, Tokenizer, TokenizerError};
use std::collections::VecDeque;

/// Text that became certain.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// What it belongs to.
    pub part: Part,
    /// May be empty where a token's text is held back and its logarithm is not.
    pub text: String,
    /// Of tokens of what is said whose text is out, where they are asked for.
    pub logprobs: Vec<TokenLogprob>,
}

/// An answer as it comes.
pub(super) struct Answer<'a> {
    reader: Reader<'a>,
    stops: Stops,
    /// Bytes of what is said that came from tokens, and that are out.
    said: usize,
    out: usize,
    /// With where each one's text begins.
    waiting: VecDeque<(usize, TokenLogprob)>,
}

/// What tells parts of an answer apart.
enum Reader<'a> {
    Plain(TextStream<'a>),
    Harmony(Harmony<'a>),
}

impl<'a> Answer<'a> {
    /// Nothing said yet. `parts`: whether what is thought is told apart, where the model's format does.
    pub(super) fn new(tokenizer: &'a Tokenizer, parts: bool, stop: Vec<String>) -> Answer<'a> {
        let harmony = if parts { Harmony::of(tokenizer) } else { None };
        let reader = harmony.map_or_else(|| Reader::Plain(tokenizer.stream()), Reader::Harmony);
        Answer { reader, stops: Stops::new(stop), said: 0, out: 0, waiting: VecDeque::new() }
    }

    /// The part that a token's text would belong to now; `None` for one that is no text.
    pub(super) fn part(&self, token: u32) -> Option<Part> {
        match &self.reader {
            Reader::Plain(_) => Some(Part::Content),
            Reader::Harmony(harmony) => harmony.part().filter(|_| !harmony.is_mark(token)),
        }
    }

    /// Adds a token; gives what became certain, and whether a stop string ended the answer.
    pub(super) fn push(
        &mut self,
        token: u32,
        logprob: Option<TokenLogprob>,
    ) -> Result<(Option<Delta>, bool), TokenizerError> {
        self.waiting.extend(logprob.map(|logprob| (self.said, logprob)));
        let text = match &mut self.reader {
            Reader::Plain(stream) => Some((Part::Content, stream.push(token)?)),
            Reader::Harmony(harmony) => harmony.push(token)?,
        };
        Ok(self.take(text))
    }

    /// What was held back.
    pub(super) fn finish(&mut self) -> Result<Vec<Delta>, TokenizerError> {
        let text = match &mut self.reader {
            Reader::Plain(stream) => Some((Part::Content, stream.finish()?)),
            Reader::Harmony(harmony) => harmony.finish()?,
        };
        let (delta, hit) = self.take(text);
        let mut deltas = Vec::from_iter(delta);
        if !hit {
            let text = self.stops.finish();
            self.out += text.len();
            let logprobs = self.waiting.drain(..).map(|(_, logprob)| logprob).collect();
            deltas.push(Delta { part: Part::Content, text, logprobs });
        }
        deltas.retain(|delta| !delta.text.is_empty() || !delta.logprobs.is_empty());
        Ok(deltas)
    }

    fn take(&mut self, text: Option<(Part, String)>) -> (Option<Delta>, bool) {
        let Some((part, text)) = text else { return (None, false) };
        if part == Part::Thinking {
            let delta = Delta { part, text, logprobs: Vec::new() };
            return (Some(delta).filter(|delta| !delta.text.is_empty()), false);
        }
        self.said += text.len();
        let (text, hit) = self.stops.push(&text);
        self.out += text.len();
        let mut logprobs = Vec::new();
        // Of tokens whose text is out, the last one perhaps in part; those after a stop string are no part of the answer.
        while self.waiting.front().is_some_and(|(start, _)| *start < self.out) {
            logprobs.extend(self.waiting.pop_front().map(|(_, logprob)| logprob));
        }
        let nothing = text.is_empty() && logprobs.is_empty();
        ((!nothing).then_some(Delta { part, text, logprobs }), hit)
    }
}
