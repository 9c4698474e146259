//! Strips of trellis codes: whole strips encoded, parts of them found and read.

use crate::calibrated::{finite_rows, inflation, start_scales};
use crate::factor::Factor;
use crate::kernel::{self, StripRows};
use crate::ldlq::{ColumnQuantizer, StripOutcome, round_strip};
use crate::serially::is_serial;
use crate::trellis::{Trellis, TrellisScratch};
use crate::turbo::to_scale;
use gq_tensor::{EncodedMatrix, Encoding, Isa};
use half::f16;
use rayon::prelude::*;
use std::ops::Range;

/// Columns coded by one thread at a time, and summed up together: results do not depend on threads.
const CHUNK_COLS: usize = 32;

/// A trellis code for the columns of a strip.
#[derive(Debug)]
pub struct TrellisColumns<'a> {
    trellis: &'a Trellis,
    /// What an error in each row weighs.
    weights: Vec<f32>,
    codes: &'a mut [u8],
    levels: Vec<f32>,
    targets: Vec<f32>,
    scratch: TrellisScratch,
}

impl<'a> TrellisColumns<'a> {
    /// Writes `codes`, column after column of `trellis.column_bytes(weights.len())` bytes.
    ///
    /// `weights`, one per row and in `[0, 1]`, say what a squared error in units of the row's scale costs.
    pub fn new(trellis: &'a Trellis, weights: Vec<f32>, codes: &'a mut [u8]) -> TrellisColumns<'a> {
        let rows = weights.len();
        let (levels, targets) = (vec![0.0; rows], vec![0.0; rows]);
        TrellisColumns { trellis, weights, codes, levels, targets, scratch: TrellisScratch::default() }
    }
}

impl ColumnQuantizer for TrellisColumns<'_> {
    fn round_column(&mut self, level: Isa, col: usize, targets: &[f32], values: &mut [f32]) {
        let bytes = self.trellis.column_bytes(targets.len());
        for (to, target) in self.targets.iter_mut().zip(targets) {
            *to = target / Trellis::UNIT;
        }
        let codes = &mut self.codes[col * bytes..(col + 1) * bytes];
        self.trellis.encode_column(
            level,
            &self.targets,
            &self.weights,
            codes,
            &mut self.levels,
            &mut self.scratch,
        );
        for (value, level) in values.iter_mut().zip(&self.levels) {
            *value = level * Trellis::UNIT;
        }
    }
}

/// Rounds a strip of at most 256 rotated rows `[rows, n]` to trellis codes, with the inputs' second moments in view.
///
/// Writes the strip's codes, `n * trellis.column_bytes(rows)` bytes, and one fp16 scale per row.
/// `row_weights` say what an error in each row costs, in addition to its size; `None`: all the same. A row without energy has
/// scale 0; one with a value that is not finite is coded as zeros, with a scale that is no number. The same bytes at every
/// level.
///
/// # Panics
/// When a slice's length is not what rows, width and bits say.
pub fn encode_trellis_calibrated(
    level: Isa,
    trellis: &Trellis,
    factor: &Factor,
    rotated: &[f32],
    row_weights: Option<&[f32]>,
    codes: &mut [u8],
    scales: &mut [u8],
) -> StripOutcome {
    let n = factor.n();
    let rows = rotated.len() / n;
    assert!(rotated.len() == rows * n && codes.len() == n * trellis.column_bytes(rows), "strip");
    assert!(scales.len() == 2 * rows && row_weights.is_none_or(|weights| weights.len() == rows), "rows");
    let (broken, rotated) = finite_rows(rotated, n);
    let rotated = &rotated[..];
    let inflation = inflation(factor, trellis.distortion());
    let start = start_scales(rotated, factor, trellis.gaussian_scale(), inflation);
    let weights = strip_weights(&start, row_weights);
    let mut columns = TrellisColumns::new(trellis, weights, codes);
    let mut values = vec![0.0; rotated.len()];
    let outcome = round_strip(level, factor, rotated, &start, &mut columns, &mut values);
    for (row, scale) in scales.chunks_exact_mut(2).enumerate() {
        let fitted = to_scale(start[row] * outcome.refit[row]);
        let fitted = if fitted.is_finite() { fitted } else { f16::ZERO };
        scale.copy_from_slice(&if broken.contains(&row) { f16::NAN } else { fitted }.to_le_bytes());
    }
    outcome
}

/// What a squared error in units of a row's scale costs: the scale's square, times the row's own weight; at most 1.
fn strip_weights(scales: &[f32], row_weights: Option<&[f32]>) -> Vec<f32> {
    let largest = scales.iter().fold(0.0f32, |largest, &scale| largest.max(scale));
    let own = |row: usize| match row_weights.and_then(|weights| weights.get(row)) {
        Some(&weight) if weight.is_finite() && weight > 0.0 => weight,
        Some(_) => 0.0,
        None => 1.0,
    };
    let mut weights: Vec<f32> = scales
        .iter()
        .enumerate()
        .map(|(row, &scale)| {
            let relative = if largest > 0.0 { scale / largest } else { 0.0 };
            own(row) * (relative * relative)
        })
        .collect();
    let top = weights.iter().fold(0.0f32, |top, &weight| top.max(weight));
    if top > 0.0 && top.is_finite() {
        weights.iter_mut().for_each(|weight| *weight /= top);
    }
    weights
}

