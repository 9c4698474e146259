//! Measurements that calibrated rounding and byte budgets are decided from: a stage of its own with a saved value.

mod builtin;
mod collected;
mod corrections;
mod damping;
mod measure;
mod memory;
mod moment;
mod saved;
mod sequences;
mod trials;

pub use builtin::{BuiltinError, builtin};
pub use collected::ExpertMoments;
pub use corrections::{Corrections, GroupTrial, WholeTrial};
pub(crate) use damping::choose as choose_damping;
pub use measure::source_files;
pub use measure::{CalibrateError, CalibrateEvent, CalibrateOptions, CalibrationInput, measure};
pub(crate) use measure::{compared, is_held_out};
pub use memory::{MeasuringMemory, MeasuringSize};
pub(crate) use moment::{Moment, rotate, square};
pub use saved::{InputMeasured, Measurements, MeasurementsError, TensorMeasured};
pub use sequences::{CalibrationText, SequenceError, digest as texts_digest, sequences};
pub use trials::{TrialOptions, correct};
