//! Trellis codes of strips of rows: whole strips encoded, to nearest or column after column, parts of them found and read.

use super::{Code, ColumnCode, EncodeScratch, Family, LevelCode, Levels, Strip};
use crate::calibrated::{finite_rows, inflation, start_scales, stored_scale};
use crate::error::CodecError;
use crate::factor::Factor;
use crate::kernel::{self, Activations, StripRows};
use crate::ldlq::{ColumnQuantizer, StripOutcome, round_strip};
use crate::parallelism::Parallelism;
use crate::scale::to_scale;
use crate::trellis::{Numbers, Trellis};
use crate::trellis_search::TrellisScratch;
use gq_tensor::{CodedRows, Encoding, Isa, States};
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// Columns coded by one thread at a time, and summed up together: results do not depend on threads.
const CHUNK_COLS: usize = 32;

/// Bytes of targets, paths and sums of a search, in addition to what grows with the states.
const SEARCH_BYTES: u64 = 192 << 10;

/// What people read of these codes.
pub(super) const FAMILIES: &[Family] = &[
    Family { names: "tt2 … tt6", text: "trellis codes, one scale per row: the closest at their bits" },
    Family {
        names: "tt2-s12 … tt6-s12",
        text: "the same with 2^12 states: a little closer, slower to make, as fast to run",
    },
    Family {
        names: "tt2-s14 … tt6-s14",
        text: "with 2^14 states: closer by a little again, four times slower to make",
    },
];

/// Paths of a trellis down the columns of a strip, with one scale per row.
#[derive(Debug)]
pub(super) struct TrellisCode {
    bits: u8,
    states: States,
    numbers: Numbers,
    trellis: OnceLock<Trellis>,
}

impl TrellisCode {
    /// `None` when there is no trellis of so many bits.
    pub(super) fn new(bits: u8, states: States) -> Option<TrellisCode> {
        let numbers = Numbers::of(bits, states)?;
        Some(TrellisCode { bits, states, numbers, trellis: OnceLock::new() })
    }

    fn trellis(&self) -> &Trellis {
        self.trellis.get_or_init(|| Trellis::with(self.bits, self.states, self.numbers))
    }
}

impl Code for TrellisCode {
    fn distortion(&self) -> Option<f64> {
        Some(self.numbers.distortion)
    }

    /// A byte for each group of states in every row, and two numbers for each state.
    fn scratch_bytes(&self, _: usize) -> u64 {
        let states = 1u64 << self.states.log2();
        ((Encoding::STRIP_ROWS as u64 * states) >> self.bits) + 8 * states + SEARCH_BYTES
    }

    fn prepare(&self, _: usize) -> Result<(), CodecError> {
        self.trellis();
        Ok(())
    }

    fn encode(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        encode_strip(level, scratch.parallelism, self.trellis(), rotated, codes, scales);
    }

    fn decode(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]) {
        let cols = matrix.shape().cols;
        for_strips(self.trellis(), matrix, rows, |at, strip| {
            kernel::trellis_decode(level, strip, &mut out[at * cols..(at + strip.steps.len()) * cols]);
        });
    }

    fn dot_f32(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        for_strips(self.trellis(), matrix, rows, |at, strip| {
            kernel::trellis_dot_f32(level, strip, x, &mut out[at..at + strip.steps.len()]);
        });
    }

    fn dot(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &Activations, out: &mut [f32]) {
        for_strips(self.trellis(), matrix, rows, |at, strip| {
            kernel::trellis_dot(level, strip, x, &mut out[at..at + strip.steps.len()]);
        });
    }

    fn columns(self: Arc<Self>) -> Option<Arc<dyn ColumnCode>> {
        Some(self)
    }

    fn levels(&self) -> Option<&dyn LevelCode> {
        Some(self)
    }

    fn has_row_scale(&self) -> bool {
        true
    }
}

impl LevelCode for TrellisCode {
    fn are_wide(&self) -> bool {
        false
    }

