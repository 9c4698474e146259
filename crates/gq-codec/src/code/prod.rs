//! TurboQuant_prod: a scalar code of `bits - 1` and the signs of a sketch of its residual
//! (arXiv 2504.19874, Algorithm 2). A reference mode: unbiased inner products at a higher error.

use super::turbo::{encode_group, scalar_rows};
use super::{Code, EncodeScratch, Family, TableBytes};
use crate::codebook::{Codebook, LevelTables};
use crate::error::CodecError;
use crate::kernel::{self, TurboRows};
use crate::packing;
use crate::random::Purpose;
use crate::rotation::{DENSE_LIMIT, Dense};
use crate::scale::to_scale;
use gq_tensor::{CodedRows, Encoding, Isa, ScaleGroup, Sketch};
use half::f16;
use std::ops::Range;
use std::sync::OnceLock;

/// What people read of these codes.
pub(super) const FAMILIES: &[Family] = &[
    Family { names: "tqp2 … tqp5", text: "TurboQuant_prod with a Gaussian sketch (reference mode)" },
    Family { names: "tqpo2 … tqpo5", text: "TurboQuant_prod with an orthogonal sketch (reference mode)" },
];

/// A scalar code and a sketch.
#[derive(Debug)]
pub(super) struct Prod {
    bits: u8,
    distribution: Sketch,
    seed: u64,
    book: Codebook,
    tables: LevelTables,
    sketched: OnceLock<Sketched>,
}

/// A sketching matrix of one width.
#[derive(Debug)]
struct Sketched {
    matrix: Dense,
    /// What `gamma Sᵀ sign(S r)` is multiplied by to be an unbiased estimate of r.
    factor: f32,
}

impl Prod {
    /// `None` when there is no codebook of one bit less.
    pub(super) fn new(bits: u8, distribution: Sketch, seed: u64) -> Option<Prod> {
        let book = Codebook::of(bits.saturating_sub(1))?;
        let (tables, sketched) = (LevelTables::new(book), OnceLock::new());
        Some(Prod { bits, distribution, seed, book, tables, sketched })
    }

    /// The matrix for rows of `cols` elements: a code is used for one width.
    fn sketched(&self, cols: usize) -> &Sketched {
        let make = || {
            let (matrix, factor) = match self.distribution {
                Sketch::Gaussian => {
                    let factor = (std::f64::consts::FRAC_PI_2).sqrt() / cols as f64;
                    (Dense::gaussian(self.seed, Purpose::Sketch, cols), factor)
                }
                Sketch::Orthogonal => {
                    let factor = 1.0 / (cols as f64 * mean_abs_coordinate(cols));
                    (Dense::orthogonal(self.seed, Purpose::Sketch, cols), factor)
                }
            };
            Sketched { matrix, factor: factor as f32 }
        };
        let sketched = self.sketched.get_or_init(make);
        assert_eq!(sketched.matrix.cols(), cols, "width of the sketch");
        sketched
    }

    /// The scalar code of a stored row, and its sketch.
    fn row<'a>(&'a self, matrix: &CodedRows<'a>, row: usize) -> (TurboRows<'a>, StoredSketch) {
        let (cols, (codes, scales)) = (matrix.shape().cols, matrix.part(row..row + 1));
        let (low, signs) = codes.split_at(cols / 8 * usize::from(self.book.bits()));
        let (scale, gamma) = scales.split_at(2);
        let gamma = gamma.first_chunk::<2>().map_or(f16::ZERO, |bytes| f16::from_le_bytes(*bytes));
        let mut bits = vec![0; cols];
        packing::unpack_row(1, signs, &mut bits);
        let signs = bits.into_iter().map(|bit| if bit == 0 { 1.0 } else { -1.0 }).collect();
        let rows = scalar_rows(&self.tables, self.book, cols, ScaleGroup::Row, low, scale);
        (rows, StoredSketch { signs, gamma: gamma.to_f32() })
    }
}

/// The sketch of one row's residual.
struct StoredSketch {
    signs: Vec<f32>,
    /// The residual's norm.
    gamma: f32,
}

impl Code for Prod {
    fn distortion(&self) -> Option<f64> {
        None
    }

