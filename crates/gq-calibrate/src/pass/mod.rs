//! Sequences through a model, a layer at a time: one walk, for whoever observes, compares, tries or goes back.
//!
//! A [`Walk`] is one sequence's way through one model. What is left of it between two layers is a [`State`]; a pass over
//! many sequences keeps theirs in [`States`], in memory or in a file.

mod calibration;
mod dual_pass;
mod gradients;
mod head;
mod spill;
mod state;
mod states;
mod trial;
mod walk;

pub use calibration::CalibrationPass;
pub use dual_pass::{DualObservation, DualPass};
#[cfg(test)]
pub(crate) use gradients::Layers;
pub(crate) use gradients::{Seen, back};
pub(crate) use head::{HEAD_ROWS, block_rows, logits};
pub(crate) use state::State;
pub use states::residual_token_bytes;
pub use trial::{Trial, TrialPass};
pub(crate) use walk::{Run, Walk, rope_tables};
