//! Plain Rust: the definition of every kernel.
//!
//! Loops run over fixed-width lanes, so that the same source compiled with wider instructions enabled
//! (as `avx2` does for some of them) performs the same operations in the same order.

mod grid;
mod levels;
mod linear;
mod products;
mod rounding;
mod tile;
mod trellis;

pub(super) use grid::{grid_decode, grid_dot, grid_dot_f32};
pub(super) use levels::{level_multiply, turbo_levels};
pub(super) use linear::{
    add_vector_matrix, dot, gram_schmidt, matrix_vector, mix_blocks, multiply, walsh_hadamard,
    wide_butterflies,
};
pub(super) use products::{exact_decode, exact_dot, turbo_decode, turbo_dot, turbo_dot_f32};
pub(super) use rounding::{SMALLEST, energy, largest, quantize_activations, round, score};
pub(super) use tile::{eliminate_tile, fixed_tile};
pub(super) use trellis::{trellis_decode, trellis_dot, trellis_dot_f32, trellis_levels, viterbi};

/// Lanes of every reduction.
const LANES: usize = 8;

/// The order in which lanes are added at the end of a reduction.
#[inline(always)]
pub(super) fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

/// [`sum_lanes`] in f64.
#[inline(always)]
pub(super) fn sum_lanes_f64(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
