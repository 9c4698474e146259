//! The CPU backend: every operator computes at once, in f32, over the rows of one or more sequences.

mod attention;
mod batch;
mod grouped;
mod products;

pub use batch::{Batch, Sums};

use serde::{Deserialize, Serialize};

/// Arithmetic of the activations that meet codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationMode {
    /// Rounded to int8, one scale per 32 elements after the rotation. Weights stored as floats meet f32.
    #[default]
    Int8,
    /// As they are.
    F32,
}
