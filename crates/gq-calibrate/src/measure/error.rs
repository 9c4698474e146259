//! What can go wrong while measuring.

use crate::measurements::MeasurementsError;
use gq_checkpoint::ReadError;
use gq_codec::NotPositive;
use gq_model::ModelError;

/// A measurement that failed.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// Tokens the model does not have.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The directory cannot be written.
    #[error(transparent)]
    File(#[from] MeasurementsError),
    /// Weights that cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing to measure on, or nothing to hold out.
    #[error("{actual} sequences to measure on, at least {limit} are needed")]
    TooFew {
        /// Sequences needed.
        limit: usize,
        /// Sequences given.
        actual: usize,
    },
    /// Statistics that overflowed.
    #[error("what was measured for {tensor:?} is not a number")]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
    /// One layer's moments and one sequence take more memory than allowed.
    #[error("measuring needs {actual} bytes of memory, {limit} are allowed")]
    Memory {
        /// Bytes allowed.
        limit: u64,
        /// Bytes of the least that will do.
        actual: u64,
    },
    /// A tensor that cannot be rounded to try.
    #[error("trial of {tensor:?}: {actual}")]
    Trial {
        /// The tensor.
        tensor: String,
        /// What was found.
        actual: String,
    },
    /// Activations that overflowed or were not numbers.
    #[error("inputs of {tensor:?}: {source}")]
    Moment {
        /// The first tensor that they meet.
        tensor: String,
        /// Where the factorization stopped.
        source: NotPositive,
    },
}
