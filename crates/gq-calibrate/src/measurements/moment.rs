//! Second moments of a product's inputs.

use gq_codec::{Operand, Parallelism, ProductShape, Rotation, fixed_product};
use gq_model::Matrix;
use gq_tensor::Isa;
use rayon::prelude::*;

/// Rows of the sum updated together: half of a square is never computed.
const BLOCK: usize = 256;

/// Side of the squares that are transposed at once.
const SQUARE: usize = 32;

/// The sum of `x x^T` over tokens; the lower triangle is kept, row-major `[n, n]` with zeros above block diagonals.
#[derive(Clone, Debug)]
pub struct Moment {
    /// Width.
    pub n: usize,
    /// The sum.
    pub sum: Vec<f32>,
    /// Divides the sum.
    pub tokens: usize,
    /// Tokens that were seen, whatever was joined in.
    pub seen: usize,
}

impl Moment {
    /// Of nothing yet.
    pub fn new(n: usize) -> Moment {
        Moment { n, sum: vec![0.0; n * n], tokens: 0, seen: 0 }
    }

    /// Adds tokens `[tokens, n]` in order: every element is one chain of fused multiply-adds.
    pub fn add(&mut self, level: Isa, x: &Matrix) {
        let n = self.n;
        for (block, rows) in self.sum.chunks_mut(BLOCK * n).enumerate() {
            let first = block * BLOCK;
            let count = rows.len() / n;
            let left = Operand { data: &x.data[first..], row_stride: 1, col_stride: n };
            fixed_product(
                level,
                Parallelism::Threads,
                ProductShape { rows: count, cols: first + count, depth: x.rows() },
                left,
                Operand::rows(&x.data, n),
                rows,
                n,
            );
        }
        self.tokens += x.rows();
        self.seen += x.rows();
    }

    /// Adds another sum.
    pub fn join(&mut self, other: &Moment) {
        self.sum.iter_mut().zip(&other.sum).for_each(|(sum, x)| *sum += x);
        self.tokens += other.tokens;
        self.seen += other.seen;
    }

    /// The mean's lower triangle, row after row: `[n (n + 1) / 2]`.
    pub fn triangle(&self) -> Vec<f32> {
        let factor = 1.0 / self.tokens.max(1) as f64;
        let rows = self.sum.chunks_exact(self.n.max(1)).enumerate();
        rows.flat_map(|(i, row)| row[..=i].iter().map(move |&x| (f64::from(x) * factor) as f32)).collect()
    }
}

/// The symmetric matrix `[n, n]` of a lower triangle, row after row.
pub fn square(triangle: impl IntoIterator<Item = f32>, n: usize) -> Vec<f32> {
    let mut square = vec![0.0; n * n];
    let places = (0..n).flat_map(|i| (0..=i).map(move |j| (i, j)));
    for ((i, j), value) in places.zip(triangle) {
        square[i * n + j] = value;
        square[j * n + i] = value;
    }
    square
}

/// `R H R^T` of a symmetric matrix, in place.
pub fn rotate(level: Isa, h: &mut Vec<f32>, rotation: &Rotation) {
    let n = rotation.cols();
    for _ in 0..2 {
        h.par_chunks_mut(n).for_each_init(Vec::new, |scratch, row| rotation.forward(level, row, scratch));
        let mut transposed = vec![0.0f32; n * n];
        transposed.par_chunks_mut(SQUARE * n).enumerate().for_each(|(block, rows)| {
            for start in (0..n).step_by(SQUARE) {
                for (i, row) in (block * SQUARE..).zip(rows.chunks_exact_mut(n)) {
                    (start..n.min(start + SQUARE)).for_each(|j| row[j] = h[j * n + i]);
                }
            }
        });
        *h = transposed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_tensor::{RotationKind, RotationSpec};

    fn inputs(tokens: usize, width: usize) -> Matrix {
        let data = (0..tokens * width).map(|i| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0).collect();
        Matrix { width, data }
    }

    #[test]
    fn means_of_products() {
        let (n, x) = (320, inputs(40, 320));
        for level in Isa::available() {
            let mut moment = Moment::new(n);
            moment.add(level, &x);
            let h = square(moment.triangle(), n);
            for (i, j) in [(0, 0), (5, 300), (319, 2), (256, 255), (255, 256), (319, 319)] {
                let expected: f32 = x.data.chunks(n).map(|row| row[i] * row[j]).sum::<f32>() / 40.0;
                assert!((h[i * n + j] - expected).abs() < 1e-5, "{i} {j}");
            }
        }
    }

    #[test]
    fn a_rotated_moment_is_the_moment_of_rotated_inputs() {
        let n = 96;
        let rotation = Rotation::new(RotationSpec { kind: RotationKind::Hadamard, seed: 3 }, n).unwrap();
        let level = Isa::detect();
        let mut x = inputs(50, n);
        let mut moment = Moment::new(n);
        moment.add(level, &x);
        let mut h = square(moment.triangle(), n);
        rotate(level, &mut h, &rotation);
        rotation.forward(level, &mut x.data, &mut Vec::new());
        let mut moment = Moment::new(n);
        moment.add(level, &x);
        let expected = square(moment.triangle(), n);
        assert!(h.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
