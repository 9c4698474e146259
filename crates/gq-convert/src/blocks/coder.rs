//! Rows to blocks, with their inputs in view where those were measured.

use super::tried::{Importances, RowCode, Trials};
use crate::execute::ConvertError;
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::Checkpoint;
use gq_codec::{BlockCode, Metric, round_blocks};
use gq_tensor::ggml::{GgmlType, decode_blocks};
use gq_tensor::{DType, Isa};
use std::ops::Range;

/// Rounds tensors of a checkpoint to block types.
pub struct BlockCoder<'a> {
    trials: Trials<'a>,
}

/// What a type loses of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct TypeError<K = GgmlType> {
    /// The type.
    pub kind: K,
    /// Squared error of outputs on text held out, relative to that of errors as large as the weights; of the weights
    /// themselves where no inputs were measured.
    pub error: f64,
}

impl RowCode for BlockCode {
    fn number(self) -> u32 {
        self.kind().code()
    }

    fn fits(self, cols: usize) -> bool {
        cols.is_multiple_of(self.kind().block_len())
    }

    fn rounded(self, level: Isa, metric: Metric<'_>, rows: &[f32], cols: usize) -> Vec<f32> {
        let kind = self.kind();
        let mut bytes = vec![0; rows.len() / cols * kind.row_bytes(cols).unwrap_or(0)];
        round_blocks(level, self, metric, rows, &mut bytes);
        let mut decoded = vec![0.0; rows.len()];
        decode_blocks(kind, &bytes, &mut decoded);
        decoded
    }
}

impl<'a> BlockCoder<'a> {
    /// Without `measurements` all columns count the same.
    pub fn new(
        checkpoint: &'a Checkpoint,
        measurements: Option<&'a MeasurementsDir>,
        level: Isa,
    ) -> BlockCoder<'a> {
        BlockCoder { trials: Trials::new(checkpoint, measurements, level) }
    }

    /// The same with importances of columns, for tensors that were not measured.
    #[must_use]
    pub fn with_importances(self, importances: &'a Importances) -> BlockCoder<'a> {
        BlockCoder { trials: self.trials.with_importances(importances) }
    }

    /// What each type that a tensor's width allows loses of some of its rows: block types, and those of 16 bits.
    ///
    /// # Errors
    /// When weights or measurements cannot be read, or weights are no numbers.
    pub fn errors(&self, name: &str) -> Result<Vec<TypeError>, ConvertError> {
        let found = self.trials.errors(name, BlockCode::all())?;
        let blocks = found.codes.into_iter().map(|(code, error)| TypeError { kind: code.kind(), error });
        let halves = found.halves.into_iter().map(|(dtype, error)| {
            let kind = if dtype == DType::F16 { GgmlType::F16 } else { GgmlType::BF16 };
            TypeError { kind, error }
        });
        Ok(blocks.chain(halves).collect())
    }

    /// Rounds rows of a tensor to blocks of `kind` into `out`; `values` are the rows that stand in `runs` of the source,
    /// in an order that keeps those of one input together. False for a type without blocks.
    ///
    /// # Errors
    /// When measurements cannot be read or factored.
    pub fn round(
        &self,
        name: &str,
        kind: GgmlType,
        runs: &[Range<usize>],
        values: &[f32],
        out: &mut [u8],
    ) -> Result<bool, ConvertError> {
        let Some(code) = BlockCode::of(kind) else { return Ok(false) };
        let tensor = self.trials.tensor(name)?;
        let cols = tensor.cols();
        let row_bytes = kind.row_bytes(cols).unwrap_or(0);
        let height = (tensor.rows() / self.trials.groups(name)).max(1);
        let mut done = 0;
        for run in runs {
            let mut row = run.start;
            while row < run.end {
                let group = row / height;
                let now = run.end.min((group + 1) * height) - row;
                let values = &values[done * cols..(done + now) * cols];
                let out = &mut out[done * row_bytes..(done + now) * row_bytes];
                self.trials.with_metric(code, tensor, group, |level, metric| {
                    round_blocks(level, code, metric, values, out);
                })?;
                (row, done) = (row + now, done + now);
            }
        }
        Ok(true)
    }
}
