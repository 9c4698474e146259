//! A block of rows from source bytes to codes: convert, check, rotate, round, measure; in parallel over rows.

use super::sums::OutputSums;
use gq_checkpoint::{Checkpoint, ReadError, SourceTensor};
use gq_codec::{CodecError, Decoder, EncodeScratch, Encoder, Rotation, RotationError};
use gq_tensor::{EncodedMatrix, Encoding, Isa, MatrixShape, RotationSpec};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

/// Rows handed to a thread at a time. Scheduling only: results do not depend on it.
const CHUNK_ROWS: usize = 16;

/// Rows of a strip handed to a thread at a time.
pub(crate) const STRIP_CHUNK: usize = 32;

/// Codes, scales and distortion of a block of rows.
#[derive(Debug, Default)]
pub(crate) struct Coded {
    pub codes: Vec<u8>,
    pub scales: Vec<u8>,
    /// Squared error and squared norm of each row.
    pub sums: Vec<(f64, f64)>,
    /// Output errors, where codes were rounded with the inputs in view.
    pub outputs: Vec<OutputSums>,
}

/// Buffers of rows that are coded together, used again from block to block: blocks are coded by whichever thread is
/// free, and an allocator that keeps a heap for each thread would keep such buffers in all of them.
#[derive(Debug, Default)]
pub(crate) struct StripBuffers {
    rotated: Vec<f32>,
    payload: Vec<u8>,
}

/// What is needed to code rows of one width in one way.
#[derive(Clone)]
pub(crate) struct RowCoder {
    pub(crate) encoding: Encoding,
    pub(crate) cols: usize,
    pub(crate) rotation_spec: RotationSpec,
    pub(crate) rotation: Arc<Rotation>,
    encoder: Arc<Encoder>,
    pub(crate) decoder: Arc<Decoder>,
}

