//! One tensor of a checkpoint, as a fact.

use crate::Role;
use crate::assembly::{Assembly, Matrices};
use crate::gguf::Storage;
use gq_tensor::{DType, MatrixShape};
use serde::Serialize;
use std::ops::Range;

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
    /// How a GGUF stores it; `None` in safetensors, where the bytes are values of `dtype` in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gguf: Option<Storage>,
    /// Where files have it in several pieces of whole rows, in the order of its rows: one for each expert's matrix.
    /// Empty where it is in one piece. With pieces, `file` and `offset` are those of the first one there is in the
    /// files, and `bytes` is the sum.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<TensorPiece>,
    /// How rows come from the pieces, where these are no rows by themselves; its bytes are those of rows put together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assembly: Option<Assembly>,
}

/// Rows of a tensor that stand together in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TensorPiece {
    /// Name in the file.
    pub source_name: String,
    /// Index into [`crate::Checkpoint::files`].
    pub file: usize,
    /// First byte, counted from the beginning of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) file: usize,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
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

    /// The same as a shape: the last two dimensions are a matrix, and those before stack.
    pub fn matrix(&self) -> MatrixShape {
        let matrices = self.shape.iter().rev().skip(2).product();
        MatrixShape { rows: self.rows(), cols: self.cols(), matrices }
    }

    /// Bytes of one row in the file.
    pub fn row_bytes(&self) -> usize {
        match (self.gguf, self.assembly) {
            (Some(storage), _) => storage.row_bytes(self.cols()),
            (None, Some(assembly)) => assembly.row_bytes(self.cols(), self.dtype.size()),
            (None, None) => self.cols() * self.dtype.size(),
        }
    }

    /// Whether the bytes in the file are the values, in one piece and in order, as `dtype` says.
    pub fn is_plain(&self) -> bool {
        !self.scaled && self.pieces.is_empty() && self.gguf.is_none_or(Storage::is_plain)
    }

    /// Whether it is in several pieces whose bytes, one piece after the other, are the values as `dtype` says.
    pub fn is_plain_stack(&self) -> bool {
        let plain = self.gguf.is_none_or(Storage::is_plain) && self.assembly.is_none();
        !self.scaled && !self.pieces.is_empty() && plain
    }

    /// Whether elements are the 4-bit floats of MXFP4 with their powers of two, as they stand in a file.
    pub fn is_mxfp4(&self) -> bool {
        let of_gguf = |storage: Storage| storage.kind() == crate::gguf::GgmlType::MXFP4;
        self.assembly.is_some_and(Assembly::is_mxfp4) || self.gguf.is_some_and(of_gguf)
    }

    /// Whether elements are integer codes with scales of groups, as they stand in a file.
    pub fn is_integers(&self) -> bool {
        self.assembly.is_some_and(|assembly| assembly.integer_bits().is_some())
    }

    /// The matrices that rows are put together for.
    pub(crate) fn matrices(&self) -> Matrices {
        let shape = self.matrix();
        Matrices { rows_per_matrix: shape.rows_each(), cols: shape.cols, size: self.dtype.size() }
    }

    /// Rows that a file may keep in another order among themselves; whoever reads a file by itself reads whole units
    /// and puts their rows in order with [`SourceTensor::order_rows`]. 1 where rows stand in order.
    pub fn row_unit(&self) -> usize {
        match self.gguf {
            Some(storage) if self.shape.len() > 1 => storage.row_unit(self.rows()),
            _ => 1,
        }
    }

    /// Puts the rows of whole units, as they stand in the file, into the tensor's order.
    pub fn order_rows(&self, bytes: &mut [u8]) {
        let unit = self.row_unit();
        if unit == 1 {
            return;
        }
        let row_bytes = self.row_bytes();
        let mut unit_bytes = Vec::new();
        for stored in bytes.chunks_exact_mut((unit * row_bytes).max(1)) {
            unit_bytes.clear();
            unit_bytes.extend_from_slice(stored);
            for (row, ordered) in stored.chunks_exact_mut(row_bytes.max(1)).enumerate() {
                let from = self.stored_row(row) * row_bytes;
                ordered.copy_from_slice(unit_bytes.get(from..from + row_bytes).unwrap_or_default());
            }
        }
    }

    /// Where the files have a range of its bytes, in order.
    pub(crate) fn spans(&self, range: Range<u64>) -> Vec<Span> {
        if self.pieces.is_empty() {
            let (offset, bytes) =
                (self.offset.saturating_add(range.start), range.end.saturating_sub(range.start));
            return vec![Span { file: self.file, offset, bytes }];
        }
        // All pieces are matrices of one shape.
        let size = self.pieces.first().map_or(1, |piece| piece.bytes).max(1);
        let first = usize::try_from(range.start / size).unwrap_or(usize::MAX);
        let mut spans = Vec::new();
        for (index, piece) in self.pieces.iter().enumerate().skip(first) {
            let at = size.saturating_mul(index as u64);
            let (from, to) = (range.start.max(at), range.end.min(at.saturating_add(size)));
            if from >= to {
                break;
            }
            let offset = piece.offset.saturating_add(from - at);
            spans.push(Span { file: piece.file, offset, bytes: to - from });
        }
        spans
    }

    /// Where the files have bytes of one of its pieces; `None` outside.
    pub(crate) fn span_of_piece(&self, piece: usize, offset: u64, bytes: usize) -> Option<Span> {
        let piece = self.pieces.get(piece)?;
        let bytes = bytes as u64;
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= piece.bytes);
        inside.then_some(Span { file: piece.file, offset: piece.offset.saturating_add(offset), bytes })
    }

    /// Where the file keeps a row.
    pub(crate) fn stored_row(&self, row: usize) -> usize {
        self.gguf.map_or(row, |storage| storage.stored_row(row, self.rows()))
    }

    /// Elements in all.
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}
