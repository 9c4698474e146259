//! TurboQuant_mse: scalar codes of a row, rounded to nearest at a scale found by search, or column after column.

use super::{Code, ColumnCode, EncodeScratch, Family, LevelCode, Levels, Strip};
use crate::calibrated::{finite_rows, gaussian, inflation, stored_scale};
use crate::codebook::{Codebook, LevelTables};
use crate::factor::Factor;
use crate::kernel::{self, Activations, Fit, TurboRows};
use crate::ldlq::{ColumnQuantizer, StripOutcome, round_strip, round_strip_bytes};
use crate::packing;
use crate::parallelism::Parallelism;
use crate::scale::to_scale;
use gq_tensor::{CodedRows, Isa, ScaleGroup};
use half::f16;
use std::ops::Range;
use std::sync::Arc;

/// What people read of these codes.
pub(super) const FAMILIES: &[Family] = &[
    Family {
        names: "tq1 … tq8",
        text: "TurboQuant: rotation and Lloyd-Max codes, one scale per row; the fastest to make and to run",
    },
    Family {
        names: "tq1-g32 … tq8-g128",
        text: "the same with one scale per group of 32, 64 or 128 weights (-g32, -g64, -g128): for outliers",
    },
];

/// Scalar codes with one scale per row or group.
#[derive(Debug)]
pub(super) struct Turbo {
    book: Codebook,
    tables: LevelTables,
    group: ScaleGroup,
}

impl Turbo {
    /// `None` when there is no codebook of so many bits.
    pub(super) fn new(bits: u8, group: ScaleGroup) -> Option<Turbo> {
        let book = Codebook::of(bits)?;
        Some(Turbo { book, tables: LevelTables::new(book), group })
    }

    fn rows<'a>(&'a self, matrix: &CodedRows<'a>, rows: Range<usize>) -> TurboRows<'a> {
        let (codes, scales) = matrix.part(rows);
        scalar_rows(&self.tables, self.book, matrix.shape().cols, self.group, codes, scales)
    }
}

impl Code for Turbo {
    fn distortion(&self) -> Option<f64> {
        Some(self.book.distortion())
    }

    fn encode(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        scratch.codes.resize(rotated.len(), 0);
        let len = self.group.len(rotated.len());
        let groups = rotated.chunks_exact(len).zip(scratch.codes.chunks_exact_mut(len));
        for ((x, codes), scale) in groups.zip(scales.chunks_exact_mut(2)) {
            scale.copy_from_slice(&encode_group(level, self.book, x, codes).to_le_bytes());
        }
        packing::pack_row(self.book.bits(), &scratch.codes, codes);
    }

    fn decode(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]) {
        kernel::turbo_decode(level, self.rows(matrix, rows), out);
    }

    fn dot_f32(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        kernel::turbo_dot_f32(level, self.rows(matrix, rows), x, out);
    }

    fn dot(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &Activations, out: &mut [f32]) {
        kernel::turbo_dot(level, self.rows(matrix, rows), x, out);
    }

    fn columns(self: Arc<Self>) -> Option<Arc<dyn ColumnCode>> {
        Some(self)
    }

    fn levels(&self) -> Option<&dyn LevelCode> {
        self.has_row_scale().then_some(self as &dyn LevelCode)
    }

    fn has_row_scale(&self) -> bool {
        self.group == ScaleGroup::Row
    }
}

impl LevelCode for Turbo {
    fn are_wide(&self) -> bool {
        matches!(self.book.bits(), 6 | 7)
    }

    fn read_levels(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: Levels<'_>) {
        let rows = self.rows(matrix, rows);
        for (step, scale) in out.steps.iter_mut().zip(rows.scales.as_chunks::<2>().0) {
            *step = f16::from_le_bytes(*scale).to_f32() * self.book.unit();
        }
        kernel::turbo_levels(level, rows, out.low, out.high);
    }
}

impl ColumnCode for Turbo {
    fn encode(
        &self,
        level: Isa,
        parallelism: Parallelism,
        factor: &Factor,
        Strip { rotated, .. }: Strip<'_>,
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> StripOutcome {
        let (book, n) = (self.book, factor.n());
        let group = self.group.len(n);
        let (rows, groups) = (rotated.len() / n, n / group);
        let row_bytes = n * usize::from(book.bits()) / 8;
        assert!(
            rotated.len() == rows * n
                && n == groups * group
                && codes.len() == rows * row_bytes
                && scales.len() == 2 * rows * groups,
            "strip"
        );
        let (broken, rotated) = finite_rows(rotated, n);
        let rotated = &rotated[..];
        let inflation = inflation(factor, book.distortion());
        let mut start = vec![0.0; groups * rows]; // [groups, rows]
        let mut nearest = vec![0; group];
        for (at, x) in rotated.chunks_exact(group).enumerate() {
            let scale = if groups == 1 {
                gaussian(x, book.gaussian_scale())
            } else {
                encode_group(level, book, x, &mut nearest).to_f32()
            };
            let scale = scale * inflation;
            start[at % groups * rows + at / groups] = if scale.is_finite() { scale } else { 0.0 };
        }
        let mut quantizer = ScalarColumns { book, codes: vec![0; rotated.len()] };
        let outcome = round_strip(level, parallelism, factor, rotated, &start, &mut quantizer);
        let mut row_codes = vec![0; n];
        let rows_out = codes.chunks_exact_mut(row_bytes).zip(scales.chunks_exact_mut(2 * groups));
        for (row, (codes, scales)) in rows_out.enumerate() {
            for (col, code) in row_codes.iter_mut().enumerate() {
                *code = quantizer.codes[col * rows + row];
            }
            packing::pack_row(book.bits(), &row_codes, codes);
            for (index, scale) in scales.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let fitted = start[index * rows + row] * outcome.refit[row];
                *scale = stored_scale(fitted, broken.contains(&row)).to_le_bytes();
            }
        }
        outcome
    }

