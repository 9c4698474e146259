//! Elementary functions, to the bit those of the CPU: [`gq_tensor::math`].

pub use gq_tensor::math::{exp, tanh};
use gq_tensor::math::{gelu_tanh, silu};

/// `activation(gate) * up`: SiLU, or GELU by tanh.
pub fn gated(gelu: bool, gate: f32, up: f32) -> f32 {
    (if gelu { gelu_tanh(gate) } else { silu(gate) }) * up
}

/// The larger one; the second where either is no number.
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}