/// A coder that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CoderError {
    /// The transform does not exist at this width.
    #[error(transparent)]
    Rotation(#[from] RotationError),
    /// The encoding does not exist at this width.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

/// Coders by encoding, rotation and width: matrices of one kind share one.
#[derive(Default)]
pub(crate) struct Coders {
    rotations: HashMap<(RotationSpec, usize), Arc<Rotation>>,
    coders: HashMap<(Encoding, RotationSpec, usize), RowCoder>,
}

impl Coders {
    pub(crate) fn get(
        &mut self,
        encoding: Encoding,
        spec: RotationSpec,
        cols: usize,
    ) -> Result<RowCoder, CoderError> {
        if let Some(coder) = self.coders.get(&(encoding, spec, cols)) {
            return Ok(coder.clone());
        }
        let rotation = match self.rotations.get(&(spec, cols)) {
            Some(rotation) => rotation.clone(),
            None => Arc::new(Rotation::new(spec, cols)?),
        };
        self.rotations.insert((spec, cols), rotation.clone());
        let encoder = Arc::new(Encoder::new(encoding, spec, cols)?);
        let decoder = Arc::new(Decoder::new(encoding, spec, cols)?);
        let coder = RowCoder { encoding, cols, rotation_spec: spec, rotation, encoder, decoder };
        self.coders.insert((encoding, spec, cols), coder.clone());
        Ok(coder)
    }
}

#[derive(Default)]
struct Scratch {
    row: Vec<f32>,
    decoded: Vec<f32>,
    rotate: Vec<f32>,
    encode: EncodeScratch,
    payload: Vec<u8>,
}

impl RowCoder {
    /// Codes the rows in `source`, the first of which is row `first` of `tensor`.
    /// Rows that depend on each other are whole strips of one matrix.
    pub(crate) fn code(
        &self,
        level: Isa,
        (checkpoint, tensor): (&Checkpoint, &SourceTensor),
        source: &[u8],
        first: usize,
        (out, buffers): (&mut Coded, &mut StripBuffers),
    ) -> Result<(), ReadError> {
        let source_row = tensor.row_bytes();
        let codes_row = self.encoding.codes_row_bytes(self.cols);
        let scales_row = self.encoding.scales_row_bytes(self.cols);
        let rows = source.len() / source_row;
        out.codes.resize(self.encoding.codes_bytes(rows, self.cols).unwrap_or(0), 0);
        out.scales.resize(rows * scales_row, 0);
        out.sums.resize(rows, (0.0, 0.0));
        out.outputs.clear();
        if self.encoding.strip_rows() > 1 {
            return self.code_strips(level, (checkpoint, tensor), source, first, (out, buffers));
        }
        let chunks = source
            .par_chunks(CHUNK_ROWS * source_row)
            .zip(out.codes.par_chunks_mut(CHUNK_ROWS * codes_row))
            .zip(out.scales.par_chunks_mut(CHUNK_ROWS * scales_row))
            .zip(out.sums.par_chunks_mut(CHUNK_ROWS))
            .enumerate();
        chunks.try_for_each_init(Scratch::default, |scratch, (chunk, (((source, codes), scales), sums))| {
            let rows = source.chunks_exact(source_row).zip(codes.chunks_exact_mut(codes_row));
            let rows = rows.zip(scales.chunks_exact_mut(scales_row)).zip(sums).enumerate();
            for (row, (((source, codes), scales), sums)) in rows {
                let row = first + chunk * CHUNK_ROWS + row;
                scratch.row.resize(self.cols, 0.0);
                checkpoint.decode_rows_f32(tensor, row..row + 1, source, &mut scratch.row)?;
                *sums = self.code_row(level, codes, scales, scratch);
            }
            Ok(())
        })
    }

    fn code_strips(
        &self,
        level: Isa,
        (checkpoint, tensor): (&Checkpoint, &SourceTensor),
        source: &[u8],
        first: usize,
        (out, StripBuffers { rotated, payload }): (&mut Coded, &mut StripBuffers),
    ) -> Result<(), ReadError> {
        let source_row = tensor.row_bytes();
        let shape = MatrixShape { rows: source.len() / source_row, cols: self.cols };
        rotated.resize(shape.rows * shape.cols, 0.0);
        let chunks = rotated.par_chunks_mut(STRIP_CHUNK * self.cols);
        let chunks = chunks.zip(source.par_chunks(STRIP_CHUNK * source_row)).enumerate();
        chunks.try_for_each_init(Vec::new, |scratch, (chunk, (rotated, source))| {
            let row = first + chunk * STRIP_CHUNK;
            checkpoint.decode_rows_f32(tensor, row..row + rotated.len() / self.cols, source, rotated)?;
            self.rotation.forward(level, rotated, scratch);
            Ok(())
        })?;
        self.encoder.encode_rows(
            level,
            rotated,
            &mut out.codes,
            &mut out.scales,
            &mut EncodeScratch::default(),
        );
        payload.clear();
        payload.extend_from_slice(&out.codes);
        payload.extend_from_slice(&out.scales);
        let Ok(matrix) = EncodedMatrix::new(shape, self.encoding, self.rotation_spec, payload) else {
            return Ok(());
        };
        let chunks = rotated.par_chunks(STRIP_CHUNK * self.cols).zip(out.sums.par_chunks_mut(STRIP_CHUNK));
        chunks.enumerate().for_each_init(Vec::new, |decoded, (chunk, (rotated, sums))| {
            let row = chunk * STRIP_CHUNK;
            decoded.resize(rotated.len(), 0.0);
            self.decoder.decode_rows(level, &matrix, row..row + sums.len(), decoded);
            let rows = rotated.chunks_exact(self.cols).zip(decoded.chunks_exact(self.cols));
            for (sums, (original, decoded)) in sums.iter_mut().zip(rows) {
                *sums = squared_error(original, decoded);
            }
        });
        Ok(())
    }

    /// Rounds rotated rows to nearest.
    pub(crate) fn nearest(&self, level: Isa, rotated: &[f32], codes: &mut [u8], scales: &mut [u8]) {
        self.encoder.encode_rows(level, rotated, codes, scales, &mut EncodeScratch::default());
    }

    /// Does what coding a strip or a few rows of plain values takes, for its duration.
    pub(crate) fn try_rows(&self, level: Isa, shape: MatrixShape, mut values: Vec<f32>) {
        self.rotation.forward(level, &mut values, &mut Vec::new());
        let MatrixShape { rows, cols } = shape;
        let mut codes = vec![0; self.encoding.codes_bytes(rows, cols).unwrap_or(0)];
        let mut scales = vec![0; rows * self.encoding.scales_row_bytes(cols)];
        self.encoder.encode_rows(level, &values, &mut codes, &mut scales, &mut EncodeScratch::default());
        codes.append(&mut scales);
        if let Ok(matrix) = EncodedMatrix::new(shape, self.encoding, self.rotation_spec, &codes) {
            let mut decoded = vec![0.0; values.len()];
            self.decoder.decode_rows(level, &matrix, 0..rows, &mut decoded);
            std::hint::black_box(squared_error(&values, &decoded));
        }
    }

    /// Codes the row in `scratch`; gives its squared error and squared norm, both in the rotated basis.
    fn code_row(&self, level: Isa, codes: &mut [u8], scales: &mut [u8], scratch: &mut Scratch) -> (f64, f64) {
        let Scratch { row, decoded, rotate, encode, payload } = scratch;
        decoded.resize(self.cols, 0.0);
        self.rotation.forward(level, row, rotate);
        self.encoder.encode_row(level, row, codes, scales, encode);
        payload.clear();
        payload.extend_from_slice(codes);
        payload.extend_from_slice(scales);
        let shape = MatrixShape { rows: 1, cols: self.cols };
        if let Ok(matrix) = EncodedMatrix::new(shape, self.encoding, self.rotation_spec, payload) {
            self.decoder.decode_row(level, &matrix, 0, decoded);
        }
        squared_error(row, decoded)
    }
}

/// Sums of squared differences and of squares, over eight lanes in a fixed order.
pub(crate) fn squared_error(original: &[f32], decoded: &[f32]) -> (f64, f64) {
    const LANES: usize = 8;
    let (mut error, mut energy) = ([0f64; LANES], [0f64; LANES]);
    let (blocks, tail) = original.as_chunks::<LANES>();
    let (decoded_blocks, decoded_tail) = decoded.as_chunks::<LANES>();
    for (x, y) in blocks.iter().zip(decoded_blocks) {
        for lane in 0..LANES {
            let (x, y) = (f64::from(x[lane]), f64::from(y[lane]));
            error[lane] += (x - y) * (x - y);
            energy[lane] += x * x;
        }
    }
    for (lane, (x, y)) in tail.iter().zip(decoded_tail).enumerate() {
        let (x, y) = (f64::from(*x), f64::from(*y));
        error[lane] += (x - y) * (x - y);
        energy[lane] += x * x;
    }
    (error.iter().sum(), energy.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let x: Vec<f32> = (0..19).map(|i| i as f32).collect();
        let y: Vec<f32> = x.iter().map(|v| v + 2.0).collect();
        assert_eq!(squared_error(&x, &y), (76.0, x.iter().map(|v| f64::from(v * v)).sum()));
    }
}
