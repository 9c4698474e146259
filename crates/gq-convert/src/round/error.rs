//! What can go wrong while a tensor is rounded.

use gq_calibrate::{CalibrateError, MeasurementsError};
use gq_checkpoint::ReadError;
use gq_codec::{CodecError, NotPositive, RotationError};

/// A coder that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CoderError {
    /// The transform does not exist at this width.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The encoding does not exist at this width.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// A block of rows that cannot be rounded.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// Weights that cannot be read, or are NaN or infinite.
    #[error(transparent)]
    Values(#[from] ReadError),
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
}

impl From<RoundError> for CalibrateError {
    fn from(error: RoundError) -> CalibrateError {
        match error {
            RoundError::Values(source) => CalibrateError::Read(source),
            RoundError::Measurements(source) => CalibrateError::File(source),
            RoundError::Moment { tensor, source } => CalibrateError::Moment { tensor, source },
        }
    }
}
