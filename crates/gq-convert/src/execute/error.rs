//! What can go wrong while executing a plan.

use super::journal::JournalError;
use super::options::CheckError;
use crate::round::{CoderError, RoundError};
use gq_calibrate::MeasurementsError;
use gq_checkpoint::{CheckpointError, ReadError};
use gq_codec::NotPositive;
use gq_container::{ProvenanceError, WriteError, WriteRule};
use gq_tensor::Encoding;
use std::path::PathBuf;

/// An execution that failed. The output's final name is untouched.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// A file of the source cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A text of the source cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A weight is NaN or infinite.
    #[error(transparent)]
    Values(#[from] ReadError),
    /// The plan was made for another checkpoint.
    #[error("tensor {tensor:?} of the plan is not in the checkpoint")]
    OtherSource {
        /// The tensor.
        tensor: String,
    },
    /// A coder that cannot be made.
    #[error("tensor {tensor:?}: {source}")]
    Coder {
        /// The tensor.
        tensor: String,
        /// Why.
        source: CoderError,
    },
    /// A row whose scale is beyond what the encoding stores.
    #[error("tensor {tensor:?}, row {row}: its scale is beyond the range of {limit}")]
    Scale {
        /// The tensor.
        tensor: String,
        /// The row.
        row: usize,
        /// The encoding.
        limit: Encoding,
    },
    /// A tensor whose weights are so small that every scale became 0.
    #[error(
        "tensor {tensor:?}: its weights are too small for the scales of {limit}, which would store zeros"
    )]
    Vanished {
        /// The tensor.
        tensor: String,
        /// The encoding.
        limit: Encoding,
    },
    /// The whole file was looked at and refused.
    #[error("{}: {source}", path.display())]
    Refused {
        /// Where it lies; it got no name.
        path: PathBuf,
        /// Why.
        source: CheckError,
    },
    /// Weights that are not on the grid that the plan found them on: the source has changed.
    #[error(
        "tensor {tensor:?} does not sit on {limit} any more: the source has changed since it was planned"
    )]
    OffGrid {
        /// The tensor.
        tensor: String,
        /// The grid.
        limit: Encoding,
    },
    /// Measurements that cannot be read.
    #[error(transparent)]
    Measurements(#[from] MeasurementsError),
    /// A second moment that cannot be factored in the basis of the codes.
    #[error("tensor {tensor:?}: {source}")]
    Moment {
        /// The tensor.
        tensor: String,
        /// Where it stopped.
        source: NotPositive,
    },
    /// The texts that ride along took more than was set aside for them.
    #[error("the file would have {actual} bytes, the budget is {limit}")]
    Budget {
        /// Bytes allowed.
        limit: u64,
        /// Bytes of the file.
        actual: u64,
    },
    /// The source changed since the interrupted conversion began.
    #[error(
        "tensor {tensor:?}: the source has changed since the unfinished conversion began (sha256 {limit}, now {actual})"
    )]
    SourceChanged {
        /// The tensor up to which the source was compared.
        tensor: String,
        /// Digest when it was coded.
        limit: String,
        /// Digest now.
        actual: String,
    },
    /// The journal next to the output cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The output cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A text is beyond the container's limits.
    #[error(transparent)]
    Text(#[from] WriteRule),
    /// The provenance cannot be stored.
    #[error(transparent)]
    Provenance(#[from] ProvenanceError),
    /// A value of ours that has no JSON form; a defect of gq.
    #[error("report as JSON: {source}")]
    Json {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
    /// Threads cannot be started.
    #[error("threads: {source}")]
    Threads {
        /// What the system says.
        #[from]
        source: rayon::ThreadPoolBuildError,
    },
}

impl From<RoundError> for ConvertError {
    fn from(error: RoundError) -> ConvertError {
        match error {
            RoundError::Values(source) => ConvertError::Values(source),
            RoundError::Measurements(source) => ConvertError::Measurements(source),
            RoundError::Moment { tensor, source } => ConvertError::Moment { tensor, source },
        }
    }
}
