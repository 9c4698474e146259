//! Rows to blocks: strips of rows, block after block, sub-block after sub-block.

use super::fit::fit;
use super::table::{BlockCode, Scales};
use super::trial::{LANES, Lanes, Rounded, Scale, SubBlock};
use crate::factor::Factor;
use crate::fixed_product::{Operand, ProductShape, fixed_product};
use crate::parallelism::Parallelism;
use gq_tensor::Isa;
use gq_tensor::ggml::{BlockParts, pack_block};
use half::f16;
use rayon::prelude::*;

/// Rows rounded together; the bytes do not depend on it.
const STRIP: usize = 4 * LANES;

/// What errors cost.
#[derive(Clone, Copy, Debug)]
pub enum Metric<'a> {
    /// Each column's squared error by its weight, `[n]`: rounding to nearest.
    Importance(&'a [f32]),
    /// `e H e^T`: errors are fed back to later columns.
    Moment(&'a Factor),
}

impl Metric<'_> {
    /// Columns.
    fn width(&self) -> usize {
        match self {
            Metric::Importance(weights) => weights.len(),
            Metric::Moment(factor) => factor.n(),
        }
    }

    /// What a squared residual of each column costs, in units of the mean.
    fn costs(&self) -> Vec<f32> {
        let costs: Vec<f64> = match self {
            Metric::Importance(weights) => weights.iter().map(|&w| f64::from(w)).collect(),
            Metric::Moment(factor) => factor.diagonal().to_vec(),
        };
        let mean = costs.iter().sum::<f64>() / costs.len().max(1) as f64;
        let unit = if mean > 0.0 { 1.0 / mean } else { 1.0 };
        costs.into_iter().map(|cost| (cost * unit) as f32).collect()
    }
}

/// Rounds rows `[rows, n]` to whole blocks of `code`, into `out`; n is the metric's width. Values are finite.
///
/// Threads of the current pool share the rows.
///
/// # Panics
/// When blocks do not divide n, or `out` has other bytes than the rows take.
pub fn round_blocks(level: Isa, code: BlockCode, metric: Metric<'_>, rows: &[f32], out: &mut [u8]) {
    let (n, kind) = (metric.width(), code.kind());
    let row_bytes = kind.row_bytes(n).unwrap_or(0);
    assert!(row_bytes > 0 && rows.len().is_multiple_of(n), "rows of {n} in blocks of {kind}");
    assert!(rows.len() / n * row_bytes == out.len(), "bytes of {kind}");
    let costs = metric.costs();
    let strips = rows.par_chunks(STRIP * n).zip(out.par_chunks_mut(STRIP * row_bytes));
    strips.for_each(|(rows, out)| {
        Strip::new(level, code, metric, &costs, rows).round(out);
    });
}

/// Rows that are rounded together.
struct Strip<'a> {
    level: Isa,
    code: BlockCode,
    metric: Metric<'a>,
    costs: &'a [f32],
    rows: &'a [f32],
    count: usize,
    /// Rows in whole groups.
    stride: usize,
}

/// A block of [`LANES`] rows on its way.
struct Block {
    /// Scales of scales and of minima.
    of_scales: Scale,
    parts: Vec<BlockParts>,
}

