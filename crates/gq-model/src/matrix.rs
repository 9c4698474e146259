//! Values of graphs on the CPU.

use std::ops::Range;

/// A matrix `[rows, width]`, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Elements of a row.
    pub width: usize,
    /// All elements.
    pub data: Vec<f32>,
}

impl Matrix {
    /// Zeros.
    pub fn zeros(rows: usize, width: usize) -> Matrix {
        Matrix { width, data: vec![0.0; rows * width] }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.width.max(1)
    }

    /// A copy of some rows.
    pub fn part(&self, rows: Range<usize>) -> Matrix {
        Matrix { width: self.width, data: self.data[rows.start * self.width..rows.end * self.width].to_vec() }
    }

    /// A copy of some elements of every row.
    pub fn columns(&self, columns: Range<usize>) -> Matrix {
        let parts = self.data.chunks_exact(self.width).flat_map(|row| &row[columns.clone()]);
        Matrix { width: columns.len(), data: parts.copied().collect() }
    }
}
