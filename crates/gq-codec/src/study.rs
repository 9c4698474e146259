//! Relative error and size of an encoding on given rows: the figures of a table of encodings.

use crate::{CodecError, Decoder, EncodeScratch, Encoder, Rotation};
use gq_tensor::{CpuLevel, Distortion, EncodedMatrix, Encoding, MatrixShape};

/// What an encoding costs and loses on some rows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncodingStudy {
    /// The encoding studied.
    pub encoding: Encoding,
    /// Bits per weight, scales included.
    pub bits_per_weight: f64,
    /// Rows against their decoded values, in the rotated basis (rotation keeps norms).
    pub distortion: Distortion,
}

/// Rotates, encodes and decodes `data`, rows of `rotation.cols()` elements.
///
/// # Errors
/// When the encoding does not support the width, or is exact.
pub fn study_encoding(
    level: CpuLevel,
    encoding: Encoding,
    rotation: &Rotation,
    data: &[f32],
) -> Result<EncodingStudy, CodecError> {
    let cols = rotation.cols();
    let encoder = Encoder::new(encoding, rotation.spec(), cols)?;
    let decoder = Decoder::new(encoding, rotation.spec(), cols)?;
    let (mut codes, mut scales) =
        (vec![0; encoding.codes_row_bytes(cols)], vec![0; encoding.scales_row_bytes(cols)]);
    let (mut row, mut decoded, mut payload) = (vec![0.0; cols], vec![0.0; cols], Vec::new());
    let (mut scratch, mut floats) = (EncodeScratch::default(), Vec::new());
    let mut distortion = Distortion::default();
    for original in data.chunks_exact(cols.max(1)) {
        row.copy_from_slice(original);
        rotation.forward(level, &mut row, &mut floats);
        encoder.encode_row(level, &row, &mut codes, &mut scales, &mut scratch);
        payload.clear();
        payload.extend_from_slice(&codes);
        payload.extend_from_slice(&scales);
        let shape = MatrixShape { rows: 1, cols };
        if let Ok(matrix) = EncodedMatrix::new(shape, encoding, rotation.spec(), &payload) {
            decoder.decode_row(level, &matrix, 0, &mut decoded);
            distortion.add(&row, &decoded);
        }
    }
    let bits_per_weight = 8.0 * (codes.len() + scales.len()) as f64 / cols as f64;
    Ok(EncodingStudy { encoding, bits_per_weight, distortion })
}

impl EncodingStudy {
    /// `relative MSE * 4^(bits per weight)`: 1 at Shannon's bound for Gaussian rows.
    pub fn coefficient(&self) -> f64 {
        self.distortion.relative_mse() * self.bits_per_weight.exp2().powi(2)
    }
}
