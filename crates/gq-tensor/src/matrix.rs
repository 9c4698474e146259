//! Shapes of matrices, and borrowed views of how they are stored.

use crate::Encoding;
use std::ops::Range;

/// Rows and columns of a matrix, or of several with the same shape, one above the other, such as a layer's experts;
/// `y = W x` takes `cols` inputs to `rows` outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatrixShape {
    /// Outputs: rows of all matrices together.
    pub rows: usize,
    /// Inputs; the width that is rotated.
    pub cols: usize,
    /// How many matrices are stacked. Each is coded by itself.
    pub matrices: usize,
}

impl MatrixShape {
    /// Of one matrix.
    pub const fn new(rows: usize, cols: usize) -> MatrixShape {
        MatrixShape { rows, cols, matrices: 1 }
    }

    /// Of `matrices`, each of `rows` rows; `None` when their rows together do not fit in a usize.
    pub const fn stack(matrices: usize, rows: usize, cols: usize) -> Option<MatrixShape> {
        match matrices.checked_mul(rows) {
            Some(rows) => Some(MatrixShape { rows, cols, matrices }),
            None => None,
        }
    }

    /// Of a tensor: its last two dimensions are a matrix, those before stack; a vector is one row, a scalar one element.
    /// `None` when a number does not fit in a usize.
    pub fn of_tensor(shape: &[u64]) -> Option<MatrixShape> {
        let (leading, [rows, cols]) = match *shape {
            [] => (&shape[..0], [1, 1]),
            [cols] => (&shape[..0], [1, cols]),
            [ref leading @ .., rows, cols] => (leading, [rows, cols]),
        };
        let matrices = leading.iter().try_fold(1_u64, |product, d| product.checked_mul(*d))?;
        let number = |n: u64| usize::try_from(n).ok();
        MatrixShape::stack(number(matrices)?, number(rows)?, number(cols)?)
    }

    /// Rows of each matrix.
    pub const fn rows_each(self) -> usize {
        match self.rows.checked_div(self.matrices) {
            Some(rows) => rows,
            None => 0,
        }
    }

    /// Bytes of codes and scales in `encoding`; `None` when the width is not supported or they do not fit in a u64.
    pub fn payload_bytes(self, encoding: Encoding) -> Option<u64> {
        if !encoding.supports_cols(self.cols) {
            return None;
        }
        if self.rows == 0 {
            return Some(0);
        }
        encoding.payload_bytes(self.rows_each(), self.cols)?.checked_mul(self.matrices as u64)
    }

    /// Bytes of the codes alone.
    fn codes_bytes(self, encoding: Encoding) -> Option<usize> {
        encoding.codes_bytes(self.rows_each(), self.cols)?.checked_mul(self.matrices)
    }
}

/// A payload whose length is not what its shape and encoding say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// Bytes that shape and encoding call for; `None` when they overflow or the width is not supported.
    pub expected: Option<u64>,
    /// Bytes given.
    pub actual: u64,
}

/// Rows as they are stored, in place: as many codes and scales as encoding and shape call for.
///
/// Of stacked matrices, the codes of each are those of a matrix by itself, in order.
#[derive(Clone, Copy, Debug)]
pub struct CodedRows<'a> {
    encoding: Encoding,
    shape: MatrixShape,
    codes: &'a [u8],
    scales: &'a [u8],
}

impl<'a> CodedRows<'a> {
    /// A view of a payload: the codes of all rows, then their scales.
    ///
    /// # Errors
    /// When the encoding does not support the width, or the payload has another length.
    pub fn of_payload(
        encoding: Encoding,
        shape: MatrixShape,
        payload: &'a [u8],
    ) -> Result<Self, ShapeMismatch> {
        let (expected, actual) = (shape.payload_bytes(encoding), payload.len() as u64);
        let split = shape.codes_bytes(encoding).and_then(|codes| payload.split_at_checked(codes));
        match split {
            Some((codes, scales)) if expected == Some(actual) => {
                Ok(CodedRows { encoding, shape, codes, scales })
            }
            _ => Err(ShapeMismatch { expected, actual }),
        }
    }

    /// Codes and scales that an encoder wrote, wherever each of them lies.
    ///
    /// # Panics
    /// When the encoding does not support the width, or a slice has another length than the shape calls for.
    pub fn new(encoding: Encoding, shape: MatrixShape, codes: &'a [u8], scales: &'a [u8]) -> Self {
        assert!(encoding.supports_cols(shape.cols), "{encoding} rows of {} elements", shape.cols);
        assert_eq!(Some(codes.len()), shape.codes_bytes(encoding), "code bytes");
        assert_eq!(scales.len(), shape.rows * encoding.scales_row_bytes(shape.cols), "scale bytes");
        CodedRows { encoding, shape, codes, scales }
    }

    /// Rows and columns.
    pub fn shape(&self) -> MatrixShape {
        self.shape
    }

    /// How elements are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Code and scale bytes of some rows; empty when they are out of range. Rows of a trellis code have no codes of
    /// their own.
    pub fn part(&self, rows: Range<usize>) -> (&'a [u8], &'a [u8]) {
        let cols = self.shape.cols;
        let codes = match self.encoding.strip_rows() {
            1 => slice(self.codes, &rows, self.encoding.codes_row_bytes(cols)),
            _ => &[],
        };
        (codes, slice(self.scales, &rows, self.encoding.scales_row_bytes(cols)))
    }

    /// Code bytes of all rows, contiguous.
    pub fn codes(&self) -> &'a [u8] {
        self.codes
    }

    /// Scale bytes of all rows, contiguous.
    pub fn scales(&self) -> &'a [u8] {
        self.scales
    }
}

fn slice<'a>(bytes: &'a [u8], rows: &Range<usize>, row_bytes: usize) -> &'a [u8] {
    bytes.get(rows.start * row_bytes..rows.end * row_bytes).unwrap_or(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacked_matrices_are_coded_each_by_itself() {
        let stack = |matrices, rows| MatrixShape::stack(matrices, rows, 32).unwrap();
        let trellis = Encoding::from_name("tt2").unwrap();
        let payload = vec![0; 2 * 16 * 8 + 26 * 2];
        let rows = CodedRows::of_payload(trellis, stack(2, 13), &payload).unwrap();
        assert_eq!((rows.codes().len(), rows.scales().len()), (256, 52));
        // As one matrix, the rows need no more than 32 x 8 bytes of codes as well; as 26 they need 8 each.
        assert_eq!(stack(26, 1).payload_bytes(trellis), Some(26 * 66));
        assert_eq!(stack(0, 4).payload_bytes(trellis), Some(0));
        assert_eq!(MatrixShape::new(1, 48).payload_bytes(trellis), None);
        assert!(CodedRows::of_payload(trellis, stack(26, 1), &payload).is_err());
        assert_eq!(MatrixShape::stack(usize::MAX, 2, 32), None);
    }

    #[test]
    fn tensors_are_matrices_of_their_last_two_dimensions() {
        let of = |shape: &[u64]| MatrixShape::of_tensor(shape);
        assert_eq!(of(&[]), Some(MatrixShape::new(1, 1)));
        assert_eq!(of(&[7]), Some(MatrixShape::new(1, 7)));
        assert_eq!(of(&[5, 7]), Some(MatrixShape::new(5, 7)));
        let stacked = of(&[2, 3, 5, 7]).unwrap();
        assert_eq!((stacked.rows, stacked.cols, stacked.matrices, stacked.rows_each()), (30, 7, 6, 5));
        assert_eq!(of(&[u64::MAX, 2, 2]), None);
    }
}
