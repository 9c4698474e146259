//! The inner loops of the product with a fixed arithmetic, and of factorizations.

use crate::kernel::{PIVOT_COLS, PIVOT_ROWS, TILE_COLS, TILE_ROWS};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(in crate::kernel) fn fixed_tile(a: &[f32], b: &[f32], acc: &mut [[f32; TILE_COLS]; TILE_ROWS]) {
    let mut sums = [[_mm256_setzero_ps(); 2]; TILE_ROWS];
    for (sums, acc) in sums.iter_mut().zip(acc.iter()) {
        // SAFETY: a row of `acc` has 16 elements.
        *sums = unsafe { [_mm256_loadu_ps(acc.as_ptr()), _mm256_loadu_ps(acc.as_ptr().add(8))] };
    }
    for (a, b) in a.as_chunks::<TILE_ROWS>().0.iter().zip(b.as_chunks::<TILE_COLS>().0) {
        // SAFETY: a chunk of `b` has 16 elements.
        let (low, high) = unsafe { (_mm256_loadu_ps(b.as_ptr()), _mm256_loadu_ps(b.as_ptr().add(8))) };
        for (a, sums) in a.iter().zip(sums.iter_mut()) {
            let a = _mm256_set1_ps(*a);
            *sums = [_mm256_fmadd_ps(a, low, sums[0]), _mm256_fmadd_ps(a, high, sums[1])];
        }
    }
    for (sums, acc) in sums.iter().zip(acc.iter_mut()) {
        // SAFETY: a row of `acc` has 16 elements.
        unsafe {
            _mm256_storeu_ps(acc.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(acc.as_mut_ptr().add(8), sums[1]);
        }
    }
}

#[target_feature(enable = "avx2")]
pub(in crate::kernel) fn eliminate_tile(a: &[f64], b: &[f64], acc: &mut [[f64; PIVOT_COLS]; PIVOT_ROWS]) {
    let mut sums = [[_mm256_setzero_pd(); 2]; PIVOT_ROWS];
    for (sums, acc) in sums.iter_mut().zip(acc.iter()) {
        // SAFETY: a row of `acc` has 8 elements.
        *sums = unsafe { [_mm256_loadu_pd(acc.as_ptr()), _mm256_loadu_pd(acc.as_ptr().add(4))] };
    }
    for (a, b) in a.as_chunks::<PIVOT_ROWS>().0.iter().zip(b.as_chunks::<PIVOT_COLS>().0) {
        // SAFETY: a chunk of `b` has 8 elements.
        let (low, high) = unsafe { (_mm256_loadu_pd(b.as_ptr()), _mm256_loadu_pd(b.as_ptr().add(4))) };
        for (a, sums) in a.iter().zip(sums.iter_mut()) {
            let a = _mm256_set1_pd(*a);
            *sums = [
                _mm256_sub_pd(sums[0], _mm256_mul_pd(a, low)),
                _mm256_sub_pd(sums[1], _mm256_mul_pd(a, high)),
            ];
        }
    }
    for (sums, acc) in sums.iter().zip(acc.iter_mut()) {
        // SAFETY: a row of `acc` has 8 elements.
        unsafe {
            _mm256_storeu_pd(acc.as_mut_ptr(), sums[0]);
            _mm256_storeu_pd(acc.as_mut_ptr().add(4), sums[1]);
        }
    }
}
