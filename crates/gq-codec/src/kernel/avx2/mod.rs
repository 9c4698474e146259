//! AVX2, FMA and F16C. Where the scalar loops vectorize well, this level is the same source compiled with
//! these instructions enabled; Rust never contracts `a * b + c`, so the bits are the same.

mod grid;
mod planes;
mod products;
mod rounding;
mod tile;
mod trellis;
mod vector;
mod walsh;

pub(super) use grid::grid_dot;
pub(super) use products::{
    combine_scales, exact_decode, exact_dot, scale_at, turbo_decode, turbo_dot, turbo_dot_f32,
};
pub(super) use rounding::{energy, quantize_activations, round, score};
pub(super) use tile::{eliminate_tile, fixed_tile};
pub(super) use trellis::{trellis_decode, trellis_dot, trellis_dot_f32, viterbi};
pub(super) use walsh::walsh_hadamard;

use super::{GridRows, StripRows, TileRows, TileTokens, TurboRows, scalar};

/// The scalar definition, compiled for this level.
macro_rules! recompiled {
    ($($name:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?;)*) => {$(
        #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name($($argument: $kind),*) $(-> $result)? {
            scalar::$name($($argument),*)
        }
    )*};
}

recompiled! {
    multiply(x: &mut [f32], factors: &[f32]);
    mix_blocks(matrix: &[f32], p: usize, inner: usize, x: &[f32], out: &mut [f32]);
    gram_schmidt(rows: &mut [f64], cols: usize);
    matrix_vector(matrix: &[f32], x: &[f32], out: &mut [f32]);
    add_vector_matrix(matrix: &[f32], x: &[f32], out: &mut [f32]);
    dot(a: &[f32], b: &[f32]) -> f32;
    largest(x: &[f32]) -> f32;
    grid_decode(rows: GridRows<'_>, out: &mut [f32]);
    turbo_levels(rows: TurboRows<'_>, low: &mut [u8], high: &mut [u8]);
    trellis_levels(strip: StripRows<'_>, at: usize, low: &mut [u8]);
    level_multiply(tile: TileRows<'_>, x: TileTokens<'_>, out: &mut [f32], stride: usize);
    grid_dot_f32(rows: GridRows<'_>, x: &[f32], out: &mut [f32]);
}