    fn read_levels(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: Levels<'_>) {
        for_strips(self.trellis(), matrix, rows, |at, strip| {
            out.steps[at..at + strip.steps.len()].copy_from_slice(strip.steps);
            kernel::trellis_levels(level, strip, at, out.low);
        });
    }
}

impl ColumnCode for TrellisCode {
    fn encode(
        &self,
        level: Isa,
        parallelism: Parallelism,
        factor: &Factor,
        Strip { rotated, row_weights }: Strip<'_>,
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> StripOutcome {
        let (trellis, n) = (self.trellis(), factor.n());
        let rows = rotated.len() / n;
        assert!(rotated.len() == rows * n && codes.len() == n * trellis.column_bytes(rows), "strip");
        assert!(scales.len() == 2 * rows && row_weights.is_none_or(|weights| weights.len() == rows), "rows");
        let (broken, rotated) = finite_rows(rotated, n);
        let rotated = &rotated[..];
        let inflation = inflation(factor, trellis.distortion());
        let start = start_scales(rotated, factor, trellis.gaussian_scale(), inflation);
        let weights = strip_weights(&start, row_weights);
        let mut columns = TrellisColumns::new(trellis, weights, codes);
        let outcome = round_strip(level, parallelism, factor, rotated, &start, &mut columns);
        for (row, scale) in scales.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let fitted = start[row] * outcome.refit[row];
            *scale = stored_scale(fitted, broken.contains(&row)).to_le_bytes();
        }
        outcome
    }

    fn multiplications(&self) -> f64 {
        let by_states = match self.states {
            States::S10 => 1.0,
            States::S12 => 3.0,
            States::S14 => 12.0,
        };
        4_500.0 * by_states
    }
}

/// A trellis code for the columns of a strip.
#[derive(Debug)]
struct TrellisColumns<'a> {
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
    fn new(trellis: &'a Trellis, weights: Vec<f32>, codes: &'a mut [u8]) -> TrellisColumns<'a> {
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
fn encode_strip(
    level: Isa,
    parallelism: Parallelism,
    trellis: &Trellis,
    rotated: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) {
    let rows = scales.len() / 2;
    let n = rotated.len() / rows.max(1);
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
    let fits: Vec<Vec<Fit>> = if parallelism.is_serial() {
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
fn for_strips<'a>(
    trellis: &'a Trellis,
    matrix: &CodedRows<'a>,
    rows: Range<usize>,
    mut work: impl FnMut(usize, StripRows<'_>),
) {
    let (cols, rows_per_matrix) = (matrix.shape().cols, matrix.shape().rows_each());
    let one = rows_per_matrix.next_multiple_of(8) * trellis.bits() * cols / 8;
    let mut steps = [0.0; Encoding::STRIP_ROWS];
    let mut row = rows.start;
    while row < rows.end {
        let (stacked, local) = (row / rows_per_matrix, row % rows_per_matrix);
        let strip = local / Encoding::STRIP_ROWS * Encoding::STRIP_ROWS;
        let in_strip = (rows_per_matrix - strip).min(Encoding::STRIP_ROWS);
        let first = local - strip;
        let count = (in_strip - first).min(rows.end - row);
        let column_bytes = trellis.column_bytes(in_strip);
        // Every strip before this one has rows that fill whole bytes.
        let at = stacked * one + strip * trellis.bits() / 8 * cols;
        let codes = matrix.codes().get(at..at + cols * column_bytes).unwrap_or(&[]);
        let scales = matrix.part(row..row + count).1.as_chunks::<2>().0;
        for (&scale, step) in scales.iter().zip(&mut steps) {
            *step = f16::from_le_bytes(scale).to_f32() * Trellis::UNIT;
        }
        let part = StripRows { trellis, cols, codes, column_bytes, first, steps: &steps[..count] };
        work(row - rows.start, part);
        row += count;
    }
}
