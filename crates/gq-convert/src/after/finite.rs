//! Models that compute what is no finite number: nothing is measured against them, and nothing is said of them but that.

use gq_calibrate::{Teacher, check_activations};
use gq_model::{Model, ModelError};
use std::fmt;

/// One of two models that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the file was made from.
    Reference,
    /// The rounded model.
    File,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Reference => "the reference",
            Side::File => "the file",
        })
    }
}

/// A model whose activations or logits are infinite or not numbers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{side} computes what is not a finite number: {source}")]
pub struct NotFinite {
    /// Which of the two.
    pub side: Side,
    /// Where it was seen first.
    pub source: ModelError,
}

impl NotFinite {
    /// The first tensor that meets such numbers; `None`: only logits are.
    pub fn tensor(&self) -> Option<&str> {
        match &self.source {
            ModelError::Activations { tensor, .. } => Some(tensor),
            _ => None,
        }
    }
}

/// The reference's logits on `tokens`.
///
/// # Errors
/// [`NotFinite`] about the reference, or what else is wrong with the tokens.
pub(crate) fn teacher<E: From<NotFinite> + From<ModelError>>(
    reference: &Model,
    tokens: Vec<u32>,
) -> Result<Teacher<'_>, E> {
    Teacher::new(reference, tokens).map_err(|source| of(Side::Reference, source))
}

/// Says which of the two models made their divergence on `tokens` infinite.
///
/// # Errors
/// [`NotFinite`]; none where both compute.
pub(crate) fn check<E: From<NotFinite> + From<ModelError>>(
    reference: &Model,
    file: &Model,
    tokens: &[u32],
) -> Result<(), E> {
    check_reference::<E>(reference, tokens)?;
    check_activations(file, tokens).map_err(|source| of(Side::File, source))
}

/// The same of the reference alone.
///
/// # Errors
/// [`NotFinite`].
pub(crate) fn check_reference<E: From<NotFinite> + From<ModelError>>(
    reference: &Model,
    tokens: &[u32],
) -> Result<(), E> {
    check_activations(reference, tokens).map_err(|source| of(Side::Reference, source))
}

fn of<E: From<NotFinite> + From<ModelError>>(side: Side, source: ModelError) -> E {
    match source {
        ModelError::Activations { .. } | ModelError::NotFinite { .. } => NotFinite { side, source }.into(),
        other => other.into(),
    }
}
