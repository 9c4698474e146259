//! The inner loop of the product with a fixed arithmetic.

use crate::kernel::{TILE_COLS, TILE_ROWS};

pub(in crate::kernel) fn fixed_tile(a: &[f32], b: &[f32], acc: &mut [[f32; TILE_COLS]; TILE_ROWS]) {
    for (a, b) in a.as_chunks::<TILE_ROWS>().0.iter().zip(b.as_chunks::<TILE_COLS>().0) {
        for (a, acc) in a.iter().zip(acc.iter_mut()) {
            for (b, acc) in b.iter().zip(acc.iter_mut()) {
                *acc = a.mul_add(*b, *acc);
            }
        }
    }
}
