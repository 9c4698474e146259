//! Rows to blocks: strips of rows, block after block, sub-block after sub-block.

use super::fit::fit;
use super::strip::{Metric, STRIP, Strip, lanes};
use super::table::{BlockCode, Scales};
use super::trial::{LANES, Rounded, Scale, SubBlock};
use gq_tensor::Isa;
use gq_tensor::ggml::{BlockParts, pack_block};
use half::f16;
use rayon::prelude::*;

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
        BlockStrip { strip: Strip::new(level, metric, &costs, rows), code }.round(out);
    });
}

/// Rows that are rounded together, to blocks of one type.
struct BlockStrip<'a> {
    strip: Strip<'a>,
    code: BlockCode,
}

/// A block of [`LANES`] rows on its way.
struct Block {
    /// Scales of scales and of minima.
    of_scales: Scale,
    parts: Vec<BlockParts>,
}

impl BlockStrip<'_> {
    /// Rounds all columns; gives the errors, `[n, stride]`.
    fn round(&self, out: &mut [u8]) -> Vec<f32> {
        let (strip, kind) = (&self.strip, self.code.kind());
        let (n, stride) = (strip.width(), strip.stride);
        let (block, sub, row_bytes) = (kind.block_len(), self.code.sub, kind.row_bytes(n).unwrap_or(0));
        let mut errors = vec![0.0f32; n * stride];
        let mut targets = vec![0.0f32; block * stride];
        let mut rounded = Rounded::new();
        let groups = stride / LANES;
        for start in (0..n).step_by(block) {
            strip.columns(start, &mut targets);
            strip.feed_back(0..start, start, &errors, &mut targets);
            let mut blocks: Vec<Block> =
                (0..groups).map(|group| self.begin(start, group, &targets, &mut rounded)).collect();
            for place in (0..block).step_by(sub) {
                let (at, targets) = (start + place, &mut targets[place * stride..(place + sub) * stride]);
                strip.feed_back(start..at, at, &errors, targets);
                let feedback = strip.within(at, sub);
                for (group, block) in blocks.iter_mut().enumerate() {
                    let targets = lanes(targets, stride, group, sub);
                    let weights = strip.weights(at, group, sub);
                    let part = SubBlock {
                        weights: &weights,
                        targets: &targets,
                        feedback: &feedback,
                        costs: &strip.costs[at..at + sub],
                    };
                    self.round_part(&part, place, block, &mut rounded);
                    for (j, error) in rounded.errors.iter().enumerate().take(sub) {
                        errors[(at + j) * stride + group * LANES..][..LANES].copy_from_slice(error);
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
            let stride = self.strip.stride;
            let targets = lanes(&targets[place * stride..], stride, group, sub);
            let costs = &self.strip.costs[start + place..][..sub];
            let part = SubBlock { weights: &targets, targets: &targets, feedback: &[], costs };
            let scale = fit(self.code.form(), &part, rounded);
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
        let fitted = fit(self.code.form(), part, rounded);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Factor, Operand, Parallelism, ProductShape, fixed_product};
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
            let strip = Strip::new(level, Metric::Moment(&factor), &costs, rows);
            let stride = strip.stride;
            let errors = BlockStrip { strip, code }.round(&mut bytes);
            let mut decoded = vec![0.0; count * n];
            decode_blocks(code.kind(), &bytes, &mut decoded);
            for (i, (weight, value)) in rows.iter().zip(&decoded).enumerate() {
                assert_eq!(weight - value, errors[i % n * stride + i / n], "{} {i}", code.kind());
            }
        }
    }
}
