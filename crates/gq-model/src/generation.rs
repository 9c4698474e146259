//! Text as it is generated.

use crate::cache::KvCache;
use crate::model::{LogitRows, Model};
use crate::sampler::{Sampler, Sampling};
use crate::tokenizer::{TextStream, Tokenizer};
use crate::{ModelError, TokenizerError};

/// How far generation goes.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How they are chosen.
    pub sampling: Sampling,
    /// Tokens that end generation; they are not given out.
    pub stop: Vec<u32>,
}

/// One generated token and the text that became certain with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// `None` for text that was held back and is now complete.
    pub token: Option<u32>,
    /// Empty in the middle of a character, and without a tokenizer.
    pub text: String,
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model chose this stop token.
    Stop(u32),
    /// As many tokens as were asked for.
    MaxTokens,
    /// The cache is full.
    CacheFull,
}

/// Generation that cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The model refuses.
    #[error("the model cannot go on")]
    Model(#[from] ModelError),
    /// The tokens cannot be shown.
    #[error("the text cannot be shown")]
    Text(#[from] TokenizerError),
}

/// An iterator over the pieces of one answer.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a Model,
    cache: KvCache,
    stream: Option<TextStream<'a>>,
    sampler: Sampler,
    stop: Vec<u32>,
    left: usize,
    logits: Vec<f32>,
    ended: Option<StopReason>,
    /// Whether the iterator has given out its last piece.
    done: bool,
}

impl<'a> Generation<'a> {
    /// Runs `prompt` and stands ready to generate. Without a tokenizer pieces have no text.
    ///
    /// # Errors
    /// When the model refuses the prompt.
    pub fn start(
        model: &'a Model,
        tokenizer: Option<&'a Tokenizer>,
        prompt: &[u32],
        options: GenerationOptions,
    ) -> Result<Generation<'a>, ModelError> {
        let GenerationOptions { max_tokens, sampling, stop } = options;
        let mut cache = model.new_cache(prompt.len() + max_tokens);
        let mut logits = Vec::new();
        model.forward(prompt, &mut cache, LogitRows::Last, &mut logits)?;
        let stream = tokenizer.map(Tokenizer::stream);
        let sampler = Sampler::new(sampling);
        let (left, ended) = (max_tokens, None);
        Ok(Generation { model, cache, stream, sampler, stop, left, logits, ended, done: false })
    }

    /// Why generation ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.ended
    }

    /// Logits of the token to be chosen next, `[vocab]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn step(&mut self) -> Result<Option<Piece>, GenerationError> {
        if self.left == 0 {
            return self.end(StopReason::MaxTokens);
        }
        let token = self.sampler.sample(&self.logits);
        if self.stop.contains(&token) {
            return self.end(StopReason::Stop(token));
        }
        if self.cache.len() == self.cache.max_tokens() {
            return self.end(StopReason::CacheFull);
        }
        self.left -= 1;
        let text = self.stream.as_mut().map(|stream| stream.push(token)).transpose()?;
        if self.left > 0 {
            self.model.forward(&[token], &mut self.cache, LogitRows::Last, &mut self.logits)?;
        }
        Ok(Some(Piece { token: Some(token), text: text.unwrap_or_default() }))
    }

    fn end(&mut self, reason: StopReason) -> Result<Option<Piece>, GenerationError> {
        (self.ended, self.done) = (Some(reason), true);
        let rest = self.stream.as_mut().map(TextStream::finish).transpose()?.unwrap_or_default();
        Ok(Some(Piece { token: None, text: rest }).filter(|piece| !piece.text.is_empty()))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece, GenerationError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step().transpose();
        self.done |= matches!(step, Some(Err(_)));
        step
    }
}
