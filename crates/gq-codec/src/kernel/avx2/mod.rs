//! AVX2, FMA and F16C. Where the scalar loops vectorize well, this level is the same source compiled with
//! these instructions enabled; Rust never contracts `a * b + c`, so the bits are the same.

use super::{TurboRows, scalar};
use crate::{Activations, Codebook};
use gq_tensor::DType;

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
    walsh_hadamard(x: &mut [f32], block: usize);
    mix_blocks(matrix: &[f32], p: usize, inner: usize, x: &[f32], out: &mut [f32]);
    gram_schmidt(rows: &mut [f64], cols: usize);
    matrix_vector(matrix: &[f32], x: &[f32], out: &mut [f32]);
    add_vector_matrix(matrix: &[f32], x: &[f32], out: &mut [f32]);
    dot(a: &[f32], b: &[f32]) -> f32;
    energy(x: &[f32]) -> f64;
    largest(x: &[f32]) -> f32;
    score(book: Codebook, x: &[f32], inverse_step: f32) -> (f64, f64);
    round(book: Codebook, x: &[f32], inverse_step: f32, codes: &mut [u8]) -> (f64, f64);
    quantize_activations(x: &[f32], values: &mut [i8], magnitudes: &mut [u8], scales: &mut [f32]);
    turbo_decode(rows: TurboRows<'_>, out: &mut [f32]);
    turbo_dot(rows: TurboRows<'_>, x: &Activations, out: &mut [f32]);
    turbo_dot_f32(rows: TurboRows<'_>, x: &[f32], out: &mut [f32]);
    exact_decode(dtype: DType, bytes: &[u8], out: &mut [f32]);
    exact_dot(dtype: DType, bytes: &[u8], x: &[f32], out: &mut [f32]);
}
