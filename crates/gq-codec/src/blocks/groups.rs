//! Rows to integer codes with one scale for each group of columns, and where codes are not symmetric a zero point: what
//! compressed-tensors packs and vLLM multiplies by.

use super::fit::{Form, Minimum, Stored, fit};
use super::levels::Levels;
use super::strip::{Metric, STRIP, Strip, lanes};
use super::trial::{LANES, Rounded, SubBlock, WIDEST};
use gq_tensor::Isa;
use half::bf16;
use rayon::prelude::*;

/// Integer codes of 4 or 8 bits in groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupCode {
    bits: u8,
    group: u8,
    symmetric: bool,
}

/// Rows as codes: a value is `(code - zero) * scale`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupedRows {
    /// Codes from 0 on, `[rows, n]`.
    pub codes: Vec<u8>,
    /// Scales, `[rows, n / group]`; of either sign.
    pub scales: Vec<bf16>,
    /// Codes that stand for zero, `[rows, n / group]`; empty where all are half of the range.
    pub zeros: Vec<u8>,
}

impl GroupCode {
    /// Codes of so many bits in groups of so many columns; `None` unless bits are 4, or 8 of symmetric codes, and groups
    /// 32, 64 or 128: what engines have products for.
    pub const fn new(bits: u8, group: usize, symmetric: bool) -> Option<GroupCode> {
        match (bits, group, symmetric) {
            (4, 32 | 64 | 128, _) | (8, 32 | 64 | 128, true) => {
                Some(GroupCode { bits, group: group as u8, symmetric })
            }
            _ => None,
        }
    }

    /// Bits of a code.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Columns that share a scale.
    pub const fn group(self) -> usize {
        self.group as usize
    }

    /// Whether zero is half of the range of codes in every group.
    pub const fn is_symmetric(self) -> bool {
        self.symmetric
    }

    /// Bits of a weight, scales and zero points included.
    pub fn stored_bits(self) -> f64 {
        let zero = if self.symmetric { 0 } else { self.bits };
        f64::from(self.bits) + f64::from(16 + zero) / f64::from(self.group)
    }

    /// The code of zero where codes are symmetric.
    const fn middle(self) -> u8 {
        1 << (self.bits - 1)
    }

    fn form(self) -> Form {
        let middle = f32::from(self.middle());
        let (low, minimum) = match self.symmetric {
            true => (-middle, Minimum::None),
            false => (0.0, Minimum::Zero { top: 2.0 * middle - 1.0 }),
        };
        let levels = Levels::Integers { low, high: low + 2.0 * middle - 1.0 };
        Form { levels, minimum, stored: Stored::Brain }
    }

    /// Values of rows `[rows, n]`, into `out`.
    pub fn decode(self, rows: &GroupedRows, out: &mut [f32]) {
        let groups = out.chunks_exact_mut(self.group()).zip(rows.codes.chunks_exact(self.group()));
        for (index, ((values, codes), scale)) in groups.zip(&rows.scales).enumerate() {
            let zero = i16::from(rows.zeros.get(index).copied().unwrap_or(self.middle()));
            for (value, code) in values.iter_mut().zip(codes) {
                *value = f32::from(i16::from(*code) - zero) * scale.to_f32();
            }
        }
    }
}

/// Rounds rows `[rows, n]` to codes; n is the metric's width. Values are finite.
///
/// Threads of the current pool share the rows.
///
/// # Panics
/// When groups do not divide n, or n the rows.
pub fn round_groups(level: Isa, code: GroupCode, metric: Metric<'_>, rows: &[f32]) -> GroupedRows {
    let n = metric.width();
    assert!(n > 0 && n.is_multiple_of(code.group()) && rows.len().is_multiple_of(n), "rows of {n} in groups");
    let costs = metric.costs();
    let groups = rows.len() / code.group();
    let mut out = GroupedRows {
        codes: vec![0; rows.len()],
        scales: vec![bf16::ZERO; groups],
        zeros: vec![0; if code.symmetric { 0 } else { groups }],
    };
    let across = n / code.group();
    let codes = out.codes.par_chunks_mut(STRIP * n);
    let scales = out.scales.par_chunks_mut(STRIP * across);
    // A strip without zero points gets an empty piece.
    let mut zeros: Vec<&mut [u8]> = out.zeros.chunks_mut(STRIP * across).collect();
    zeros.resize_with(rows.len().div_ceil(STRIP * n), || &mut []);
    let strips = rows.par_chunks(STRIP * n).zip(codes).zip(scales).zip(zeros);
    strips.for_each(|(((rows, codes), scales), zeros)| {
        round_strip(code, &Strip::new(level, metric, &costs, rows), codes, scales, zeros);
    });
    out
}

