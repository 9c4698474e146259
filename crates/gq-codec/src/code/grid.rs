//! Weights that already sit on a grid: found again, and stored without loss.
//!
//! A group is accepted only when its decoded values equal the weights, each and every one; how scale and
//! levels were found is nobody's concern. All of it is sums, products and quotients in f64 in a fixed order.

use super::{Code, EncodeScratch, Family};
use crate::kernel::{self, Activations, FLOATS, GridKind, GridRows, Layout, Step, decode_group, power_of};
use crate::packing::{self, GROUP};
use gq_tensor::{CodedRows, Encoding, Isa, Rounding};
use half::{bf16, f16};
use std::ops::Range;

/// Values of a scale type that are tried between two bounds.
const TRIED: usize = 64;

/// Ranges of a scale that are followed at once: where large levels are a hundredth apart, bf16 leaves a few open.
const RANGES: usize = 64;

/// Room, over the scale, below which no minimum leaves any.
const COARSE: f64 = 1.0 / 65536.0;

/// Scales below this are not searched for among numbers of few digits.
const SMALLEST: f64 = 1e-30;

/// Steps that narrow down a minimum in f32.
const NARROWING: usize = 48;

/// Whether every group of `row` sits on the grid of `encoding`, so that it is stored without loss
/// (a zero's sign aside, where a group has zeros of both).
///
/// False for encodings that are no grids, and for widths they do not support.
pub fn on_grid(encoding: Encoding, row: &[f32]) -> bool {
    let Some(kind) = GridKind::of(encoding).filter(|_| encoding.supports_cols(row.len())) else {
        return false;
    };
    row.chunks_exact(kind.group(row.len())).all(|group| find(kind, group, &mut Vec::new()).is_some())
}

/// What people read of these codes.
pub(super) const FAMILIES: &[Family] = &[Family {
    names: "grid",
    text: "the grid that the weights already sit on, without loss (grid4 … grid8, mxfp4)",
}];

/// Levels of one grid.
#[derive(Debug)]
pub(super) struct GridCode {
    kind: GridKind,
}

impl GridCode {
    /// `None` for encodings that are no grids.
    pub(super) fn new(encoding: Encoding) -> Option<GridCode> {
        Some(GridCode { kind: GridKind::of(encoding)? })
    }

    fn rows<'a>(&self, matrix: &CodedRows<'a>, rows: Range<usize>) -> GridRows<'a> {
        let (codes, scales) = matrix.part(rows);
        GridRows { kind: self.kind, cols: matrix.shape().cols, codes, scales }
    }
}

impl Code for GridCode {
    fn distortion(&self) -> Option<f64> {
        Some(0.0)
    }

    /// Bounds of each weight in f64, and codes.
    fn scratch_bytes(&self, cols: usize) -> u64 {
        6 * 4 * cols as u64
    }

    /// A group that is not on the grid gets bytes that decode to NaN.
    fn encode(
        &self,
        _: Isa,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        encode_row(self.kind, rotated, &mut scratch.codes, codes, scales);
    }

    fn decode(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]) {
        kernel::grid_decode(level, self.rows(matrix, rows), out);
    }

    fn dot_f32(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        kernel::grid_dot_f32(level, self.rows(matrix, rows), x, out);
    }

    fn dot(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &Activations, out: &mut [f32]) {
        kernel::grid_dot(level, self.rows(matrix, rows), x, out);
    }

    fn finite_scales(&self, scales: &[u8]) -> bool {
        match self.kind.layout {
            Layout::Scale | Layout::Minimum => {
                scales.as_chunks::<2>().0.iter().all(|&scale| f16::from_le_bytes(scale).is_finite())
            }
            Layout::Wide | Layout::Row => {
                scales.as_chunks::<4>().0.iter().all(|&scale| f32::from_le_bytes(scale).is_finite())
            }
            // An exponent; the last one is no number.
            Layout::Power => !scales.contains(&0xFF),
        }
    }
}

/// Stores a row. A group (row, where the scale is the row's) that is not on the grid gets bytes that decode to NaN.
fn encode_row(kind: GridKind, x: &[f32], all: &mut Vec<u8>, codes: &mut [u8], scales: &mut [u8]) {
    let group = kind.group(x.len());
    let scale_bytes = scales.len() / (x.len() / group).max(1);
    all.clear();
    let mut found = Vec::new();
    for (x, scale) in x.chunks_exact(group).zip(scales.chunks_exact_mut(scale_bytes.max(1))) {
        match find(kind, x, &mut found) {
            Some(step) => kind.write_step(step, scale),
            None => {
                scale.fill(0xFF);
                found.clear();
                found.resize(group, 0);
            }
        }
        all.extend_from_slice(&found);
    }
    packing::pack_row(kind.bits, all, codes);
}

