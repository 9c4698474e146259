//! What can go wrong while evaluating.

use crate::outputs::OutputsError;
use crate::windows::WindowError;
use gq_model::ModelError;
use gq_text::TokenizerError;

/// An evaluation that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The model refuses its input.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Text cannot be tokenized.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The text gives no window.
    #[error(transparent)]
    Windows(#[from] WindowError),
    /// A file of reference outputs cannot be read or written.
    #[error(transparent)]
    Outputs(#[from] OutputsError),
    /// Model and reference have other vocabularies.
    #[error("the model's vocabulary has {actual} tokens, the reference's {limit}")]
    Vocabulary {
        /// Tokens of the reference.
        limit: usize,
        /// Tokens of the model.
        actual: usize,
    },
}