    /// A byte for each code until rows are packed.
    fn strip_bytes(&self, rows: usize, cols: usize) -> u64 {
        round_strip_bytes(rows, cols) + (rows * cols) as u64
    }

    fn multiplications(&self) -> f64 {
        1_500.0
    }
}

/// Nearest levels, column by column.
struct ScalarColumns {
    book: Codebook,
    /// `[n, rows]`.
    codes: Vec<u8>,
}

impl ColumnQuantizer for ScalarColumns {
    fn round_column(&mut self, _: Isa, col: usize, targets: &[f32], values: &mut [f32]) {
        let unit = self.book.unit();
        let codes = &mut self.codes[col * targets.len()..(col + 1) * targets.len()];
        for ((target, value), code) in targets.iter().zip(values).zip(codes) {
            *code = self.book.nearest(target / unit);
            *value = self.book.level(*code) as f32 * unit;
        }
    }
}

/// Rows as kernels see them.
pub(super) fn scalar_rows<'a>(
    tables: &'a LevelTables,
    book: Codebook,
    cols: usize,
    group: ScaleGroup,
    codes: &'a [u8],
    scales: &'a [u8],
) -> TurboRows<'a> {
    TurboRows { book, tables, cols, group_len: group.len(cols), codes, scales }
}

/// Scales tried per group.
const TRIED: usize = 18;

/// Scales tried below 8 bits: the first and the step, as multiples of the scale that suits Gaussian rows
/// of this norm.
///
/// Rows are finite: their largest element is smaller than the Gaussian tail the codebook was made for,
/// and which scale suits it is a matter of luck. At width 576 the search lowers the error by 5 % at
/// 4 bits and 15 % at 6.
const SEARCH: (f32, f32) = (0.61, 0.03);

/// Scales tried at 8 bits: the first of `TRIED` consecutive numerators and the denominator, as parts of
/// the scale that reaches the largest element.
const CLIPS: (u16, f32) = (31, 48.0);

/// Rounds one group (a row, or 32 to 128 elements of it) and returns its scale.
///
/// `codes` receives one code per element. A group with a non-finite element is stored as scale NaN and
/// zero codes; a group too small for an fp16 scale as scale 0 and zero codes.
pub(super) fn encode_group(level: Isa, book: Codebook, x: &[f32], codes: &mut [u8]) -> f16 {
    codes.fill(0);
    let energy = kernel::energy(level, x);
    if !energy.is_finite() {
        return f16::NAN;
    }
    let deviation = (energy / x.len().max(1) as f64).sqrt();
    let base = (deviation * book.gaussian_scale()) as f32;
    if f16::from_f32(base) == f16::ZERO {
        return f16::ZERO;
    }
    let found = best_scale(level, book, x, &candidates(level, book, x, base));
    if found == f16::ZERO {
        return f16::ZERO;
    }
    // Codes nearest at the scale found, then the scale that is best for exactly these codes.
    let fit = kernel::round(level, book, x, inverse_step(book, found.to_f32()), codes);
    least_squares(found.to_f32(), fit)
}

/// Scales to try, given the one that suits Gaussian rows of this norm.
fn candidates(level: Isa, book: Codebook, x: &[f32], base: f32) -> [f32; TRIED] {
    if book.bits() == 8 {
        let full = kernel::largest(level, x) / 127.0 / book.unit();
        let (first, parts) = CLIPS;
        return std::array::from_fn(|i| full * (f32::from(first + i as u16) / parts));
    }
    let (first, step) = SEARCH;
    std::array::from_fn(|i| base * (first + step * f32::from(i as u16)))
}

/// The least-squares scale of the candidate whose codes explain most of the energy; the first of equals.
fn best_scale(level: Isa, book: Codebook, x: &[f32], scales: &[f32; TRIED]) -> f16 {
    let inverse_steps = scales.map(|scale| inverse_step(book, scale));
    let mut fits = [Fit::default(); TRIED];
    // One magnitude: the codes do not depend on the scale.
    let tried = if book.bits() == 1 { 1 } else { TRIED };
    kernel::score(level, book, x, &inverse_steps[..tried], &mut fits[..tried]);
    let (mut best, mut best_explained) = (f16::ZERO, -1.0);
    for (&scale, &fit) in scales.iter().zip(&fits).take(tried) {
        let explained = f64::from(scale) * f64::from(scale) * fit.product * fit.product / fit.energy;
        if explained > best_explained {
            (best, best_explained) = (least_squares(scale, fit), explained);
        }
    }
    best
}

fn inverse_step(book: Codebook, scale: f32) -> f32 {
    1.0 / (scale * book.unit())
}

/// `<x, level> / <level, level>` in fp16, where `fit` is of `x` divided by the step of `scale`.
fn least_squares(scale: f32, fit: Fit) -> f16 {
    let value = f64::from(scale) * (fit.product / fit.energy);
    if fit.energy > 0.0 { to_scale(value as f32) } else { f16::ZERO }
}
