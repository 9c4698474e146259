//! What calibration measured: a plain value, and the directory of moments that rounding reads.
//!
//! [`Measurements`] is what planning needs: sensitivities, dampings, corrections. [`MeasurementsDir`] is where it lies
//! with the moments of all inputs, gradients and held-out text.

mod corrections;
mod directory;
mod moment;
mod unfinished;
mod value;

pub(crate) use corrections::TrialConditions;
pub use corrections::{Corrections, GroupTrial, WholeTrial};
pub(crate) use directory::moments_file;
pub use directory::{MeasurementsDir, MeasurementsError};
pub use moment::{Moment, rotate, square};
pub(crate) use unfinished::Done;
pub use value::{InputMeasured, Measurements, TensorMeasured};
