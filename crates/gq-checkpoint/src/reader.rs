//! One tensor of a checkpoint, to be read.

use crate::checkpoint::Checkpoint;
use crate::error::ReadError;
use crate::tensor::SourceTensor;
use std::ops::Range;

/// A tensor and the checkpoint that it is read from.
#[derive(Clone, Copy, Debug)]
pub struct TensorReader<'a> {
    checkpoint: &'a Checkpoint,
    tensor: &'a SourceTensor,
}

impl<'a> TensorReader<'a> {
    /// A reader of `tensor`, which is one of the checkpoint's.
    pub fn new(checkpoint: &'a Checkpoint, tensor: &'a SourceTensor) -> TensorReader<'a> {
        TensorReader { checkpoint, tensor }
    }

    /// What is read.
    pub fn tensor(&self) -> &'a SourceTensor {
        self.tensor
    }

    /// [`Checkpoint::read_rows_f32`].
    ///
    /// # Errors
    /// Those of the checkpoint.
    pub fn read_rows_f32(&self, rows: Range<usize>, out: &mut [f32]) -> Result<(), ReadError> {
        self.checkpoint.read_rows_f32(self.tensor, rows, out)
    }

    /// [`Checkpoint::decode_rows_f32`].
    ///
    /// # Errors
    /// Those of the checkpoint.
    pub fn decode_rows_f32(
        &self,
        rows: Range<usize>,
        bytes: &[u8],
        out: &mut [f32],
    ) -> Result<(), ReadError> {
        self.checkpoint.decode_rows_f32(self.tensor, rows, bytes, out)
    }
}
