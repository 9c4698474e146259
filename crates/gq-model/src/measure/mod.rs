//! What a calibration measures on a model: the inputs of every product, and gradients at every product's output.

mod moments;
mod pass;
#[cfg(test)]
mod tests;

pub use moments::{OutputMoments, output_moments};
pub use pass::{CalibrationPass, residual_token_bytes};
pub(crate) use pass::{LayerRun, State, run_layer};
