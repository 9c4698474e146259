//! Trellis codes: the definition.

use crate::Activations;
use crate::kernel::{BLOCK_ROWS, LEVEL_BIAS, MOST_GROUPS, StripRows, tile_place};
use crate::packing::GROUP;

pub(in crate::kernel) fn viterbi(
    bits: u32,
    values: &[f32],
    targets: &[f32],
    weights: &[f32],
    cost: &mut [f32],
    branch: &mut [u8],
) {
    let branches = 1usize << bits;
    let groups = values.len() >> bits;
    let mask = branches as u32 - 1;
    let mut best = [0u32; MOST_GROUPS];
    let best = &mut best[..groups];
    for ((&target, &weight), branch) in targets.iter().zip(weights).zip(branch.chunks_exact_mut(groups)) {
        best.fill(u32::MAX);
        for (top, cost) in cost.chunks_exact(groups).enumerate() {
            for (best, cost) in best.iter_mut().zip(cost) {
                *best = (cost.to_bits() & !mask | top as u32).min(*best);
            }
        }
        let states = cost.chunks_exact_mut(branches).zip(values.chunks_exact(branches));
        for (((cost, values), &best), branch) in states.zip(best.iter()).zip(branch) {
            *branch = (best & mask) as u8;
            let base = f32::from_bits(best & !mask);
            for (cost, &value) in cost.iter_mut().zip(values) {
                let error = target - value;
                *cost = base + weight * (error * error);
            }
        }
    }
}

/// Levels of some rows of a column.
fn column_levels(strip: &StripRows<'_>, col: usize, first: usize, out: &mut [i8]) {
    let column = strip.column(col);
    let (bits, log_states) = (strip.trellis.bits as usize, strip.trellis.log_states);
    let mask = (1 << log_states) - 1;
    for (row, level) in (first..).zip(out) {
        // The bits before the first row are those of the last ones.
        let end = (row + 1) * bits;
        let last = (end - 1) / 8;
        let byte = |back: usize| u32::from(column[(last + 2 * column.len() - back) % column.len()]);
        let window = (byte(2) << 16 | byte(1) << 8 | byte(0)) >> ((last + 1) * 8 - end);
        *level = strip.trellis.levels[(window & mask) as usize];
    }
}

#[inline(always)]
pub(in crate::kernel) fn trellis_levels(strip: StripRows<'_>, at: usize, low: &mut [u8]) {
    let rows = strip.steps.len();
    let mut levels = [0; gq_tensor::Encoding::STRIP_ROWS];
    for col in 0..strip.cols {
        let levels = &mut levels[..rows];
        column_levels(&strip, col, strip.first, levels);
        for (row, &level) in (at..).zip(&*levels) {
            low[tile_place(strip.cols, row, col)] = (LEVEL_BIAS + i32::from(level)) as u8;
        }
    }
}

pub(in crate::kernel) fn trellis_decode(strip: StripRows<'_>, out: &mut [f32]) {
    let rows = strip.steps.len();
    let mut levels = [0; gq_tensor::Encoding::STRIP_ROWS];
    for col in 0..strip.cols {
        let levels = &mut levels[..rows];
        column_levels(&strip, col, strip.first, levels);
        for ((row, &level), &step) in out.chunks_exact_mut(strip.cols).zip(&*levels).zip(strip.steps) {
            row[col] = step * f32::from(level);
        }
    }
}

pub(in crate::kernel) fn trellis_dot(strip: StripRows<'_>, x: &Activations, out: &mut [f32]) {
    let mut levels = [0; BLOCK_ROWS];
    for (block, (out, steps)) in out.chunks_mut(BLOCK_ROWS).zip(strip.steps.chunks(BLOCK_ROWS)).enumerate() {
        let mut sums = [0.0; BLOCK_ROWS];
        for (group, (x, &scale)) in x.values.chunks(GROUP).zip(&x.scales).enumerate() {
            let mut products = [0i32; BLOCK_ROWS];
            for (col, &x) in (group * GROUP..).zip(x) {
                let levels = &mut levels[..out.len()];
                column_levels(&strip, col, strip.first + block * BLOCK_ROWS, levels);
                for (product, &level) in products.iter_mut().zip(&*levels) {
                    *product += i32::from(level) * i32::from(x);
                }
            }
            for (sum, product) in sums.iter_mut().zip(products) {
                *sum += scale * product as f32;
            }
        }
        for ((out, sum), step) in out.iter_mut().zip(sums).zip(steps) {
            *out = step * sum;
        }
    }
}

pub(in crate::kernel) fn trellis_dot_f32(strip: StripRows<'_>, x: &[f32], out: &mut [f32]) {
    let mut levels = [0; BLOCK_ROWS];
    for (block, (out, steps)) in out.chunks_mut(BLOCK_ROWS).zip(strip.steps.chunks(BLOCK_ROWS)).enumerate() {
        let mut sums = [0.0f32; BLOCK_ROWS];
        for (col, &x) in x.iter().enumerate() {
            let levels = &mut levels[..out.len()];
            column_levels(&strip, col, strip.first + block * BLOCK_ROWS, levels);
            for (sum, &level) in sums.iter_mut().zip(&*levels) {
                *sum += f32::from(level) * x;
            }
        }
        for ((out, sum), step) in out.iter_mut().zip(sums).zip(steps) {
            *out = step * sum;
        }
    }
}
