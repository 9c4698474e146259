//! Calibration: what weights are rounded by, measured on the model that they are of, in one arithmetic that is the same on
//! every CPU and thread count.
//!
//! A *pass* takes sequences through a model a layer at a time. [`CalibrationPass`] shows an observer the inputs of every
//! product; [`DualPass`] shows those of a model and of its rounded copy at the same tokens; [`TrialPass`] says how far
//! the model moves when some of its weights are rounded. *Replacements* ([`Replacements`]) are weights that stand in for
//! others meanwhile. The *Fisher diagonal* ([`fisher_diagonal`]) says what an error at each output costs. A *teacher*
//! ([`Teacher`]) is a model that another one is compared with, and gives gradients by *factors* ([`Factors`]) on rows
//! and norms. *Self-written text* ([`self_text`]) is what a model says when it is asked, to calibrate on.
//!
//! [`measure`] does all that a conversion needs and leaves *measurements*: a plain value ([`Measurements`]: sensitivities,
//! dampings, corrections) and a directory ([`MeasurementsDir`]) with that and the moments of all inputs. [`correct`]
//! compares what they predict with trials.
//!
//! This crate does not know conversion, containers, the CPU backend of the runtime, the network or a terminal.
#![forbid(unsafe_code)]

mod deterministic;
mod finite;
mod fisher;
mod measure;
mod measurements;
mod pass;
mod self_text;
mod teacher;

pub use deterministic::{FactorGradients, Factors, Observation, Replacements};
pub use finite::check_activations;
pub use fisher::{FisherDiagonal, fisher_diagonal};
pub use measure::{
    BuiltinError, CalibrateError, CalibrateEvent, CalibrateOptions, CalibrationInput, CalibrationText,
    Chosen, ExpertMoments, FACTORS_AT_WORK, MeasuringMemory, MeasuringSize, Part, SequenceError,
    TrialOptions, TrialRounding, builtin, choose_damping, compared, compared_tokens, correct, is_held_out,
    measure, sequences, source_files, texts_digest,
};
pub use measurements::{
    Corrections, GroupTrial, InputMeasured, Measurements, MeasurementsDir, MeasurementsError, Moment,
    TensorMeasured, WholeTrial, rotate, square,
};
pub use pass::{CalibrationPass, DualObservation, DualPass, Trial, TrialPass, residual_token_bytes};
pub use self_text::{MOST_CONVERSATIONS, SelfTextError, SelfTextOptions, conversation_bytes, self_text};
pub use teacher::Teacher;

#[cfg(test)]
mod digests;
#[cfg(test)]
mod slopes;
#[cfg(test)]
mod tests;
