//! A checkpoint's tensor whose bytes are no values by themselves: F8 codes with scales, blocks of a GGUF, weights that
//! adapters change. Rows are decoded whenever they are needed, so that none of it is held.

use crate::input::Input;
use gq_checkpoint::{Checkpoint, MappedWeights, ReadError, SourceTensor};
use gq_codec::Decoder;
use gq_tensor::{CodedRows, DType, Encoding, Isa, MatrixShape};
use rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// Elements that a thread decodes at once, where no larger piece is asked for: 256 KiB of f32.
const PIECE: usize = 1 << 16;

/// A tensor of a checkpoint whose rows are decoded to f32 as they are asked for.
#[derive(Debug)]
pub(crate) struct DecodedRows {
    checkpoint: Arc<Checkpoint>,
    weights: Arc<MappedWeights>,
    tensor: SourceTensor,
}

impl DecodedRows {
    /// How rows are seen from outside.
    pub(crate) const ENCODING: Encoding = Encoding::Exact(DType::F32);

    /// Looks at every value once, in rayon's current pool.
    ///
    /// # Errors
    /// When a value is not finite, or an adapter cannot be read.
    pub(crate) fn new(
        checkpoint: &Arc<Checkpoint>,
        weights: &Arc<MappedWeights>,
        tensor: &SourceTensor,
    ) -> Result<DecodedRows, ReadError> {
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let step = (PIECE / cols.max(1)).max(1);
        let pieces = (0..rows.div_ceil(step)).into_par_iter().map_init(Vec::new, |values, piece| {
            let rows = piece * step..rows.min((piece + 1) * step);
            values.resize(rows.len() * cols, 0.0);
            checkpoint.decode_mapped_rows_f32(weights, tensor, rows, values)
        });
        pieces.find_first(Result::is_err).unwrap_or(Ok(()))?;
        let (checkpoint, weights, tensor) = (checkpoint.clone(), weights.clone(), tensor.clone());
        Ok(DecodedRows { checkpoint, weights, tensor })
    }

    /// Rows as f32, `[rows.len(), cols]`; NaN where an adapter can no longer be read, so that whoever computes with
    /// them sees it.
    pub(crate) fn read(&self, rows: Range<usize>, out: &mut [f32]) {
        if self.checkpoint.decode_mapped_rows_f32(&self.weights, &self.tensor, rows, out).is_err() {
            out.fill(f32::NAN);
        }
    }

    /// `out[i]` = inner product of row `rows.start + i` and an input, with the bits that values held in memory give.
    pub(crate) fn dot(
        &self,
        level: Isa,
        decoder: &Decoder,
        rows: Range<usize>,
        input: &Input,
        out: &mut [f32],
    ) {
        let cols = self.tensor.cols();
        let step = (PIECE / cols.max(1)).max(1);
        let (mut values, mut bytes) = (vec![0.0; step.min(rows.len()) * cols], Vec::new());
        for (first, out) in rows.clone().step_by(step).zip(out.chunks_mut(step)) {
            let values = &mut values[..out.len() * cols];
            self.read(first..first + out.len(), values);
            bytes.clear();
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            let shape = MatrixShape::new(out.len(), cols);
            let matrix = CodedRows::new(Self::ENCODING, shape, &bytes, &[]);
            match &input.int8 {
                Some(int8) => decoder.dot_rows(level, &matrix, 0..shape.rows, int8, out),
                None => decoder.dot_rows_f32(level, &matrix, 0..shape.rows, &input.values, out),
            }
        }
    }
}
