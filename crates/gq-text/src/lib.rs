//! A model's texts: its tokenizer and its chat template, run as they came with the weights.
//!
//! [`ModelTexts`] are the files of a checkpoint or the texts of a container. [`Tokenizer`] turns text to tokens and back,
//! [`ChatTemplate`] turns messages to text; both are run by crates of others, whose panics become errors ([`guarded`]).
//!
//! This crate does not know graphs, weights, the network or a terminal.

mod chat;
mod growth;
mod harmony;
mod outside;
mod same_tokens;
mod sample_text;
mod special_ids;
mod special_token;
mod texts;
mod tokenizer;
mod tokenizer_error;
mod written;

pub use chat::{ChatError, ChatMessage, ChatOptions, ChatTemplate, Clock, TemplateLimits};
pub use harmony::{Harmony, Part};
pub use outside::{OutsidePanic, guarded};
pub use same_tokens::{TokenDifference, token_difference};
pub use special_ids::{IdDisagreement, id_disagreements};
pub use texts::{ModelTexts, TextsError};
pub use tokenizer::{SpecialText, TextStream, Tokenizer};
pub use tokenizer_error::TokenizerError;