/// Scale and minimum of a group, and its codes; `None` when it is not on the grid.
fn find(kind: GridKind, x: &[f32], codes: &mut Vec<u8>) -> Option<Step> {
    if x.iter().any(|x| !x.is_finite()) {
        return None;
    }
    match kind.layout {
        Layout::Power => power_of_two(x, codes),
        Layout::Scale | Layout::Row => {
            // Zeros of the right sign where one scale gives them, else zeros.
            let signed_zeros = x.iter().any(|x| *x == 0.0 && x.is_sign_negative());
            let exactly = signed_zeros.then(|| symmetric(kind, x, true, codes)).flatten();
            exactly.or_else(|| symmetric(kind, x, false, codes))
        }
        Layout::Minimum | Layout::Wide => affine(kind, x, codes),
    }
}

/// Whether the codes decode to the weights.
fn verified(kind: GridKind, x: &[f32], codes: &[u8], step: Step, zeros: bool) -> bool {
    let (groups, rest) = x.as_chunks::<GROUP>();
    let (code_groups, _) = codes.as_chunks::<GROUP>();
    let same = |a: f32, b: f32| if zeros { a.to_bits() == b.to_bits() } else { a == b };
    rest.is_empty()
        && groups.iter().zip(code_groups).all(|(x, codes)| {
            let decoded = decode_group(kind, step, codes);
            decoded.iter().zip(x).all(|(&a, &b)| same(a, b))
        })
}

/// The numbers that round to `x`; its ends may or may not.
fn bounds(rounding: Rounding, x: f32) -> (f64, f64) {
    let (below, above) = match rounding {
        Rounding::F32 => (f64::from(x.next_down()), f64::from(x.next_up())),
        Rounding::F16 => {
            let key = f16_key(f16::from_f32(x));
            (f16_value(key - 1), f16_value(key + 1))
        }
        Rounding::BF16 => {
            let bits = bf16::from_f32(x).to_bits();
            let key = signed(bits);
            (bf16_value(key - 1), bf16_value(key + 1))
        }
    };
    let x = f64::from(x);
    (f64::midpoint(x, below), f64::midpoint(x, above))
}

