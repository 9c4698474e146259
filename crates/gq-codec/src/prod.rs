//! TurboQuant_prod: a scalar code of `bits - 1` and the signs of a sketch of its residual
//! (arXiv 2504.19874, Algorithm 2). A reference mode: unbiased inner products at a higher error.

use crate::{
    Codebook, EncodeScratch,
    error::CodecError,
    kernel, packing,
    random::Purpose,
    rotation::{DENSE_LIMIT, Dense},
    turbo,
};
use gq_tensor::{Encoding, Isa, Sketch};
use half::f16;

/// The code of rows of one width.
#[derive(Clone, Debug)]
pub(crate) struct ProdCode {
    book: Codebook,
    sketch: Dense,
    /// What `gamma Sᵀ sign(S r)` is multiplied by to be an unbiased estimate of r.
    factor: f32,
}

impl ProdCode {
    pub(crate) fn new(bits: u8, sketch: Sketch, seed: u64, cols: usize) -> Result<ProdCode, CodecError> {
        let encoding = Encoding::Prod { bits, sketch };
        if cols > DENSE_LIMIT {
            return Err(CodecError::Sketch { encoding, cols, limit: DENSE_LIMIT });
        }
        let book = Codebook::of(bits.saturating_sub(1)).ok_or(CodecError::Unregistered { encoding })?;
        let (sketch, factor) = match sketch {
            Sketch::Gaussian => {
                let factor = (std::f64::consts::FRAC_PI_2).sqrt() / cols as f64;
                (Dense::gaussian(seed, Purpose::Sketch, cols), factor)
            }
            Sketch::Orthogonal => {
                let factor = 1.0 / (cols as f64 * mean_abs_coordinate(cols));
                (Dense::orthogonal(seed, Purpose::Sketch, cols), factor)
            }
        };
        Ok(ProdCode { book, sketch, factor: factor as f32 })
    }

    pub(crate) fn encode_row(
        &self,
        level: Isa,
        x: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        let EncodeScratch { codes: indices, residual, sketch } = scratch;
        indices.resize(x.len(), 0);
        residual.resize(x.len(), 0.0);
        sketch.resize(x.len(), 0.0);
        let scale = turbo::encode_group(level, self.book, x, indices);
        let step = scale.to_f32() * self.book.unit();
        for ((r, &x), &code) in residual.iter_mut().zip(x).zip(indices.iter()) {
            *r = x - step * self.book.level(code) as f32;
        }
        let (low, signs) = codes.split_at_mut(x.len() * usize::from(self.book.bits()) / 8);
        packing::pack_row(self.book.bits(), indices, low);
        self.sketch.forward(level, residual, sketch);
        for (code, &s) in indices.iter_mut().zip(sketch.iter()) {
            *code = u8::from(s < 0.0);
        }
        packing::pack_row(1, indices, signs);
        let gamma = turbo::to_scale(kernel::energy(level, residual).sqrt() as f32);
        let gamma = if scale.is_nan() { f16::NAN } else { gamma };
        if let Some((first, second)) = scales.split_at_mut_checked(2) {
            first.copy_from_slice(&scale.to_le_bytes());
            second.copy_from_slice(&gamma.to_le_bytes());
        }
    }

    /// Adds the sketch's estimate of the residual to `out`, which holds the decoded scalar code.
    pub(crate) fn add_residual(&self, level: Isa, signs: &[u8], gamma: f16, out: &mut [f32]) {
        let sum = &mut vec![0.0; out.len()];
        self.sketch.add_transposed(level, &self.signs(signs), sum);
        let factor = self.factor * gamma.to_f32();
        for (out, sum) in out.iter_mut().zip(sum) {
            *out += factor * *sum;
        }
    }

    /// `S x`, shared by all rows that meet the same activations.
    pub(crate) fn project(&self, level: Isa, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        self.sketch.forward(level, x, &mut out);
        out
    }

    /// The estimate of `<r, x>` from the stored signs of `S r` and from `S x`.
    pub(crate) fn residual_dot(&self, level: Isa, signs: &[u8], gamma: f16, projected: &[f32]) -> f32 {
        self.factor * gamma.to_f32() * kernel::dot(level, &self.signs(signs), projected)
    }

    /// The code without its sketch.
    pub(crate) fn book(&self) -> Codebook {
        self.book
    }

    fn signs(&self, packed: &[u8]) -> Vec<f32> {
        let mut bits = vec![0; self.sketch.cols()];
        packing::unpack_row(1, packed, &mut bits);
        bits.into_iter().map(|bit| if bit == 0 { 1.0 } else { -1.0 }).collect()
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
