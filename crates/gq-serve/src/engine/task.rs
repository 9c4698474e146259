//! What the engine is asked for, and what it tells.

use super::answer::Delta;
use gq_model::{ModelError, Sampling};
use std::time::Instant;

/// An answer that is wanted.
#[derive(Clone, Debug)]
pub struct Task {
    /// Tokens to go on from; at least one, and fewer than the context.
    pub prompt: Vec<u32>,
    /// Most tokens of the answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Strings that end it; they are not given out.
    pub stop: Vec<String>,
    /// Tokens that end it; they are not given out.
    pub stop_tokens: Vec<u32>,
    /// Whether what the model thinks is told apart, where its format does (Harmony).
    pub parts: bool,
    /// So many of the likeliest tokens are told with each token's probability; `None`: no probabilities.
    pub logprobs: Option<usize>,
    /// When it is given up.
    pub deadline: Instant,
}

/// Tokens of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: usize,
    /// Those of them that a cache had already.
    pub cached: usize,
    /// Of the answer; stop tokens are none.
    pub answer: usize,
    /// Those of them in which the model thought.
    pub thinking: usize,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token or a stop string.
    Stop,
    /// As many tokens as were asked for, or as the context has.
    Length,
}

/// What becomes of an answer.
#[derive(Debug)]
pub enum Event {
    /// Text.
    Delta(Delta),
    /// The last event of an answer that is whole.
    End(Finish, Usage),
    /// The last event of one that is not.
    Failed(EngineError),
}

/// An answer that cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The model refuses.
    #[error("the model cannot go on")]
    Model(#[from] ModelError),
    /// What the model computed is no number: its weights overflow or are broken.
    #[error("the model computed a logit that is infinite or not a number")]
    NotFinite,
    /// Tokens cannot be shown.
    #[error("the text cannot be shown: {why}")]
    Text {
        /// What the tokenizer says.
        why: String,
    },
    /// It took longer than it may.
    #[error("the request took longer than it may")]
    Late,
    /// The server ends.
    #[error("the server is shutting down")]
    Stopping,
    /// A defect.
    #[error("the engine failed: {message}")]
    Defect {
        /// What the panic said.
        message: String,
    },
}

/// A task that is not taken on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many wait as may.
    #[error("{waiting} requests are waiting, and no more may")]
    Full {
        /// They.
        waiting: usize,
        /// Seconds after which one of them may have gone.
        retry_after: u64,
    },
    /// The engine ends.
    #[error("the server is shutting down")]
    Stopping,
    /// A prompt without tokens, or with one that is no token of the model.
    #[error(transparent)]
    Prompt(#[from] ModelError),
    /// A prompt that leaves no room for an answer.
    #[error("the prompt has {tokens} tokens, and the context holds {limit} with the answer")]
    Long {
        /// Of the prompt.
        tokens: usize,
        /// Of the context.
        limit: usize,
    },
}
