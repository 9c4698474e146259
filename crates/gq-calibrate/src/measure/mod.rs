//! Runs the original model over a text and measures what rounding and budgets are decided by.

mod builtin;
mod collected;
mod costs;
mod damping;
mod error;
mod event;
mod held_out;
mod memory;
mod run;
mod sequences;
mod trials;

pub use builtin::{BuiltinError, builtin};
pub use collected::ExpertMoments;
pub use damping::{Chosen, choose as choose_damping};
pub use error::CalibrateError;
pub use event::{CalibrateEvent, Part};
pub use held_out::{compared, compared_tokens, is_held_out};
pub use memory::{FACTORS_AT_WORK, MeasuringMemory, MeasuringSize};
pub use run::{CalibrateOptions, CalibrationInput, measure, source_files};
pub use sequences::{CalibrationText, SequenceError, digest as texts_digest, sequences};
pub use trials::{TrialOptions, TrialRounding, correct};