    fn tables(&self, cols: usize) -> TableBytes {
        let square = 4 * (cols as u64) * (cols as u64);
        // Made orthogonal in f64 before it is kept in f32.
        let making = if self.distribution == Sketch::Orthogonal { 2 * square } else { 0 };
        TableBytes { kept: square, making }
    }

    fn prepare(&self, cols: usize) -> Result<(), CodecError> {
        if cols > DENSE_LIMIT {
            let encoding = Encoding::Prod { bits: self.bits, sketch: self.distribution };
            return Err(CodecError::Sketch { encoding, cols, limit: DENSE_LIMIT });
        }
        self.sketched(cols);
        Ok(())
    }

    fn encode(
        &self,
        level: Isa,
        x: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        let EncodeScratch { codes: indices, residual, sketch, .. } = scratch;
        indices.resize(x.len(), 0);
        residual.resize(x.len(), 0.0);
        sketch.resize(x.len(), 0.0);
        let scale = encode_group(level, self.book, x, indices);
        let step = scale.to_f32() * self.book.unit();
        for ((r, &x), &code) in residual.iter_mut().zip(x).zip(indices.iter()) {
            *r = x - step * self.book.level(code) as f32;
        }
        let (low, signs) = codes.split_at_mut(x.len() * usize::from(self.book.bits()) / 8);
        packing::pack_row(self.book.bits(), indices, low);
        self.sketched(x.len()).matrix.forward(level, residual, sketch);
        for (code, &s) in indices.iter_mut().zip(sketch.iter()) {
            *code = u8::from(s < 0.0);
        }
        packing::pack_row(1, indices, signs);
        let gamma = to_scale(kernel::energy(level, residual).sqrt() as f32);
        let gamma = if scale.is_nan() { f16::NAN } else { gamma };
        if let Some((first, second)) = scales.split_at_mut_checked(2) {
            first.copy_from_slice(&scale.to_le_bytes());
            second.copy_from_slice(&gamma.to_le_bytes());
        }
    }

    /// The scalar code, and the sketch's estimate of the residual.
    fn decode(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]) {
        let cols = matrix.shape().cols;
        let sketched = self.sketched(cols);
        let mut sum = vec![0.0; cols];
        for (row, out) in rows.zip(out.chunks_exact_mut(cols)) {
            let (low, sketch) = self.row(matrix, row);
            kernel::turbo_decode(level, low, out);
            sum.fill(0.0);
            sketched.matrix.add_transposed(level, &sketch.signs, &mut sum);
            let factor = sketched.factor * sketch.gamma;
            for (out, sum) in out.iter_mut().zip(&sum) {
                *out += factor * *sum;
            }
        }
    }

    /// Of the residual, the estimate of `<r, x>` from the stored signs of `S r` and from `S x`, which all rows share.
    fn dot_f32(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        let sketched = self.sketched(x.len());
        let mut projected = vec![0.0; x.len()];
        sketched.matrix.forward(level, x, &mut projected);
        for (row, out) in rows.zip(out) {
            let (low, sketch) = self.row(matrix, row);
            kernel::turbo_dot_f32(level, low, x, std::slice::from_mut(out));
            *out += sketched.factor * sketch.gamma * kernel::dot(level, &sketch.signs, &projected);
        }
    }
}

/// Mean absolute coordinate of a uniform point on the unit sphere of an even dimension:
/// `Gamma(d/2) / (sqrt(pi) Gamma((d+1)/2))`, by its recurrence in d.
fn mean_abs_coordinate(cols: usize) -> f64 {
    let ratio = |j: usize| j as f64 / (j as f64 + 1.0);
    (2..cols).step_by(2).map(ratio).fold(std::f64::consts::FRAC_2_PI, |product, ratio| product * ratio)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_factor_at_finite_widths() {
        // sqrt(pi) Gamma((d+1)/2) / (d Gamma(d/2)).
        for (cols, want) in
            [(32, 0.2198328), (64, 0.1560535), (96, 0.1275832), (128, 0.1105622), (256, 0.0782557)]
        {
            let factor = 1.0 / (cols as f64 * mean_abs_coordinate(cols));
            assert!((factor - want).abs() < 1e-7, "{cols}: {factor}");
        }
    }
}
