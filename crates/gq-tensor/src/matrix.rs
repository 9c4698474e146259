//! Borrowed views of stored matrices.

use crate::{Encoding, RotationSpec};

/// Rows and columns; `y = W x` takes `cols` inputs to `rows` outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixShape {
    /// Outputs.
    pub rows: usize,
    /// Inputs; the width that is rotated.
    pub cols: usize,
}

/// A payload whose length is not what its shape and encoding say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Bytes that shape and encoding call for; `None` when they overflow or the width is not supported.
    pub expected: Option<u64>,
    /// Bytes given.
    pub actual: u64,
}

/// A stored matrix `[rows, cols]`, in place: code rows, then scale rows.
#[derive(Clone, Copy, Debug)]
pub struct EncodedMatrix<'a> {
    shape: MatrixShape,
    encoding: Encoding,
    rotation: RotationSpec,
    codes: &'a [u8],
    scales: &'a [u8],
}

impl<'a> EncodedMatrix<'a> {
    /// A view of `payload`.
    ///
    /// # Errors
    /// When the encoding does not support the width, or the payload has another length.
    pub fn new(
        shape: MatrixShape,
        encoding: Encoding,
        rotation: RotationSpec,
        payload: &'a [u8],
    ) -> Result<Self, ShapeMismatch> {
        let actual = payload.len() as u64;
        let expected =
            encoding.payload_bytes(shape.rows, shape.cols).filter(|_| encoding.supports_cols(shape.cols));
        if expected != Some(actual) {
            return Err(ShapeMismatch { expected, actual });
        }
        let (codes, scales) = payload.split_at(shape.rows * encoding.codes_row_bytes(shape.cols));
        Ok(EncodedMatrix { shape, encoding, rotation, codes, scales })
    }

    /// Rows and columns.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// How elements are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The basis the elements are in.
    pub fn rotation(&self) -> RotationSpec {
        self.rotation
    }

    /// Code bytes of one row; empty when `row` is out of range.
    pub fn codes(&self, row: usize) -> &'a [u8] {
        slice(self.codes, row, self.encoding.codes_row_bytes(self.shape.cols))
    }

    /// fp16 scale bytes of one row; empty when `row` is out of range.
    pub fn scales(&self, row: usize) -> &'a [u8] {
        slice(self.scales, row, self.encoding.scales_row_bytes(self.shape.cols))
    }

    /// Code bytes of all rows, contiguous.
    pub fn all_codes(&self) -> &'a [u8] {
        self.codes
    }

    /// Scale bytes of all rows, contiguous.
    pub fn all_scales(&self) -> &'a [u8] {
        self.scales
    }
}

fn slice(bytes: &[u8], row: usize, row_bytes: usize) -> &[u8] {
    bytes.get(row * row_bytes..(row + 1) * row_bytes).unwrap_or(&[])
}
