//! Orthogonal transforms and dense products.

use super::{LANES, sum_lanes, sum_lanes_f64};

#[inline(always)]
pub(crate) fn multiply(x: &mut [f32], factors: &[f32]) {
    for (x, &factor) in x.iter_mut().zip(factors) {
        *x *= factor;
    }
}

#[inline(always)]
pub(crate) fn walsh_hadamard(x: &mut [f32], block: usize) {
    let (octets, _) = x.as_chunks_mut::<LANES>();
    for octet in octets {
        butterflies_of_eight(octet);
    }
    wide_butterflies(x, block);
}

/// Stages 1, 2 and 4.
#[inline(always)]
fn butterflies_of_eight(x: &mut [f32; LANES]) {
    for half in [1, 2, 4] {
        for i in (0..LANES).filter(|i| i & half == 0) {
            (x[i], x[i + half]) = (x[i] + x[i + half], x[i] - x[i + half]);
        }
    }
}

/// Stages 8 to `block / 2`, two at a time where two remain: the same sums in the same order.
#[inline(always)]
pub(crate) fn wide_butterflies(x: &mut [f32], block: usize) {
    for block in x.chunks_exact_mut(block) {
        let mut half = LANES;
        while 4 * half <= block.len() {
            for part in block.chunks_exact_mut(4 * half) {
                let (low, high) = part.split_at_mut(2 * half);
                let ((a, b), (c, d)) = (low.split_at_mut(half), high.split_at_mut(half));
                for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                    let (sum, difference) = (*a + *b, *a - *b);
                    let (other_sum, other_difference) = (*c + *d, *c - *d);
                    (*a, *c) = (sum + other_sum, sum - other_sum);
                    (*b, *d) = (difference + other_difference, difference - other_difference);
                }
            }
            half *= 4;
        }
        if 2 * half <= block.len() {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
}

/// Columns handled together.
const TILE: usize = 32;

#[inline(always)]
pub(crate) fn mix_blocks(matrix: &[f32], p: usize, inner: usize, x: &[f32], out: &mut [f32]) {
    for (x, out) in x.chunks_exact(p * inner).zip(out.chunks_exact_mut(p * inner)) {
        for (coefficients, out) in matrix.chunks_exact(p).zip(out.chunks_exact_mut(inner)) {
            let (tiles, _) = out.as_chunks_mut::<TILE>();
            for (t, tile) in tiles.iter_mut().enumerate() {
                let mut sum = [0.0; TILE];
                for (j, &coefficient) in coefficients.iter().enumerate() {
                    if let Some(source) = x.get(j * inner + t * TILE..).and_then(|s| s.first_chunk::<TILE>())
                    {
                        for (sum, &value) in sum.iter_mut().zip(source) {
                            *sum += coefficient * value;
                        }
                    }
                }
                *tile = sum;
            }
        }
    }
}

#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_octets, a_rest) = a.as_chunks::<LANES>();
    let (b_octets, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a_octets.iter().zip(b_octets) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    sum_lanes(lanes)
}

#[inline(always)]
fn dot_f64(a: &[f64], b: &[f64]) -> f64 {
    let (a_octets, a_rest) = a.as_chunks::<LANES>();
    let (b_octets, b_rest) = b.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in a_octets.iter().zip(b_octets) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane += a * b;
    }
    sum_lanes_f64(lanes)
}

#[inline(always)]
pub(crate) fn gram_schmidt(rows: &mut [f64], cols: usize) {
    let mut rest = rows;
    while let Some((row, below)) = rest.split_at_mut_checked(cols) {
        let factor = 1.0 / dot_f64(row, row).sqrt();
        for value in row.iter_mut() {
            *value *= factor;
        }
        for other in below.chunks_exact_mut(cols) {
            let overlap = dot_f64(row, other);
            for (other, &value) in other.iter_mut().zip(row.iter()) {
                *other -= overlap * value;
            }
        }
        rest = below;
    }
}

/// Rows multiplied together, so that one row's additions do not wait for each other.
const TOGETHER: usize = 4;

/// Each product is [`dot`]'s.
#[inline(always)]
pub(crate) fn matrix_vector(matrix: &[f32], x: &[f32], out: &mut [f32]) {
    let cols = x.len().max(1);
    let (octets, rest) = x.as_chunks::<LANES>();
    let (together, last) = out.as_chunks_mut::<TOGETHER>();
    let mut parts = matrix.chunks_exact(TOGETHER * cols);
    for (out, rows) in together.iter_mut().zip(&mut parts) {
        let mut lanes = [[0.0; LANES]; TOGETHER];
        for (i, octet) in octets.iter().enumerate() {
            for (lanes, row) in lanes.iter_mut().zip(rows.chunks_exact(cols)) {
                if let Some(row) = row.get(i * LANES..).and_then(|row| row.first_chunk::<LANES>()) {
                    for ((lane, &a), &b) in lanes.iter_mut().zip(row).zip(octet) {
                        *lane += a * b;
                    }
                }
            }
        }
        for ((out, mut lanes), row) in out.iter_mut().zip(lanes).zip(rows.chunks_exact(cols)) {
            for ((lane, &a), &b) in lanes.iter_mut().zip(&row[cols - rest.len()..]).zip(rest) {
                *lane += a * b;
            }
            *out = sum_lanes(lanes);
        }
    }
    for (out, row) in last.iter_mut().zip(parts.remainder().chunks_exact(cols)) {
        *out = dot(row, x);
    }
}

#[inline(always)]
pub(crate) fn add_vector_matrix(matrix: &[f32], x: &[f32], out: &mut [f32]) {
    for (row, &factor) in matrix.chunks_exact(out.len().max(1)).zip(x) {
        for (out, &value) in out.iter_mut().zip(row) {
            *out += factor * value;
        }
    }
}
