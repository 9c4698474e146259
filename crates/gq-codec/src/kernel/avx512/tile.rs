//! The inner loops of the product with a fixed arithmetic, and of factorizations.

use crate::kernel::{PIVOT_COLS, PIVOT_ROWS, TILE_COLS, TILE_ROWS};
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f")]
pub(in crate::kernel) fn fixed_tile(a: &[f32], b: &[f32], acc: &mut [[f32; TILE_COLS]; TILE_ROWS]) {
    let mut sums = [_mm512_setzero_ps(); TILE_ROWS];
    for (sum, acc) in sums.iter_mut().zip(acc.iter()) {
        // SAFETY: a row of `acc` has 16 elements.
        *sum = unsafe { _mm512_loadu_ps(acc.as_ptr()) };
    }
    for (a, b) in a.as_chunks::<TILE_ROWS>().0.iter().zip(b.as_chunks::<TILE_COLS>().0) {
        // SAFETY: a chunk of `b` has 16 elements.
        let b = unsafe { _mm512_loadu_ps(b.as_ptr()) };
        for (a, sum) in a.iter().zip(sums.iter_mut()) {
            *sum = _mm512_fmadd_ps(_mm512_set1_ps(*a), b, *sum);
        }
    }
    for (sum, acc) in sums.iter().zip(acc.iter_mut()) {
        // SAFETY: a row of `acc` has 16 elements.
        unsafe { _mm512_storeu_ps(acc.as_mut_ptr(), *sum) };
    }
}

#[target_feature(enable = "avx512f")]
pub(in crate::kernel) fn eliminate_tile(a: &[f64], b: &[f64], acc: &mut [[f64; PIVOT_COLS]; PIVOT_ROWS]) {
    let mut sums = [_mm512_setzero_pd(); PIVOT_ROWS];
    for (sum, acc) in sums.iter_mut().zip(acc.iter()) {
        // SAFETY: a row of `acc` has 8 elements.
        *sum = unsafe { _mm512_loadu_pd(acc.as_ptr()) };
    }
    for (a, b) in a.as_chunks::<PIVOT_ROWS>().0.iter().zip(b.as_chunks::<PIVOT_COLS>().0) {
        // SAFETY: a chunk of `b` has 8 elements.
        let b = unsafe { _mm512_loadu_pd(b.as_ptr()) };
        for (a, sum) in a.iter().zip(sums.iter_mut()) {
            *sum = _mm512_sub_pd(*sum, _mm512_mul_pd(_mm512_set1_pd(*a), b));
        }
    }
    for (sum, acc) in sums.iter().zip(acc.iter_mut()) {
        // SAFETY: a row of `acc` has 8 elements.
        unsafe { _mm512_storeu_pd(acc.as_mut_ptr(), *sum) };
    }
}
