//! The inner loops of the product with a fixed arithmetic, and of factorizations.

use crate::kernel::{PIVOT_COLS, PIVOT_ROWS, TILE_COLS, TILE_ROWS};

pub(in crate::kernel) fn fixed_tile(a: &[f32], b: &[f32], acc: &mut [[f32; TILE_COLS]; TILE_ROWS]) {
    for (a, b) in a.as_chunks::<TILE_ROWS>().0.iter().zip(b.as_chunks::<TILE_COLS>().0) {
        for (a, acc) in a.iter().zip(acc.iter_mut()) {
            for (b, acc) in b.iter().zip(acc.iter_mut()) {
                *acc = a.mul_add(*b, *acc);
            }
        }
    }
}

#[inline(always)]
pub(in crate::kernel) fn eliminate_tile(a: &[f64], b: &[f64], acc: &mut [[f64; PIVOT_COLS]; PIVOT_ROWS]) {
    let mut sums = *acc;
    for (a, b) in a.as_chunks::<PIVOT_ROWS>().0.iter().zip(b.as_chunks::<PIVOT_COLS>().0) {
        for (a, sums) in a.iter().zip(sums.iter_mut()) {
            for (b, sum) in b.iter().zip(sums.iter_mut()) {
                *sum -= a * b;
            }
        }
    }
    *acc = sums;
}
