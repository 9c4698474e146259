//! Scalar codes rounded with the inputs' second moments in view.

use crate::factor::Factor;
use crate::ldlq::{ColumnQuantizer, StripOutcome, round_strip};
use crate::{Codebook, packing, turbo};
use gq_tensor::Isa;
use half::f16;
use std::borrow::Cow;

/// Rounds a strip of rotated rows `[rows, n]` to scalar codes with a scale for each `group` columns of a row.
///
/// Writes code rows and scale rows as `tqB` stores them, a group without energy as
/// [`Encoder::encode_row`](crate::Encoder::encode_row) does. A row with a value that is not finite is
/// coded as zeros, with scales that are no numbers. The same bytes at every level.
///
/// # Panics
/// When a slice's length is not what rows, width, group and bits say.
pub fn encode_calibrated(
    level: Isa,
    (book, group): (Codebook, usize),
    factor: &Factor,
    rotated: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> StripOutcome {
    let n = factor.n();
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
            turbo::encode_group(level, book, x, &mut nearest).to_f32()
        };
        let scale = scale * inflation;
        start[at % groups * rows + at / groups] = if scale.is_finite() { scale } else { 0.0 };
    }
    let mut quantizer = ScalarColumns { book, codes: vec![0; rotated.len()] };
    let mut values = vec![0.0; rotated.len()];
    let outcome = round_strip(level, factor, rotated, &start, &mut quantizer, &mut values);
    let mut row_codes = vec![0; n];
    let rows_out = codes.chunks_exact_mut(row_bytes).zip(scales.chunks_exact_mut(2 * groups));
    for (row, (codes, scales)) in rows_out.enumerate() {
        for (col, code) in row_codes.iter_mut().enumerate() {
            *code = quantizer.codes[col * rows + row];
        }
        packing::pack_row(book.bits(), &row_codes, codes);
        for (index, scale) in scales.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let fitted = turbo::to_scale(start[index * rows + row] * outcome.refit[row]);
            let fitted = if fitted.is_finite() { fitted } else { f16::ZERO };
            *scale = if broken.contains(&row) { f16::NAN } else { fitted }.to_le_bytes();
        }
    }
    outcome
}

/// Numbers of rows with a value that is not finite, and the rows with zeros in place of those: fed back, such a value would
/// be in every later column.
pub(crate) fn finite_rows(rows: &[f32], width: usize) -> (Vec<usize>, Cow<'_, [f32]>) {
    if rows.iter().all(|x| x.is_finite()) {
        return (Vec::new(), Cow::Borrowed(rows));
    }
    let (mut broken, mut rows) = (Vec::new(), rows.to_vec());
    for (number, row) in rows.chunks_exact_mut(width).enumerate() {
        if row.iter().any(|x| !x.is_finite()) {
            broken.push(number);
            row.fill(0.0);
        }
    }
    (broken, Cow::Owned(rows))
}

/// Scales to round the rows of a strip at: those that suit Gaussian rows of their norms and what is fed back to them.
pub(crate) fn start_scales(
    rotated: &[f32],
    factor: &Factor,
    gaussian_scale: f64,
    inflation: f32,
) -> Vec<f32> {
    let scale =
        |row: &[f32]| Some(gaussian(row, gaussian_scale) * inflation).filter(|scale| scale.is_finite());
    rotated.chunks_exact(factor.n()).map(|row| scale(row).unwrap_or(0.0)).collect()
}

/// How much larger values are for what is fed back to them: their variance solves t = w + D t feedback.
pub(crate) fn inflation(factor: &Factor, distortion: f64) -> f32 {
    let fed_back = (distortion * factor.mean_feedback()).min(0.75);
    (1.0 / (1.0 - fed_back)).sqrt() as f32
}

/// The scale that suits Gaussian values of the same norm.
fn gaussian(x: &[f32], gaussian_scale: f64) -> f32 {
    let energy: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    ((energy / x.len().max(1) as f64).sqrt() * gaussian_scale) as f32
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
