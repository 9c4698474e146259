//! Scalar codes rounded with the inputs' second moments in view.

use crate::factor::Factor;
use crate::ldlq::{ColumnQuantizer, StripOutcome, round_strip};
use crate::{Codebook, packing, turbo};
use gq_tensor::CpuLevel;
use half::f16;

/// Rounds a strip of rotated rows `[rows, n]` to scalar codes with one scale per row.
///
/// Writes code rows and scale rows as `tqB` stores them. A row without energy, or with a value that is not finite,
/// is stored as [`Encoder::encode_row`](crate::Encoder::encode_row) does. The same bytes at every level.
///
/// # Panics
/// When a slice's length is not what rows, width and bits say.
pub fn encode_calibrated(
    level: CpuLevel,
    book: Codebook,
    factor: &Factor,
    rotated: &[f32],
    codes: &mut [u8],
    scales: &mut [u8],
) -> StripOutcome {
    let n = factor.n();
    let rows = rotated.len() / n;
    let row_bytes = n * usize::from(book.bits()) / 8;
    assert!(
        rotated.len() == rows * n && codes.len() == rows * row_bytes && scales.len() == 2 * rows,
        "strip"
    );
    let start = start_scales(rotated, factor, book.gaussian_scale(), book.distortion());
    let mut quantizer = ScalarColumns { book, codes: vec![0; rotated.len()] };
    let mut values = vec![0.0; rotated.len()];
    let outcome = round_strip(level, factor, rotated, &start, &mut quantizer, &mut values);
    let mut row_codes = vec![0; n];
    for (row, (codes, scale)) in codes.chunks_exact_mut(row_bytes).zip(scales.chunks_exact_mut(2)).enumerate()
    {
        for (col, code) in row_codes.iter_mut().enumerate() {
            *code = quantizer.codes[col * rows + row];
        }
        packing::pack_row(book.bits(), &row_codes, codes);
        let fitted = turbo::to_scale(start[row] * outcome.refit[row]);
        scale.copy_from_slice(&if fitted.is_finite() { fitted } else { f16::ZERO }.to_le_bytes());
    }
    outcome
}

/// Scales to round the rows of a strip at: those that suit Gaussian rows of their norms, a little larger because
/// what is fed back adds to what is rounded: its variance solves t = w + D t feedback.
pub(crate) fn start_scales(
    rotated: &[f32],
    factor: &Factor,
    gaussian_scale: f64,
    distortion: f64,
) -> Vec<f32> {
    let n = factor.n();
    let fed_back = (distortion * factor.mean_feedback()).min(0.75);
    let inflation = (1.0 / (1.0 - fed_back)).sqrt();
    let scale = |row: &[f32]| {
        let energy: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let scale = ((energy / n as f64).sqrt() * inflation * gaussian_scale) as f32;
        if scale.is_finite() { scale } else { 0.0 }
    };
    rotated.chunks_exact(n).map(scale).collect()
}

/// Nearest levels, column by column.
struct ScalarColumns {
    book: Codebook,
    /// `[n, rows]`.
    codes: Vec<u8>,
}

impl ColumnQuantizer for ScalarColumns {
    fn round_column(&mut self, _: CpuLevel, col: usize, targets: &[f32], values: &mut [f32]) {
        let unit = self.book.unit();
        let codes = &mut self.codes[col * targets.len()..(col + 1) * targets.len()];
        for ((target, value), code) in targets.iter().zip(values).zip(codes) {
            *code = self.book.nearest(target / unit);
            *value = self.book.level(*code) as f32 * unit;
        }
    }
}
