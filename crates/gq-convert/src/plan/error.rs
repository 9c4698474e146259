//! Why a plan cannot be made.

use super::policy::PolicyError;
use gq_codec::RotationError;
use gq_tensor::{DType, Encoding};

/// A plan that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// The policy does not fit the tensors.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// An exact encoding other than the source's.
    #[error("tensor {tensor:?} is {actual} in the source and cannot be stored exactly as {limit}")]
    NotSourceDtype {
        /// The tensor.
        tensor: String,
        /// The dtype asked for.
        limit: DType,
        /// The source's dtype.
        actual: DType,
    },
    /// A grid that the weights do not sit on.
    #[error("tensor {tensor:?} does not sit on {limit}{}", .actual.map_or(String::new(), |grid| format!(", but on {grid}")))]
    OffGrid {
        /// The tensor.
        tensor: String,
        /// What was asked for: an encoding, or any grid.
        limit: String,
        /// The grid that it sits on.
        actual: Option<Encoding>,
    },
    /// A limit on the divergence, and an encoding whose error is not known.
    #[error(
        "tensor {tensor:?} is to be stored as {actual}, of which no divergence is known that a limit could be kept by"
    )]
    UnknownDivergence {
        /// The tensor.
        tensor: String,
        /// The encoding asked for.
        actual: Encoding,
    },
    /// A tensor of integers where weights are expected.
    #[error("tensor {tensor:?} holds {actual} elements, which are no weights")]
    NotFloat {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        actual: DType,
    },
    /// FP8 weights with scales next to them: their bytes alone are not the weights.
    #[error("tensor {tensor:?} is {actual} with separate scales and cannot be kept exactly ({reason})")]
    Scaled {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        actual: DType,
        /// Why it would be kept exactly.
        reason: String,
    },
    /// FP8 weights that an adapter changes: the sums have more digits.
    #[error("tensor {tensor:?} is {actual} with an adapter merged in and cannot be kept exactly ({reason})")]
    Merged {
        /// The tensor.
        tensor: String,
        /// Its dtype.
        actual: DType,
        /// Why it would be kept exactly.
        reason: String,
    },
    /// A tensor with a dimension of zero or more elements than can be addressed.
    #[error("tensor {tensor:?} has shape {actual:?}, which cannot be stored")]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        actual: Vec<u64>,
    },
    /// A dense rotation of a width it does not exist for.
    #[error("tensor {tensor:?}: {source}")]
    Rotation {
        /// The tensor.
        tensor: String,
        /// Limit and width.
        source: RotationError,
    },
    /// The smallest file is above the budget.
    #[error("the smallest payloads take {actual} bytes, the budget leaves {limit} for them")]
    Budget {
        /// Bytes for payloads.
        limit: u64,
        /// Bytes of the smallest.
        actual: u64,
        /// Bytes that the file takes next to payloads: texts and tables of contents; 0 where none are counted.
        around: u64,
        /// Bytes of what is counted and has no choice, by role, the largest first.
        fixed: Vec<(String, u64)>,
    },
    /// No choice of encodings is expected to stay as close as asked for.
    #[error(
        "the closest file is expected to diverge by {actual:.2e} nats per token, {limit:.2e} are allowed"
    )]
    Divergence {
        /// Nats allowed.
        limit: f64,
        /// Nats expected.
        actual: f64,
    },
    /// A limit on the divergence, without measurements to expect it by.
    #[error("a divergence is promised by measurements, and there are none")]
    NotMeasured,
    /// The execution would need more memory than allowed.
    #[error("the conversion needs {actual} bytes of memory, {limit} are allowed")]
    Memory {
        /// Bytes allowed.
        limit: u64,
        /// Bytes needed.
        actual: u64,
    },
}
