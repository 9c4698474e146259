//! A block of rows from source bytes to codes: convert, check, rotate, round, measure; in parallel over rows.

use super::error::CoderError;
use super::sums::OutputSums;
use gq_checkpoint::{ReadError, TensorReader};
use gq_codec::{Coders, Decoder, EncodeScratch, Encoder, Parallelism, Rotation};
use gq_tensor::{CodedRows, Isa, Storage};
use rayon::prelude::*;
use std::sync::Arc;

/// Rows handed to a thread at a time. Scheduling only: results do not depend on it.
const CHUNK_ROWS: usize = 16;

/// Rows of a strip handed to a thread at a time.
const STRIP_CHUNK: usize = 32;

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

/// A buffer of rows that are coded together, used again from block to block: blocks are coded by whichever thread is
/// free, and an allocator that keeps a heap for each thread would keep such a buffer in all of them.
#[derive(Debug, Default)]
pub(crate) struct StripBuffer {
    rotated: Vec<f32>,
}

/// What is needed to code rows of one width in one way.
#[derive(Clone)]
pub(crate) struct RowCoder {
    pub(crate) storage: Storage,
    pub(crate) cols: usize,
    pub(crate) rotation: Arc<Rotation>,
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
}

#[derive(Default)]
struct Scratch {
    row: Vec<f32>,
    decoded: Vec<f32>,
    rotate: Vec<f32>,
    encode: EncodeScratch,
}

impl RowCoder {
    /// What it takes is shared with other coders of the same `coders`.
    pub(crate) fn new(coders: &mut Coders, storage: Storage, cols: usize) -> Result<RowCoder, CoderError> {
        let rotation = coders.rotation(storage.rotation, cols)?;
        let (encoder, decoder) = (coders.encoder(storage, cols)?, coders.decoder(storage, cols)?);
        Ok(RowCoder { storage, cols, rotation, encoder, decoder })
    }

    /// Floats that a thread holds for each column while it codes: rows on their way, what rotates them and what they
    /// decode to. The code's own buffers come in addition.
    pub(crate) fn rows_held(storage: Storage) -> usize {
        if storage.encoding.strip_rows() > 1 { STRIP_CHUNK + 2 } else { 3 }
    }

    /// Codes the rows in `source`, the first of which is row `first` of the tensor.
    /// Rows that depend on each other are whole strips of one matrix.
    pub(crate) fn code(
        &self,
        level: Isa,
        reader: TensorReader<'_>,
        source: &[u8],
        first: usize,
        out: &mut Coded,
        buffer: &mut StripBuffer,
    ) -> Result<(), ReadError> {
        let encoding = self.storage.encoding;
        let source_row = reader.tensor().row_bytes();
        let codes_row = encoding.codes_row_bytes(self.cols);
        let scales_row = encoding.scales_row_bytes(self.cols);
        let rows = source.len() / source_row;
        out.codes.resize(encoding.codes_bytes(rows, self.cols).unwrap_or(0), 0);
        out.scales.resize(rows * scales_row, 0);
        out.sums.resize(rows, (0.0, 0.0));
        out.outputs.clear();
        if encoding.strip_rows() > 1 {
            buffer.rotated.resize(rows * self.cols, 0.0);
            return self.code_strips(level, reader, source, first, out, &mut buffer.rotated);
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
                reader.decode_rows_f32(row..row + 1, source, &mut scratch.row)?;
                *sums = self.code_row(level, codes, scales, scratch);
            }
            Ok(())
        })
    }

    fn code_strips(
        &self,
        level: Isa,
        reader: TensorReader<'_>,
        source: &[u8],
        first: usize,
        out: &mut Coded,
        rotated: &mut [f32],
    ) -> Result<(), ReadError> {
        let chunks = rotated.par_chunks_mut(STRIP_CHUNK * self.cols);
        let chunks = chunks.zip(source.par_chunks(STRIP_CHUNK * reader.tensor().row_bytes())).enumerate();
        chunks.try_for_each_init(Vec::new, |scratch, (chunk, (rotated, source))| {
            let row = first + chunk * STRIP_CHUNK;
            reader.decode_rows_f32(row..row + rotated.len() / self.cols, source, rotated)?;
            self.rotation.forward(level, rotated, scratch);
            Ok(())
        })?;
        let coded = self.nearest(level, Parallelism::Threads, rotated, &mut out.codes, &mut out.scales);
        let chunks = rotated.par_chunks(STRIP_CHUNK * self.cols).zip(out.sums.par_chunks_mut(STRIP_CHUNK));
        chunks.enumerate().for_each_init(Vec::new, |decoded, (chunk, (rotated, sums))| {
            let row = chunk * STRIP_CHUNK;
            decoded.resize(rotated.len(), 0.0);
            self.decoder.decode_rows(level, &coded, row..row + sums.len(), decoded);
            let rows = rotated.chunks_exact(self.cols).zip(decoded.chunks_exact(self.cols));
            for (sums, (original, decoded)) in sums.iter_mut().zip(rows) {
                *sums = squared_error(original, decoded);
            }
        });
        Ok(())
    }

    /// Rounds rotated rows to nearest.
    pub(crate) fn nearest<'a>(
        &self,
        level: Isa,
        parallelism: Parallelism,
        rotated: &[f32],
        codes: &'a mut [u8],
        scales: &'a mut [u8],
    ) -> CodedRows<'a> {
        self.encoder.encode_rows(level, rotated, codes, scales, &mut EncodeScratch::new(parallelism))
    }

    /// Does what coding a strip or a few rows of plain values takes, for its duration.
    pub(crate) fn try_rows(&self, level: Isa, mut values: Vec<f32>) {
        self.rotation.forward(level, &mut values, &mut Vec::new());
        let (rows, encoding) = (values.len() / self.cols, self.storage.encoding);
        let mut codes = vec![0; encoding.codes_bytes(rows, self.cols).unwrap_or(0)];
        let mut scales = vec![0; rows * encoding.scales_row_bytes(self.cols)];
        let coded = self.nearest(level, Parallelism::Threads, &values, &mut codes, &mut scales);
        let mut decoded = vec![0.0; values.len()];
        self.decoder.decode_rows(level, &coded, 0..rows, &mut decoded);
        std::hint::black_box(squared_error(&values, &decoded));
    }

    /// Codes the row in `scratch`; gives its squared error and squared norm, both in the rotated basis.
    fn code_row(&self, level: Isa, codes: &mut [u8], scales: &mut [u8], scratch: &mut Scratch) -> (f64, f64) {
        let Scratch { row, decoded, rotate, encode } = scratch;
        decoded.resize(self.cols, 0.0);
        self.rotation.forward(level, row, rotate);
        let coded = self.encoder.encode_row(level, row, codes, scales, encode);
        self.decoder.decode_row(level, &coded, 0, decoded);
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
