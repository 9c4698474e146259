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
//! This crate does not know conversion, files of ours, the CPU backend of the runtime, the network or a terminal.
#![forbid(unsafe_code)]

mod deterministic;
#[cfg(test)]
mod digests;
mod divergence;
mod finite;
mod fisher;
mod pass;
mod self_text;
#[cfg(test)]
mod slopes;
mod teacher;
#[cfg(test)]
mod tests;

pub use deterministic::{FactorGradients, Factors, Observation, Replacements};
pub use finite::check_activations;
pub use fisher::{FisherDiagonal, fisher_diagonal};
pub use pass::{CalibrationPass, DualObservation, DualPass, Trial, TrialPass, residual_token_bytes};
pub use self_text::{MOST_CONVERSATIONS, SelfTextError, SelfTextOptions, conversation_bytes, self_text};
pub use teacher::Teacher;
