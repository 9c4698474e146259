//! Rounds blocks of rows to codes: row by row to nearest, or with the inputs' second moments in view.

mod calibrated;
mod error;
mod row_coder;
mod sums;

pub(crate) use calibrated::{
    CalibratedCoder, CalibratedError, Code, FACTORS, Factors, STRIP, of_strips, supports,
};
pub(crate) use error::RoundError;
pub use row_coder::CoderError;
pub(crate) use row_coder::{Coded, Coders, RowCoder, STRIP_CHUNK, StripBuffers, squared_error};
pub(crate) use sums::OutputSums;
