//! What calibration measured, as a value: moments of inputs, sensitivities of tensors, and what trials corrected of them.

mod corrections;
mod moment;
mod saved;
mod unfinished;

pub use corrections::{Corrections, GroupTrial, WholeTrial};
pub(crate) use moment::{Moment, rotate, square};
pub(crate) use saved::moments_file;
pub use saved::{InputMeasured, Measurements, MeasurementsError, TensorMeasured};
pub(crate) use unfinished::Done;
