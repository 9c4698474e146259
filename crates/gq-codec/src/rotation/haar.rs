//! Dense matrices: Haar-distributed rotations and Gaussian sketches.

use crate::{
    kernel,
    random::{Purpose, Stream},
};
use gq_tensor::Isa;

/// A square matrix `[cols, cols]`, row-major.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    cols: usize,
    entries: Vec<f32>,
}

impl Dense {
    /// Independent N(0, 1) entries; entry `[i, j]` is output `i * cols + j` of the stream.
    pub(crate) fn gaussian(seed: u64, purpose: Purpose, cols: usize) -> Dense {
        let stream = Stream::new(seed, purpose, cols);
        let entries = (0..cols * cols).map(|i| stream.gaussian(i as u64) as f32).collect();
        Dense { cols, entries }
    }

    /// The rotation of `seed`, uniform over O(cols).
    pub(crate) fn haar(seed: u64, cols: usize) -> Dense {
        Dense::orthogonal(seed, Purpose::Haar, cols)
    }

    /// Rows of a Gaussian matrix made orthonormal in order by modified Gram-Schmidt in f64,
    /// then rounded to f32. Its R has a positive diagonal, so the result is Haar-distributed.
    pub(crate) fn orthogonal(seed: u64, purpose: Purpose, cols: usize) -> Dense {
        let stream = Stream::new(seed, purpose, cols);
        let mut rows: Vec<f64> = (0..cols * cols).map(|i| stream.gaussian(i as u64)).collect();
        // Every level gives the same bits; the matrix belongs to no caller's choice of level.
        kernel::gram_schmidt(Isa::detect(), &mut rows, cols);
        Dense { cols, entries: rows.into_iter().map(|v| v as f32).collect() }
    }

    /// `out = M x`.
    pub(crate) fn forward(&self, level: Isa, x: &[f32], out: &mut [f32]) {
        kernel::matrix_vector(level, &self.entries, x, out);
    }

    /// `out += factor * Mᵀ x`, term by term.
    pub(crate) fn add_transposed(&self, level: Isa, x: &[f32], out: &mut [f32]) {
        kernel::add_vector_matrix(level, &self.entries, x, out);
    }

    pub(super) fn forward_in_place(&self, level: Isa, x: &mut [f32], scratch: &mut Vec<f32>) {
        scratch.clear();
        scratch.extend_from_slice(x);
        self.forward(level, scratch, x);
    }

    pub(super) fn inverse_in_place(&self, level: Isa, x: &mut [f32], scratch: &mut Vec<f32>) {
        scratch.clear();
        scratch.extend_from_slice(x);
        x.fill(0.0);
        self.add_transposed(level, scratch, x);
    }

    /// Rows and columns.
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }
}
