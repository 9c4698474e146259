//! Rounds blocks of rows to codes: row by row to nearest, or with the inputs' second moments in view.

mod calibrated;
mod error;
mod inputs;
mod row_coder;
mod sums;

pub(crate) use calibrated::{CalibratedCoder, CalibratedError, ColumnCoder, STRIP, rounds_columns};
pub use error::CoderError;
pub(crate) use error::RoundError;
pub(crate) use inputs::{FACTORS, Factors, Input, squares};
pub(crate) use row_coder::{Coded, RowCoder, StripBuffer, squared_error};
pub(crate) use sums::OutputSums;
