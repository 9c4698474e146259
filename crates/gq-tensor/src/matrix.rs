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

/// A stored matrix `[rows, cols]`, in place: codes, then scale rows.
#[derive(Clone, Copy, Debug)]
pub struct EncodedMatrix<'a> {
    shape: MatrixShape,
    /// Rows of each of the matrices stacked; all rows where there is one.
    height: usize,
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
        Self::stacked(shape, shape.rows, encoding, rotation, payload)
    }

    /// A view of matrices of `height` rows each, such as a layer's experts, one after another: `shape.rows` rows
    /// in all. The codes of each are those of a matrix by itself, in order; then come the scales of all.
    ///
    /// # Errors
    /// When `height` does not divide the rows, the encoding does not support the width, or the payload has
    /// another length.
    pub fn stacked(
        shape: MatrixShape,
        height: usize,
        encoding: Encoding,
        rotation: RotationSpec,
        payload: &'a [u8],
    ) -> Result<Self, ShapeMismatch> {
        let actual = payload.len() as u64;
        let expected = stacked_payload_bytes(shape, height, encoding);
        let codes = encoding.codes_bytes(height, shape.cols);
        let split = codes.and_then(|codes| codes.checked_mul(shape.rows.checked_div(height).unwrap_or(0)));
        match split.and_then(|split| payload.split_at_checked(split)) {
            Some((codes, scales)) if expected == Some(actual) => {
                Ok(EncodedMatrix { shape, height, encoding, rotation, codes, scales })
            }
            _ => Err(ShapeMismatch { expected, actual }),
        }
    }

    /// Rows and columns.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// Rows of each of the matrices stacked; all rows where there is one.
    pub fn height(&self) -> usize {
        self.height
    }

    /// How elements are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// The basis the elements are in.
    pub fn rotation(&self) -> RotationSpec {
        self.rotation
    }

    /// Code bytes of one row; empty when `row` is out of range. Rows of a trellis code have none of their own.
    pub fn codes(&self, row: usize) -> &'a [u8] {
        match self.encoding.strip_rows() {
            1 => slice(self.codes, row, self.encoding.codes_row_bytes(self.shape.cols)),
            _ => &[],
        }
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

/// Bytes of matrices of `height` rows each, `shape.rows` in all; `None` when `height` does not divide them, the width
/// is not supported or the bytes do not fit in a u64.
pub fn stacked_payload_bytes(shape: MatrixShape, height: usize, encoding: Encoding) -> Option<u64> {
    if !encoding.supports_cols(shape.cols) {
        return None;
    }
    if shape.rows == 0 {
        return Some(0);
    }
    let count =
        shape.rows.checked_div(height).filter(|count| count.checked_mul(height) == Some(shape.rows))?;
    encoding.payload_bytes(height, shape.cols)?.checked_mul(count as u64)
}

fn slice(bytes: &[u8], row: usize, row_bytes: usize) -> &[u8] {
    bytes.get(row * row_bytes..(row + 1) * row_bytes).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacked_matrices_are_coded_each_by_itself() {
        let shape = MatrixShape { rows: 26, cols: 32 };
        let trellis = Encoding::from_name("tt2").unwrap();
        let payload = vec![0; 2 * 16 * 8 + 26 * 2];
        let matrix = EncodedMatrix::stacked(shape, 13, trellis, RotationSpec::NONE, &payload).unwrap();
        assert_eq!((matrix.all_codes().len(), matrix.all_scales().len()), (256, 52));
        // As one matrix, the rows need no more than 32 x 8 bytes of codes as well; as 26 they need 8 each.
        assert_eq!(stacked_payload_bytes(shape, 1, trellis), Some(26 * 66));
        assert_eq!(stacked_payload_bytes(shape, 4, trellis), None);
        assert_eq!(stacked_payload_bytes(shape, 0, trellis), None);
        assert!(EncodedMatrix::stacked(shape, 1, trellis, RotationSpec::NONE, &payload).is_err());
    }
}
