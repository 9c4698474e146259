//! Text as it is generated.

use crate::ModelError;
use crate::cache::KvCache;
use crate::model::{BATCH, LogitRows, Model};
use crate::sampler::{Sampler, Sampling};
use gq_text::{TextStream, Tokenizer, TokenizerError};

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

/// An iterator over the pieces of an answer. It keeps what it has seen, so that the next prompt costs what is new in it.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a Model,
    tokenizer: Option<&'a Tokenizer>,
    cache: KvCache,
    /// Tokens whose keys and values are in the cache.
    seen: Vec<u32>,
    stream: Option<TextStream<'a>>,
    sampler: Sampler,
    stop: Vec<u32>,
    left: usize,
    logits: Vec<f32>,
    ended: Option<StopReason>,
    /// Whether the iterator has given out its last piece.
    done: bool,
}

/// What became of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The answer can be generated; so many tokens of the prompt had been seen and were not run again.
    Ready {
        /// Tokens from the cache.
        reused: usize,
    },
    /// The caller wanted no more; what was seen is kept.
    Stopped,
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
        let context = prompt.len().saturating_add(max_tokens);
        let mut generation = Generation::new(model, tokenizer, context, sampling, stop);
        generation.ask(prompt, max_tokens, &|| true)?;
        Ok(generation)
    }

    /// Nothing seen yet, with room for `context` tokens of prompts and answers.
    pub fn new(
        model: &'a Model,
        tokenizer: Option<&'a Tokenizer>,
        context: usize,
        sampling: Sampling,
        stop: Vec<u32>,
    ) -> Generation<'a> {
        Generation {
            model,
            tokenizer,
            cache: model.new_cache(context),
            seen: Vec::new(),
            stream: None,
            sampler: Sampler::new(sampling),
            stop,
            left: 0,
            logits: Vec::new(),
            ended: None,
            done: true,
        }
    }

    /// Runs what is new in `prompt` and stands ready to answer it with up to `max_tokens` tokens. `going` is asked
    /// between batches. Random numbers go on where they were.
    ///
    /// # Errors
    /// When the model refuses the prompt; what was seen before may be forgotten then.
    pub fn ask(
        &mut self,
        prompt: &[u32],
        max_tokens: usize,
        going: &dyn Fn() -> bool,
    ) -> Result<Asked, ModelError> {
        if prompt.is_empty() {
            return Err(ModelError::NoTokens);
        }
        if prompt.len() > self.cache.max_tokens() {
            return Err(ModelError::CacheFull { needed: prompt.len(), limit: self.cache.max_tokens() });
        }
        let same = self.seen.iter().zip(prompt).take_while(|(old, new)| old == new).count();
        // The last token's logits are needed.
        let reused = self.cache.truncate(same.min(prompt.len() - 1));
        self.seen.truncate(reused);
        (self.ended, self.done, self.left) = (None, true, 0);
        let new = prompt.get(reused..).unwrap_or(&[]);
        let batches = new.chunks(BATCH);
        let last = batches.len().saturating_sub(1);
        for (index, batch) in batches.enumerate() {
            if !going() {
                return Ok(Asked::Stopped);
            }
            let rows = if index == last { LogitRows::Last } else { LogitRows::Range(0..0) };
            self.run(batch, rows)?;
        }
        self.stream = self.tokenizer.map(Tokenizer::stream);
        (self.done, self.left) = (false, max_tokens);
        Ok(Asked::Ready { reused })
    }

    /// Tokens seen: those of the last prompt and of its answer.
    pub fn seen(&self) -> &[u32] {
        &self.seen
    }

    /// Keys and values of what was seen.
    pub fn cache(&self) -> &KvCache {
        &self.cache
    }

    /// Forgets what was seen; memory is kept.
    pub fn clear(&mut self) {
        self.cache.clear();
        self.seen.clear();
        (self.ended, self.done, self.left) = (None, true, 0);
    }

    /// Why generation ended; `None` while it goes on.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.ended
    }

    /// Logits of the token to be chosen next, `[vocab]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    fn run(&mut self, tokens: &[u32], rows: LogitRows) -> Result<(), ModelError> {
        let outcome = self.model.forward(tokens, &mut self.cache, rows, &mut self.logits);
        match outcome {
            Ok(()) => self.seen.extend_from_slice(tokens),
            Err(_) => self.clear(), // the cache may hold some of them
        }
        outcome
    }

    fn step(&mut self) -> Result<Option<Piece>, GenerationError> {
        if self.left == 0 {
            return self.end(StopReason::MaxTokens);
        }
        let token = self.sampler.sample_after(&self.logits, &self.seen);
        if self.stop.contains(&token) {
            return self.end(StopReason::Stop(token));
        }
        if self.cache.len() == self.cache.max_tokens() {
            return self.end(StopReason::CacheFull);
        }
        self.left -= 1;
        let text = self.stream.as_mut().map(|stream| stream.push(token)).transpose()?;
        if self.left > 0 {
            self.run(&[token], LogitRows::Last)?;
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