/// Sign and magnitude as one ascending integer.
fn signed(bits: u16) -> i32 {
    let magnitude = i32::from(bits & 0x7FFF);
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

fn unsigned(key: i32) -> u16 {
    let magnitude = key.unsigned_abs().min(0x7FFF) as u16;
    if key < 0 { magnitude | 0x8000 } else { magnitude }
}

fn f16_key(value: f16) -> i32 {
    signed(value.to_bits())
}

fn f16_value(key: i32) -> f64 {
    f16::from_bits(unsigned(key)).to_f64()
}

fn bf16_value(key: i32) -> f64 {
    bf16::from_bits(unsigned(key)).to_f64()
}

/// Numbers that the scale type has between two bounds, those in the middle first.
fn between(wide: bool, low: f64, high: f64) -> impl Iterator<Item = f32> {
    let middle = f64::midpoint(low, high);
    let inside = move |value: f32| (low..=high).contains(&f64::from(value)) && value.is_finite();
    let nearest = f16_key(f16::from_f64(middle));
    let (mut up, mut down) = (middle as f32, middle as f32);
    (0..TRIED as i32)
        .map(move |i| {
            let away = (i + 1) / 2 * if i % 2 == 0 { 1 } else { -1 };
            match (wide, i) {
                (false, _) => f16_value(nearest + away) as f32,
                (true, 0) => middle as f32,
                (true, _) if i % 2 == 0 => {
                    up = up.next_up();
                    up
                }
                (true, _) => {
                    down = down.next_down();
                    down
                }
            }
        })
        .filter(move |value| inside(*value))
}

/// Numbers of at most 17 significant bits between two bounds: products of an f16 and a factor of 6 bits.
fn short(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let exponent = (low.abs().max(high.abs()).to_bits() >> 52 & 0x7FF).clamp(64, 2000);
    let unit = f64::from_bits((exponent - 16) << 52);
    let (first, last) = ((low / unit).ceil(), (high / unit).floor());
    let count = if last >= first { (last - first + 1.0).min(1024.0) as u32 } else { 0 };
    (0..count).map(move |i| (first + f64::from(i)) * unit)
}

/// Signed levels times one scale.
fn symmetric(kind: GridKind, x: &[f32], zeros: bool, codes: &mut Vec<u8>) -> Option<Step> {
    let largest = x.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()))?;
    codes.clear();
    if largest == 0.0 {
        codes.resize(x.len(), 0);
        let scale = if x.iter().all(|x| x.is_sign_negative()) { -0.0 } else { 0.0 };
        let step = Step { scale, minimum: 0.0 };
        return (!zeros || verified(kind, x, codes, step, true)).then_some(step);
    }
    let half = 1_i32 << (kind.bits - 1);
    // Small levels first: they leave the least choice, and narrow the scale down for the large ones.
    let mut ordered: Vec<f32> = x.iter().copied().filter(|x| *x != 0.0).collect();
    ordered.sort_unstable_by(|a, b| a.abs().total_cmp(&b.abs()));
    let magnitude = |x: f32| bounds(kind.rounding, x.abs());
    let intervals: Vec<(f64, f64)> = ordered.iter().map(|&x| magnitude(x)).collect();
    codes.resize(x.len(), 0);
    let ends = magnitude(largest);
    let wide = kind.layout == Layout::Row;
    let (mut ranges, mut narrowed) = (Vec::new(), Vec::new());
    // The level of the largest weight: most often the last on one of the two sides.
    let levels = [half - 1, half].into_iter().chain((1..half - 1).rev());
    for (level, negative) in levels.flat_map(|level| [(level, false), (level, true)]) {
        if level == half && !negative {
            continue;
        }
        let sign = if negative == largest.is_sign_negative() { 1.0 } else { -1.0 };
        ranges.clear();
        ranges.push((ends.0 / f64::from(level), ends.1 / f64::from(level)));
        for (&x, &interval) in ordered.iter().zip(&intervals) {
            let last = if sign * x < 0.0 { half } else { half - 1 };
            narrow(&ranges, interval, f64::from(last), &mut narrowed);
            std::mem::swap(&mut ranges, &mut narrowed);
            if ranges.is_empty() {
                break;
            }
        }
        let tried = ranges.iter().flat_map(|range| between(wide, range.0, range.1).take(TRIED));
        for scale in tried.filter(|scale| *scale > 0.0) {
            let scale = sign * scale;
            for (code, &x) in codes.iter_mut().zip(x) {
                let q = (f64::from(x) / f64::from(scale)).round_ties_even();
                *code = (q.clamp(f64::from(-half), f64::from(half - 1)) as i32 & (2 * half - 1)) as u8;
            }
            let step = Step { scale, minimum: 0.0 };
            if verified(kind, x, codes, step, zeros) {
                return Some(step);
            }
        }
    }
    None
}

/// The parts of `ranges` of a scale for which some level from 1 to `last` is within `interval`.
fn narrow(ranges: &[(f64, f64)], interval: (f64, f64), last: f64, narrowed: &mut Vec<(f64, f64)>) {
    narrowed.clear();
    for range in ranges {
        let mut level = (interval.0 / range.1).ceil().max(1.0);
        let end = (interval.1 / range.0).floor().min(last);
        while level <= end && narrowed.len() < RANGES {
            let part = (range.0.max(interval.0 / level), range.1.min(interval.1 / level));
            if part.0 <= part.1 {
                narrowed.push(part);
            }
            level += 1.0;
        }
    }
}