/// Rounds a strip of rotated rows `[rows, n]` to trellis codes, each column by itself.
pub(crate) fn encode_strip(
    level: Isa,
    trellis: &Trellis,
    n: usize,
    rotated: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) {
    let rows = rotated.len() / n;
    let energies: Vec<f64> = rotated.chunks_exact(n).map(|row| kernel::energy(level, row)).collect();
    let start = |&energy: &f64| {
        let scale = ((energy / n as f64).sqrt() * trellis.gaussian_scale()) as f32;
        let scale = scale.min(f32::MAX);
        // Rows that no scale fits are left out of the search.
        if energy.is_finite() && f16::from_f32(scale) != f16::ZERO { scale } else { 0.0 }
    };
    let starts: Vec<f32> = energies.iter().map(start).collect();
    let inverse: Vec<f32> =
        starts.iter().map(|&s| if s > 0.0 { 1.0 / (s * Trellis::UNIT) } else { 0.0 }).collect();
    let weights = strip_weights(&starts, None);
    let column_bytes = trellis.column_bytes(rows);
    let code = |scratch: &mut TrellisScratch, (chunk, codes): (usize, &mut [u8])| {
        let (mut targets, mut levels) = (vec![0.0; rows], vec![0.0; rows]);
        let mut fits = vec![Fit::default(); rows];
        for (col, codes) in (chunk * CHUNK_COLS..).zip(codes.chunks_exact_mut(column_bytes)) {
            for ((target, row), inverse) in targets.iter_mut().zip(rotated.chunks_exact(n)).zip(&inverse) {
                // Zero, too, where a row holds no numbers.
                *target = if *inverse > 0.0 { row[col] * inverse } else { 0.0 };
            }
            trellis.encode_column(level, &targets, &weights, codes, &mut levels, scratch);
            for ((fit, &target), &level) in fits.iter_mut().zip(&targets).zip(&levels) {
                fit.product += f64::from(target) * f64::from(level);
                fit.energy += f64::from(level) * f64::from(level);
            }
        }
        fits
    };
    let size = CHUNK_COLS * column_bytes;
    let fits: Vec<Vec<Fit>> = if is_serial() {
        let mut scratch = TrellisScratch::default();
        codes.chunks_mut(size).enumerate().map(|chunk| code(&mut scratch, chunk)).collect()
    } else {
        codes.par_chunks_mut(size).enumerate().map_init(TrellisScratch::default, code).collect()
    };
    for (row, (scale, &start)) in scales.chunks_exact_mut(2).zip(&starts).enumerate() {
        let sum = |part: fn(&Fit) -> f64| fits.iter().map(|fits| part(&fits[row])).sum::<f64>();
        let (product, energy) = (sum(|fit| fit.product), sum(|fit| fit.energy));
        let fitted = match energies[row].is_finite() {
            false => f16::NAN,
            true if product > 0.0 => to_scale((f64::from(start) * (product / energy)) as f32),
            true => f16::ZERO,
        };
        scale.copy_from_slice(&fitted.to_le_bytes());
    }
}

/// Sums of target times level and of level², over columns.
#[derive(Clone, Copy, Default)]
struct Fit {
    product: f64,
    energy: f64,
}

/// Calls `work` with every strip's share of a range of rows, and where in the range it begins.
pub(crate) fn for_strips<'a>(
    trellis: &'a Trellis,
    matrix: &EncodedMatrix<'a>,
    rows: Range<usize>,
    mut work: impl FnMut(usize, StripRows<'_>),
) {
    let (cols, height) = (matrix.shape().cols, matrix.height());
    let one = height.next_multiple_of(8) * trellis.bits() * cols / 8;
    let mut steps = [0.0; Encoding::STRIP_ROWS];
    let mut row = rows.start;
    while row < rows.end {
        let (stacked, local) = (row / height, row % height);
        let strip = local / Encoding::STRIP_ROWS * Encoding::STRIP_ROWS;
        let in_strip = (height - strip).min(Encoding::STRIP_ROWS);
        let first = local - strip;
        let count = (in_strip - first).min(rows.end - row);
        let column_bytes = trellis.column_bytes(in_strip);
        // Every strip before this one has rows that fill whole bytes.
        let at = stacked * one + strip * trellis.bits() / 8 * cols;
        let codes = matrix.all_codes().get(at..at + cols * column_bytes).unwrap_or(&[]);
        for (row, step) in (row..).zip(&mut steps[..count]) {
            let scale = matrix.scales(row).first_chunk::<2>().map_or(f16::ZERO, |b| f16::from_le_bytes(*b));
            *step = scale.to_f32() * Trellis::UNIT;
        }
        let part = StripRows { trellis, cols, codes, column_bytes, first, steps: &steps[..count] };
        work(row - rows.start, part);
        row += count;
    }
}
