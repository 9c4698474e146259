//! One tensor of a checkpoint, as a fact.

use crate::Role;
use gq_tensor::DType;
use serde::Serialize;

/// Where a tensor's bytes are and what it is for; nothing is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceTensor {
    /// Canonical name: that of the text model saved alone (`model.layers.0...`), whatever wraps it in the file.
    pub name: String,
    /// Name in the file.
    pub source_name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first: `[rows, cols]`, `[experts, rows, cols]` or a vector `[n]`.
    pub shape: Vec<usize>,
    /// Index into [`crate::Checkpoint::files`].
    pub file: usize,
    /// First byte, counted from the beginning of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Part in the graph.
    pub role: Role,
    /// Layer it belongs to.
    pub layer: Option<usize>,
    /// Whether an F8 companion (`weight_scale`, `weight_scale_inv`) multiplies it: decode it with
    /// [`crate::Checkpoint::decode_rows_f32`] or [`crate::Checkpoint::read_rows_f32`], never from its bytes alone.
    pub scaled: bool,
}

impl SourceTensor {
    /// Rows of the tensor as a matrix: all dimensions but the last, flattened; 1 for a vector.
    pub fn rows(&self) -> usize {
        let (_, leading) = self.shape.split_last().unwrap_or((&1, &[]));
        leading.iter().product()
    }

    /// Elements of one row: the last dimension; 1 for a scalar.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.cols() * self.dtype.size()
    }

    /// Elements in all.
    pub fn elements(&self) -> u64 {
        self.bytes / self.dtype.size() as u64
    }
}