/// Unsigned levels times a scale, and a minimum.
fn affine(kind: GridKind, x: &[f32], codes: &mut Vec<u8>) -> Option<Step> {
    let least = x.iter().copied().min_by(f32::total_cmp)?;
    let most = x.iter().copied().max_by(f32::total_cmp)?;
    let wide = kind.layout == Layout::Wide;
    // In f32 the product has been rounded before the sum was: that is as much again, and verification is exact.
    let around = |x: f32| {
        let (low, high) = bounds(kind.rounding, x);
        match kind.rounding {
            Rounding::F32 => (low - (high - low), high + (high - low)),
            Rounding::F16 | Rounding::BF16 => (low, high),
        }
    };
    let (first, last) = (around(least), around(most));
    codes.clear();
    if least == most {
        codes.resize(x.len(), 0);
        let mut found = between(wide, first.0, first.1).map(|minimum| Step { scale: 0.0, minimum });
        return found.find(|&step| verified(kind, x, codes, step, false));
    }
    let intervals: Vec<(f64, f64)> = x.iter().map(|&x| around(x)).collect();
    let top = (1_u8 << kind.bits) - 1;
    // Levels of the least and the largest weight. A wide minimum can be any level's.
    let spans = (1..=top).rev().flat_map(|span| (0..=top - span).map(move |low| (low, span)));
    for (low, span) in spans.filter(|(low, _)| !wide || *low == 0) {
        let start = (f64::from(most) - f64::from(least)) / f64::from(span);
        codes.clear();
        for (&x, &(below, above)) in x.iter().zip(&intervals) {
            let q = ((f64::from(x) - f64::from(least)) / start).round_ties_even();
            let off = (f64::from(least) + start * q - f64::from(x)).abs();
            // Twice the widths of the intervals, and what they leave open of the scale.
            if off > 2.0 * ((above - below) + (first.1 - first.0) + (last.1 - last.0)) {
                break;
            }
            codes.push(low + q as u8);
        }
        if codes.len() < x.len() {
            continue;
        }
        // What scale a minimum leaves room for.
        let scales = |minimum: f64| {
            let mut range = (0.0_f64, f64::INFINITY);
            for (&code, &(below, above)) in codes.iter().zip(&intervals) {
                let level = f64::from(code);
                if code > 0 {
                    range = (range.0.max((below - minimum) / level), range.1.min((above - minimum) / level));
                } else if !(below..=above).contains(&minimum) {
                    return (1.0, 0.0);
                }
            }
            range
        };
        let (smallest, largest) =
            ((last.0 - first.1) / f64::from(span), (last.1 - first.0) / f64::from(span));
        let (mut left, mut right) =
            (first.0 - f64::from(low) * largest, first.1 - f64::from(low) * smallest.max(0.0));
        let try_minimum = |minimum: f32| {
            let range = scales(f64::from(minimum));
            let mut steps = between(wide, range.0, range.1).map(|scale| Step { scale, minimum });
            steps.find(|&step| verified(kind, x, codes, step, false))
        };
        if !wide {
            if let Some(step) = between(false, left, right).find_map(try_minimum) {
                return Some(step);
            }
            continue;
        }
        // The room is a concave function of the minimum: its largest value is narrowed down.
        let room = |minimum: f64| {
            let (low, high) = scales(minimum);
            high - low
        };
        if let Some(step) = try_minimum(least) {
            return Some(step);
        }
        let all = (left, right);
        for _ in 0..NARROWING {
            let third = (right - left) / 3.0;
            if room(left + third) < room(right - third) {
                left += third;
            } else {
                right -= third;
            }
        }
        let mut minima = [left, f64::midpoint(left, right), right].into_iter().map(|m| m as f32);
        if let Some(step) = minima.find_map(try_minimum) {
            return Some(step);
        }
        // Where little room is left, products must not be rounded: scales and minima of few digits.
        let minimum = f64::midpoint(left, right);
        if room(minimum) < -start * COARSE || start < SMALLEST {
            continue;
        }
        let found = short(all.0, all.1).find_map(|minimum| {
            let range = scales(minimum);
            let step = |scale: f64| Step { scale: scale as f32, minimum: minimum as f32 };
            let mut steps = short(range.0, range.1).take(TRIED / 4).map(step);
            steps.find(|&step| verified(kind, x, codes, step, false))
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Four-bit floats times a power of two; the scale given is that of the level 1.
fn power_of_two(x: &[f32], codes: &mut Vec<u8>) -> Option<Step> {
    codes.clear();
    let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if largest == 0.0 {
        codes.extend(x.iter().map(|x| u8::from(x.is_sign_negative()) << 3));
        return Some(Step { scale: 1.0, minimum: 0.0 });
    }
    // The largest is 1.0, 1.5, 2, 3, 4, 6 or 0.5 times the scale: its exponent leaves few choices.
    let exponent = i32::from((largest.to_bits() >> 23) as u8) - 127;
    for power in (exponent - 2..=exponent + 1).filter(|power| (-127..=127).contains(power)) {
        let scale = power_of(power);
        codes.clear();
        for &x in x {
            let twice = (f64::from(x.abs()) * 2.0 / f64::from(scale)) as f32;
            let Some(index) = FLOATS.iter().position(|&level| f32::from(level) == twice) else {
                break;
            };
            codes.push(index as u8 | u8::from(x.is_sign_negative()) << 3);
        }
        let kind = GridKind::of(Encoding::Mxfp4)?;
        let step = Step { scale, minimum: 0.0 };
        if codes.len() == x.len() && verified(kind, x, codes, step, true) {
            return Some(step);
        }
    }
    None
}