impl<'a> Strip<'a> {
    fn new(level: Isa, code: BlockCode, metric: Metric<'a>, costs: &'a [f32], rows: &'a [f32]) -> Strip<'a> {
        let count = rows.len() / costs.len().max(1);
        Strip { level, code, metric, costs, rows, count, stride: count.next_multiple_of(LANES) }
    }

    /// Rounds all columns; gives the errors, `[n, stride]`.
    fn round(&self, out: &mut [u8]) -> Vec<f32> {
        let (n, kind) = (self.costs.len(), self.code.kind());
        let (block, sub, row_bytes) = (kind.block_len(), self.code.sub, kind.row_bytes(n).unwrap_or(0));
        let mut errors = vec![0.0f32; n * self.stride];
        let mut targets = vec![0.0f32; block * self.stride];
        let mut rounded = Rounded::new();
        let groups = self.stride / LANES;
        for start in (0..n).step_by(block) {
            for (j, targets) in targets.chunks_exact_mut(self.stride).enumerate() {
                targets.fill(0.0);
                for (row, target) in targets.iter_mut().enumerate().take(self.count) {
                    *target = self.rows[row * n + start + j];
                }
            }
            self.feed_back(0..start, start, &errors, &mut targets);
            let mut blocks: Vec<Block> =
                (0..groups).map(|group| self.begin(start, group, &targets, &mut rounded)).collect();
            for place in (0..block).step_by(sub) {
                let (at, targets) =
                    (start + place, &mut targets[place * self.stride..(place + sub) * self.stride]);
                self.feed_back(start..at, at, &errors, targets);
                let feedback = self.within(at, sub);
                for (group, block) in blocks.iter_mut().enumerate() {
                    let targets = lanes(targets, self.stride, group, sub);
                    let weights = self.weights(at, group, sub);
                    let part = SubBlock {
                        weights: &weights,
                        targets: &targets,
                        feedback: &feedback,
                        costs: &self.costs[at..at + sub],
                    };
                    self.round_part(&part, place, block, &mut rounded);
                    for (j, error) in rounded.errors.iter().enumerate().take(sub) {
                        errors[(at + j) * self.stride + group * LANES..][..LANES].copy_from_slice(error);
                    }
                }
            }
            let bytes = start / block * kind.block_bytes()..(start / block + 1) * kind.block_bytes();
            let parts = blocks.iter().flat_map(|block| &block.parts);
            for (parts, row) in parts.zip(out.chunks_exact_mut(row_bytes)) {
                pack_block(kind, parts, &mut row[bytes.clone()]);
            }
        }
        errors
    }

    /// Adds to the targets of columns from `at` on what errors of earlier columns feed back to them.
    fn feed_back(&self, from: std::ops::Range<usize>, at: usize, errors: &[f32], targets: &mut [f32]) {
        let (Metric::Moment(factor), false) = (self.metric, from.is_empty()) else { return };
        let n = factor.n();
        let upper = Operand { data: &factor.upper()[from.start * n + at..], row_stride: 1, col_stride: n };
        let errors = Operand::rows(&errors[from.start * self.stride..], self.stride);
        let shape = ProductShape { rows: targets.len() / self.stride, cols: self.stride, depth: from.len() };
        fixed_product(self.level, Parallelism::Serial, shape, upper, errors, targets, self.stride);
    }

    /// U of some columns among themselves, column after column; nothing where there is no feedback.
    fn within(&self, at: usize, width: usize) -> Vec<f32> {
        let Metric::Moment(factor) = self.metric else { return Vec::new() };
        let (n, upper) = (factor.n(), factor.upper());
        let entry = |j: usize, k: usize| if k < j { upper[(at + k) * n + at + j] } else { 0.0 };
        (0..width).flat_map(|j| (0..width).map(move |k| entry(j, k))).collect()
    }

    /// Weights of some columns of some rows.
    fn weights(&self, at: usize, group: usize, width: usize) -> Vec<Lanes> {
        let n = self.costs.len();
        let weight = |row: usize, col: usize| if row < self.count { self.rows[row * n + col] } else { 0.0 };
        let column = |j: usize| std::array::from_fn(|lane| weight(group * LANES + lane, at + j));
        (0..width).map(column).collect()
    }

    /// A block before its first value: the scales of its sub-blocks' scales, where it has such, from the scales that suit
    /// the targets as they are now.
    fn begin(&self, start: usize, group: usize, targets: &[f32], rounded: &mut Rounded) -> Block {
        let zeros = Scale { step: [0.0; LANES], min: [0.0; LANES] };
        let mut block = Block { of_scales: zeros, parts: vec![BlockParts::default(); LANES] };
        let (low, top) = match self.code.scales {
            Scales::Half | Scales::HalfAndMin => return block,
            Scales::Coded { low, .. } => (low, 1.0),
            Scales::CodedAndMin { top } => (top, top),
        };
        let (sub, mut extreme) = (self.code.sub, zeros);
        for place in (0..self.code.kind().block_len()).step_by(sub) {
            let targets = lanes(&targets[place * self.stride..], self.stride, group, sub);
            let costs = &self.costs[start + place..][..sub];
            let part = SubBlock { weights: &targets, targets: &targets, feedback: &[], costs };
            let scale = fit(self.code, &part, rounded);
            for lane in 0..LANES {
                if scale.step[lane].abs() > extreme.step[lane].abs() {
                    extreme.step[lane] = scale.step[lane];
                }
                extreme.min[lane] = extreme.min[lane].max(scale.min[lane]);
            }
        }
        for (lane, parts) in block.parts.iter_mut().enumerate() {
            // What is too large for half precision gets the largest there is: no scale is infinite.
            let stored = |value: f32| f16::from_f32(value.clamp(-65504.0, 65504.0));
            parts.scale = stored(extreme.step[lane] / low);
            parts.min = stored(extreme.min[lane] / top);
            block.of_scales.step[lane] = parts.scale.to_f32();
            block.of_scales.min[lane] = parts.min.to_f32();
        }
        block
    }

    /// Chooses the scale of a sub-block and rounds it.
    fn round_part(&self, part: &SubBlock<'_>, place: usize, block: &mut Block, rounded: &mut Rounded) {
        let fitted = fit(self.code, part, rounded);
        let sub = place / self.code.sub;
        let scale = match self.code.scales {
            Scales::Half | Scales::HalfAndMin => {
                for (lane, parts) in block.parts.iter_mut().enumerate() {
                    parts.scale = f16::from_f32(fitted.step[lane]);
                    parts.min = f16::from_f32(-fitted.min[lane]);
                }
                fitted
            }
            Scales::Coded { low, high } => {
                let bounds = [(low, high), (0.0, 0.0)];
                self.coded(part, &fitted, bounds, sub, block, rounded)
            }
            Scales::CodedAndMin { top } => self.coded(part, &fitted, [(0.0, top); 2], sub, block, rounded),
        };
        part.round(self.code.levels, &scale, rounded);
        for (j, levels) in rounded.levels.iter().enumerate().take(self.code.sub) {
            for (parts, &level) in block.parts.iter_mut().zip(levels) {
                parts.codes[place + j] = self.code.stored(level);
            }
        }
    }

    /// The integers near a fitted scale and minimum that cost least.
    fn coded(
        &self,
        part: &SubBlock<'_>,
        fitted: &Scale,
        [of_steps, of_mins]: [(f32, f32); 2],
        sub: usize,
        block: &mut Block,
        rounded: &mut Rounded,
    ) -> Scale {
        let unit = block.of_scales;
        let near = |fitted: f32, unit: f32, by: f32, (low, high): (f32, f32)| {
            let at = if unit == 0.0 { 0.0 } else { fitted / unit };
            (at.round() + by).clamp(low, high)
        };
        let mins: &[f32] = if of_mins.1 > 0.0 { &[0.0, -1.0, 1.0] } else { &[0.0] };
        let (mut least, mut best) = ([f32::INFINITY; LANES], Scale { step: [0.0; LANES], min: [0.0; LANES] });
        for by in [0.0, -1.0, 1.0] {
            for &min_by in mins {
                let codes: [(f32, f32); LANES] = std::array::from_fn(|lane| {
                    let step = near(fitted.step[lane], unit.step[lane], by, of_steps);
                    (step, near(fitted.min[lane], unit.min[lane], min_by, of_mins))
                });
                let scale = Scale {
                    step: std::array::from_fn(|lane| unit.step[lane] * codes[lane].0),
                    min: std::array::from_fn(|lane| unit.min[lane] * codes[lane].1),
                };
                part.round(self.code.levels, &scale, rounded);
                for (lane, parts) in block.parts.iter_mut().enumerate() {
                    if rounded.cost[lane] < least[lane] {
                        least[lane] = rounded.cost[lane];
                        (best.step[lane], best.min[lane]) = (scale.step[lane], scale.min[lane]);
                        parts.scales[sub] = codes[lane].0 as i8;
                        parts.mins[sub] = codes[lane].1 as u8;
                    }
                }
            }
        }
        best
    }
}

/// Columns of one group of rows, of columns of a whole strip.
fn lanes(columns: &[f32], stride: usize, group: usize, width: usize) -> Vec<Lanes> {
    let column = |column: &[f32]| std::array::from_fn(|lane| column[group * LANES + lane]);
    columns.chunks_exact(stride).take(width).map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_tensor::ggml::decode_blocks;

    /// The errors that rounding claims, and feeds back, are those of the bytes, bit for bit.
    #[test]
    fn bytes_decode_to_what_was_rounded_to() {
        let (n, count) = (512, 37);
        let noise = |i: usize| ((i * 7919 + i / 13 * 31) % 2003) as f32 / 1001.0 - 1.0;
        let rows: Vec<f32> = (0..count * n).map(|i| 0.3 * noise(i) + noise(i / 3).powi(5)).collect();
        let inputs: Vec<f32> = (0..2 * n * n).map(|i| noise(3 * i) + noise(i / n * 17)).collect();
        let mut moment = vec![0.0; n * n];
        let shape = ProductShape { rows: n, cols: n, depth: 2 * n };
        let (columns, level) = (Operand::rows(&inputs, n), Isa::detect());
        fixed_product(level, Parallelism::Threads, shape, columns.t(), columns, &mut moment, n);
        let factor = Factor::new(level, &moment, n, 0.03).unwrap();
        let costs = Metric::Moment(&factor).costs();
        for code in BlockCode::all() {
            let mut bytes = vec![0; count * code.kind().row_bytes(n).unwrap()];
            let rows = &rows[..count * n];
            let strip = Strip::new(level, code, Metric::Moment(&factor), &costs, rows);
            let errors = strip.round(&mut bytes);
            let mut decoded = vec![0.0; count * n];
            decode_blocks(code.kind(), &bytes, &mut decoded);
            for (i, (weight, value)) in rows.iter().zip(&decoded).enumerate() {
                assert_eq!(weight - value, errors[i % n * strip.stride + i / n], "{} {i}", code.kind());
            }
        }
    }
}
