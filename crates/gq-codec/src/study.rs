//! Relative error and size of an encoding on given rows: the figures of a table of encodings.

use crate::code::EncodeScratch;
use crate::encoder::Encoder;
use crate::error::CodecError;
use crate::rotation::Rotation;
use gq_tensor::{Distortion, Encoding, Isa, Storage};

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
    level: Isa,
    encoding: Encoding,
    rotation: &Rotation,
    data: &[f32],
) -> Result<EncodingStudy, CodecError> {
    let cols = rotation.cols();
    let encoder = Encoder::new(Storage::new(encoding, rotation.spec()), cols)?;
    let decoder = encoder.decoder();
    let rows = Encoding::STRIP_ROWS;
    let (mut rotated, mut decoded) = (Vec::new(), vec![0.0; rows * cols]);
    let (mut scratch, mut floats) = (EncodeScratch::default(), Vec::new());
    let mut distortion = Distortion::default();
    for original in data.chunks(rows * cols.max(1)) {
        let rows = original.len() / cols.max(1);
        rotated.clear();
        rotated.extend_from_slice(&original[..rows * cols]);
        rotation.forward(level, &mut rotated, &mut floats);
        let mut payload = vec![0; encoding.payload_bytes(rows, cols).unwrap_or(0) as usize];
        let (codes, scales) = payload.split_at_mut(encoding.codes_bytes(rows, cols).unwrap_or(0));
        let coded = encoder.encode_rows(level, &rotated, codes, scales, &mut scratch);
        decoder.decode_rows(level, &coded, 0..rows, &mut decoded[..rows * cols]);
        distortion.add(&rotated, &decoded[..rows * cols]);
    }
    let row_bytes = encoding.codes_row_bytes(cols) + encoding.scales_row_bytes(cols);
    let bits_per_weight = 8.0 * row_bytes as f64 / cols as f64;
    Ok(EncodingStudy { encoding, bits_per_weight, distortion })
}

impl EncodingStudy {
    /// `relative MSE * 4^(bits per weight)`: 1 at Shannon's bound for Gaussian rows.
    pub fn coefficient(&self) -> f64 {
        self.distortion.relative_mse() * self.bits_per_weight.exp2().powi(2)
    }
}