/// Rounds all columns of a strip; gives the errors, `[n, stride]`.
fn round_strip(
    code: GroupCode,
    strip: &Strip<'_>,
    codes: &mut [u8],
    scales: &mut [bf16],
    zeros: &mut [u8],
) -> Vec<f32> {
    let (n, stride, width, form) = (strip.width(), strip.stride, code.group(), code.form());
    let (across, low) = (n / width, form.levels.ends().0);
    let mut errors = vec![0.0f32; n * stride];
    let mut targets = vec![0.0f32; width * stride];
    let mut rounded = Rounded::new();
    for start in (0..n).step_by(width) {
        strip.columns(start, &mut targets);
        strip.feed_back(0..start, start, &errors, &mut targets);
        let feedback = strip.within(start, width);
        for lane_group in 0..stride / LANES {
            let targets = lanes(&targets, stride, lane_group, width);
            let weights = strip.weights(start, lane_group, width);
            let costs = &strip.costs[start..start + width];
            let part = SubBlock { weights: &weights, targets: &targets, feedback: &feedback, costs };
            let scale = fit(form, &part, &mut rounded);
            part.round(form.levels, &scale, &mut rounded);
            for (j, error) in rounded.errors.iter().enumerate().take(width) {
                errors[(start + j) * stride + lane_group * LANES..][..LANES].copy_from_slice(error);
            }
            let first = lane_group * LANES;
            for lane in 0..LANES.min(strip.count.saturating_sub(first)) {
                let (row, group) = (first + lane, (first + lane) * across + start / width);
                scales[group] = bf16::from_f32(scale.step[lane]);
                if let Some(zero) = zeros.get_mut(group) {
                    let step = scale.step[lane];
                    *zero = if step == 0.0 { 0 } else { (scale.min[lane] / step).round() as u8 };
                }
                for (j, level) in rounded.levels.iter().enumerate().take(width) {
                    codes[row * n + start + j] = (level[lane] - low) as u8;
                }
            }
        }
    }
    errors
}

