//! AVX-512 with VBMI and VNNI, where it pays; everything else is the AVX2 level, which these machines have too.

mod levels;
mod tile;
mod trellis;
mod turbo;
mod vector;
mod viterbi;

pub(super) use super::avx2::{
    add_vector_matrix, dot, energy, exact_decode, exact_dot, gram_schmidt, grid_decode, grid_dot,
    grid_dot_f32, largest, matrix_vector, mix_blocks, multiply, quantize_activations, round, score,
    turbo_decode, turbo_dot_f32, walsh_hadamard,
};
pub(super) use levels::{level_multiply, turbo_levels};
pub(super) use tile::{eliminate_tile, fixed_tile};
pub(super) use trellis::{trellis_decode, trellis_dot, trellis_dot_f32, trellis_levels};
pub(super) use turbo::turbo_dot;
pub(super) use viterbi::viterbi;
