//! Rows of one tensor from the source's bytes to codes, in whichever way the tensor is coded.

use super::error::ConvertError;
use crate::round::{CalibratedCoder, CalibratedError, Coded, Factors, RowCoder, StripBuffer};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::{Checkpoint, ReadError, Role, SourceTensor, TensorReader};
use gq_codec::Coders;
use gq_tensor::{Isa, MatrixShape, Storage, decode_f32, encode_f32};
use std::ops::Range;

/// What coding takes beside the coder and the rows.
#[derive(Clone, Copy)]
pub(crate) struct Coding<'a> {
    /// Kernels.
    pub level: Isa,
    /// Factors of moments, shared among tensors.
    pub factors: &'a Factors,
    /// The source.
    pub checkpoint: &'a Checkpoint,
}

/// How a tensor is coded.
pub(crate) enum Coder<'a> {
    /// As it is.
    Exact,
    /// Row by row, to nearest.
    Nearest(RowCoder),
    /// With its inputs in view.
    Calibrated(Box<CalibratedCoder<'a>>),
}

impl<'a> Coder<'a> {
    /// A coder of `source` stored as `storage`, which shares what it can with others of the same `coders`; with its inputs in
    /// view where `measurements` have some.
    ///
    /// # Errors
    /// When the encoding or the rotation does not exist at this width, or measurements cannot be read.
    pub(crate) fn new(
        source: &SourceTensor,
        storage: Storage,
        shape: MatrixShape,
        measurements: Option<&'a MeasurementsDir>,
        coders: &mut Coders,
    ) -> Result<Coder<'a>, ConvertError> {
        if storage.encoding.is_exact() {
            return Ok(Coder::Exact);
        }
        let failed = |error| ConvertError::Coder { tensor: source.name.clone(), source: error };
        if let Some(measurements) = measurements {
            let coder = CalibratedCoder::new(measurements, source, storage, shape, coders);
            let coder = coder.map_err(|error| match error {
                CalibratedError::Coder(source) => failed(source),
                CalibratedError::Measurements(source) => ConvertError::Measurements(source),
            })?;
            if let Some(coder) = coder {
                return Ok(Coder::Calibrated(Box::new(coder)));
            }
        }
        Ok(Coder::Nearest(RowCoder::new(coders, storage, shape.cols).map_err(failed)?))
    }

    /// Codes `rows`, whose bytes are `source`, in the tensor's order.
    ///
    /// # Errors
    /// Values that are no numbers, or beyond what scales or the grid hold.
    pub(crate) fn code(
        &self,
        how: Coding<'_>,
        reader: TensorReader<'_>,
        source: &[u8],
        rows: &Range<usize>,
        coded: &mut Coded,
        buffer: &mut StripBuffer,
    ) -> Result<(), ConvertError> {
        let tensor = reader.tensor();
        let limit = match self {
            Coder::Nearest(coder) => {
                coder.code(how.level, reader, source, rows.start, coded, buffer)?;
                let encoding = coder.storage.encoding;
                if encoding.is_grid() && coded.sums.iter().any(|(error, _)| *error != 0.0) {
                    return Err(ConvertError::OffGrid { tensor: tensor.name.clone(), limit: encoding });
                }
                encoding
            }
            Coder::Calibrated(coder) => {
                coder.code(how.level, how.factors, reader, source, rows.start, coded)?;
                coder.encoding()
            }
            Coder::Exact => return Ok(copy(how.checkpoint, tensor, rows, source, coded)?),
        };
        // Weights are finite: what is not is what a scale made of them.
        if let Some(row) = coded.sums.iter().position(|(error, _)| !error.is_finite()) {
            return Err(ConvertError::Scale { tensor: tensor.name.clone(), row: rows.start + row, limit });
        }
        Ok(())
    }
}

/// Exact tensors: the source's bytes, once they are seen to be numbers; values that bytes alone do not give
/// (merged ones, a GGUF's blocks) in the tensor's dtype.
/// Towers are not looked at: the bounds of clipped activations in them may be infinite.
fn copy(
    checkpoint: &Checkpoint,
    tensor: &SourceTensor,
    rows: &Range<usize>,
    source: &[u8],
    coded: &mut Coded,
) -> Result<(), ReadError> {
    let mut values = vec![0.0; tensor.cols()];
    let made = checkpoint.is_merged(tensor) || !tensor.is_plain();
    let row_bytes = tensor.cols() * tensor.dtype.size();
    coded.codes.resize(if made { rows.len() * row_bytes } else { 0 }, 0);
    let mut codes = coded.codes.chunks_mut(row_bytes.max(1));
    let checked = if tensor.role == Role::Tower && !made { 0..0 } else { rows.clone() };
    for (row, bytes) in checked.zip(source.chunks(tensor.row_bytes())) {
        checkpoint.decode_rows_f32(tensor, row..row + 1, bytes, &mut values)?;
        if let Some(codes) = codes.next() {
            encode_f32(tensor.dtype, &values, codes);
        }
    }
    if made {
        // A sum may be beyond what the source's own dtype holds.
        overflow(tensor, rows.start, &coded.codes)?;
    }
    if !made {
        // Not swapped: a buffer of codes would keep the size of a block of source rows.
        coded.codes.extend_from_slice(source);
    }
    coded.scales.clear();
    coded.sums.clear();
    coded.outputs.clear();
    Ok(())
}

/// Refuses values that became infinite when they were stored in the tensor's dtype.
fn overflow(tensor: &SourceTensor, first_row: usize, stored: &[u8]) -> Result<(), ReadError> {
    let mut values = vec![0.0; stored.len() / tensor.dtype.size().max(1)];
    decode_f32(tensor.dtype, stored, &mut values);
    let Some(at) = values.iter().position(|value| !value.is_finite()) else { return Ok(()) };
    let (row, col) = (first_row + at / tensor.cols().max(1), at % tensor.cols().max(1));
    Err(ReadError::NotFinite { name: tensor.name.clone(), row, col, value: values[at] })
}