const _: () = assert!(WIDEST >= 128);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Factor, Operand, Parallelism, ProductShape, fixed_product};

    fn all() -> Vec<GroupCode> {
        let groups = [32, 64, 128];
        let code = |bits, symmetric| groups.map(|group| GroupCode::new(bits, group, symmetric).unwrap());
        [code(4, true), code(4, false), code(8, true)].concat()
    }

    fn noise(i: usize) -> f32 {
        ((i * 7919 + i / 13 * 31) % 2003) as f32 / 1001.0 - 1.0
    }

    fn moment(n: usize) -> Vec<f32> {
        let inputs: Vec<f32> = (0..2 * n * n).map(|i| noise(3 * i) + noise(i / n * 17)).collect();
        let mut moment = vec![0.0; n * n];
        let shape = ProductShape { rows: n, cols: n, depth: 2 * n };
        let (columns, level) = (Operand::rows(&inputs, n), Isa::detect());
        fixed_product(level, Parallelism::Threads, shape, columns.t(), columns, &mut moment, n);
        moment
    }

    /// `tr(E H E^T)` of the errors of rows in codes.
    fn loss(code: GroupCode, h: &[f32], n: usize, rows: &[f32], grouped: &GroupedRows) -> f64 {
        let mut values = vec![0.0; rows.len()];
        code.decode(grouped, &mut values);
        let row = |(row, values): (&[f32], &[f32])| -> f64 {
            let error: Vec<f64> = row.iter().zip(values).map(|(w, q)| f64::from(w - q)).collect();
            let product = |i: usize| -> f64 { (0..n).map(|j| f64::from(h[i * n + j]) * error[j]).sum() };
            (0..n).map(|i| error[i] * product(i)).sum()
        };
        rows.chunks_exact(n).zip(values.chunks_exact(n)).map(row).sum()
    }

    /// What rounding claims, and feeds back, are the errors of the codes, bit for bit, in rows that fill no strip.
    #[test]
    fn codes_decode_to_what_was_rounded_to() {
        let (n, count, level) = (256, 37, Isa::detect());
        let rows: Vec<f32> = (0..count * n).map(|i| 0.3 * noise(i) + noise(i / 3).powi(5)).collect();
        let factor = Factor::new(level, &moment(n), n, 0.03).unwrap();
        let metric = Metric::Moment(&factor);
        for code in all() {
            let costs = metric.costs();
            let strip = Strip::new(level, metric, &costs, &rows);
            let groups = rows.len() / code.group();
            let mut out = GroupedRows {
                codes: vec![0; rows.len()],
                scales: vec![bf16::ZERO; groups],
                zeros: vec![0; if code.is_symmetric() { 0 } else { groups }],
            };
            let errors = round_strip(code, &strip, &mut out.codes, &mut out.scales, &mut out.zeros);
            let mut values = vec![0.0; rows.len()];
            code.decode(&out, &mut values);
            for (i, (weight, value)) in rows.iter().zip(&values).enumerate() {
                assert_eq!(weight - value, errors[i % n * strip.stride + i / n], "{code:?} {i}");
            }
            assert_eq!(round_groups(level, code, metric, &rows), out, "{code:?}");
        }
    }

    #[test]
    fn feedback_and_zero_points_come_closer() {
        let (n, level) = (256, Isa::detect());
        let (h, rows): (_, Vec<f32>) =
            (moment(n), (0..100 * n).map(|i| noise(i) + noise(i + 5).powi(3)).collect());
        let factor = Factor::new(level, &h, n, 0.03).unwrap();
        let diagonal: Vec<f32> = h.iter().step_by(n + 1).copied().collect();
        let lost =
            |code, metric, rows: &[f32]| loss(code, &h, n, rows, &round_groups(level, code, metric, rows));
        for code in all() {
            let nearest = lost(code, Metric::Importance(&diagonal), &rows);
            let fed = lost(code, Metric::Moment(&factor), &rows);
            assert!(fed < 0.6 * nearest, "{code:?}: {fed} {nearest}");
        }
        // Weights on one side of zero: half of a symmetric range is of no use to them.
        let sided: Vec<f32> = rows.iter().map(|w| w.abs()).collect();
        let codes = [true, false].map(|symmetric| GroupCode::new(4, 64, symmetric).unwrap());
        let [symmetric, asymmetric] = codes.map(|code| lost(code, Metric::Importance(&diagonal), &sided));
        assert!(asymmetric < 0.4 * symmetric, "{asymmetric} {symmetric}");
    }

    #[test]
    fn zeros_stay_zeros_and_bits_are_counted() {
        for code in all() {
            let rows = vec![0.0; 3 * 128];
            let grouped = round_groups(Isa::detect(), code, Metric::Importance(&[1.0; 128]), &rows);
            let mut values = vec![1.0; rows.len()];
            code.decode(&grouped, &mut values);
            assert_eq!(values, rows, "{code:?}");
        }
        let bits = |bits, group, symmetric| GroupCode::new(bits, group, symmetric).unwrap().stored_bits();
        assert_eq!((bits(4, 128, true), bits(4, 32, false), bits(8, 64, true)), (4.125, 4.625, 8.25));
        assert_eq!((GroupCode::new(8, 64, false), GroupCode::new(4, 256, true)), (None, None));
    }
}
