//! Factorization of second-moment matrices for error feedback: `H + damping = U D U^T`, U unit upper triangular.

use crate::elimination::eliminate;
use gq_tensor::Isa;
use rayon::prelude::*;

/// Right-hand sides solved together: one pass over U serves them all.
const STRIP: usize = 16;

/// Side of the squares that are transposed at once.
const SQUARE: usize = 32;

/// `H = U D U^T` of a damped second-moment matrix.
///
/// Rounding column j after columns k < j toward `w_j + sum_k (w_k - q_k) U[k][j]` costs
/// `D[j] * residual^2` (LDLQ, arXiv 2307.13304, section 3.1, with columns in ascending order).
#[derive(Clone, Debug)]
pub struct Factor {
    n: usize,
    /// Row-major `[n, n]`; zeros below the diagonal, ones on it.
    upper: Vec<f32>,
    diagonal: Vec<f64>,
    damping: f64,
    mean_feedback: f64,
}

/// A matrix that no allowed damping makes positive definite.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("column {column} of the second moment has no positive pivot at a damping of {damping}")]
pub struct NotPositive {
    /// Column whose pivot was not positive.
    pub column: usize,
    /// Damping at the last attempt, in units of the mean diagonal.
    pub damping: f64,
}

impl Factor {
    /// Factors symmetric `h` `[n, n]` (row-major, lower triangle read) plus `damping` times its mean diagonal.
    ///
    /// When a pivot is not above 1e-9 of the mean diagonal, the damping is doubled and the factorization
    /// starts over, up to 10 times the mean diagonal; [`damping`](Self::damping) says what it took.
    ///
    /// # Errors
    /// [`NotPositive`] when even that does not help, or entries are not finite.
    pub fn new(level: Isa, h: &[f32], n: usize, damping: f64) -> Result<Factor, NotPositive> {
        let (a, diagonal, damping) = eliminate_damped(level, h, n, damping)?;
        Ok(finish(&a, n, diagonal, damping))
    }

    /// The same of a matrix that is needed no more: it is gone before U takes memory.
    ///
    /// # Errors
    /// Those of [`new`](Factor::new).
    pub fn from_moment(level: Isa, h: Vec<f32>, n: usize, damping: f64) -> Result<Factor, NotPositive> {
        let (a, diagonal, damping) = eliminate_damped(level, &h, n, damping)?;
        drop(h);
        Ok(finish(&a, n, diagonal, damping))
    }

    /// Width.
    pub fn n(&self) -> usize {
        self.n
    }

    /// U, row-major `[n, n]`.
    pub fn upper(&self) -> &[f32] {
        &self.upper
    }

    /// D.
    pub fn diagonal(&self) -> &[f64] {
        &self.diagonal
    }

    /// Replaces every row b of `rows` `[_, n]` by the solution x of `x (H + damping) = b`, in f64.
    pub fn solve(&self, rows: &mut [f32]) {
        let n = self.n;
        rows.par_chunks_mut((STRIP * n).max(1)).for_each(|rows| {
            let mut x = gather(rows, n);
            // y U^T = b, from the last column to the first; y is divided by D.
            for j in (0..n).rev() {
                let (head, later) = x.split_at_mut(j + 1);
                let (row, mut sum) = (&self.upper[j * n + j + 1..(j + 1) * n], head[j]);
                for (y, &u) in later.iter().zip(row) {
                    sum.iter_mut().zip(y).for_each(|(sum, y)| *sum -= y * f64::from(u));
                }
                head[j] = sum;
            }
            for (x, d) in x.iter_mut().zip(&self.diagonal) {
                x.iter_mut().for_each(|x| *x /= d);
            }
            self.substitute(&mut x);
            scatter(&x, rows);
        });
    }

    /// Replaces every row r of `rows` `[_, n]` by the x of `x U = r`, in f64: residuals of LDLQ by the errors that
    /// they leave.
    pub fn errors(&self, rows: &mut [f32]) {
        rows.par_chunks_mut((STRIP * self.n).max(1)).for_each(|rows| {
            let mut x = gather(rows, self.n);
            self.substitute(&mut x);
            scatter(&x, rows);
        });
    }

    /// `x U = y`, from the first column to the last.
    fn substitute(&self, x: &mut [[f64; STRIP]]) {
        let n = self.n;
        for k in 0..n {
            let (head, later) = x.split_at_mut(k + 1);
            let (row, done) = (&self.upper[k * n + k + 1..(k + 1) * n], head[k]);
            for (y, &u) in later.iter_mut().zip(row) {
                y.iter_mut().zip(&done).for_each(|(y, x)| *y -= x * f64::from(u));
            }
        }
    }

    /// The damping that was used, in units of the mean diagonal.
    pub fn damping(&self) -> f64 {
        self.damping
    }

    /// Mean over columns of `sum_k<j U[k][j]^2`: how much feedback inflates the values to be rounded.
    pub fn mean_feedback(&self) -> f64 {
        self.mean_feedback
    }
}

/// At most [`STRIP`] rows as columns, `[n, STRIP]`.
fn gather(rows: &[f32], n: usize) -> Vec<[f64; STRIP]> {
    let mut x = vec![[0.0f64; STRIP]; n];
    for (lane, row) in rows.chunks_exact(n).enumerate() {
        x.iter_mut().zip(row).for_each(|(x, &b)| x[lane] = f64::from(b));
    }
    x
}

fn scatter(x: &[[f64; STRIP]], rows: &mut [f32]) {
    for (lane, row) in rows.chunks_exact_mut(x.len()).enumerate() {
        row.iter_mut().zip(x).for_each(|(b, x)| *b = x[lane] as f32);
    }
}

/// Eliminates with the damping that it takes: matrix and diagonal as [`eliminate`] gives them, and that damping.
fn eliminate_damped(
    level: Isa,
    h: &[f32],
    n: usize,
    damping: f64,
) -> Result<(Vec<f64>, Vec<f64>, f64), NotPositive> {
    let mean = (0..n).map(|i| f64::from(h[i * n + i])).sum::<f64>() / n.max(1) as f64;
    let mut damping = damping;
    loop {
        match eliminate(level, h, n, mean, damping) {
            Ok((a, diagonal)) => return Ok((a, diagonal, damping)),
            Err(column) if damping >= 10.0 || !damping.is_finite() || !mean.is_finite() => {
                return Err(NotPositive { column, damping });
            }
            Err(_) => damping = (damping * 2.0).max(1e-3),
        }
    }
}

fn finish(a: &[f64], n: usize, diagonal: Vec<f64>, damping: f64) -> Factor {
    let mut upper = vec![0.0f32; n * n];
    // Column j of U was left in row j of `a`, left of the diagonal.
    upper.par_chunks_mut((SQUARE * n).max(1)).enumerate().for_each(|(block, rows)| {
        let first = block * SQUARE;
        for start in (first..n).step_by(SQUARE) {
            for (k, row) in (first..).zip(rows.chunks_exact_mut(n)) {
                for j in start.max(k + 1)..n.min(start + SQUARE) {
                    row[j] = a[j * n + k] as f32;
                }
            }
        }
        (first..).zip(rows.chunks_exact_mut(n)).for_each(|(k, row)| row[k] = 1.0);
    });
    let squares: f64 = (0..n).map(|j| a[j * n..j * n + j].iter().map(|u| u * u).sum::<f64>()).sum();
    Factor { n, upper, diagonal, damping, mean_feedback: squares / n.max(1) as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn solutions_solve() {
        let (n, rows) = (50, 37);
        let noise = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
        let x: Vec<f32> = (0..200 * n).map(noise).collect();
        let h: Vec<f32> = (0..n * n)
            .map(|ij| x.chunks_exact(n).map(|x| x[ij / n] * x[ij % n]).sum::<f32>() / 200.0)
            .collect();
        let factor = Factor::new(Isa::detect(), &h, n, 0.05).unwrap();
        let mean = (0..n).map(|i| f64::from(h[i * n + i])).sum::<f64>() / n as f64;
        let b: Vec<f32> = (0..rows * n).map(|i| noise(3 * i + 1)).collect();
        let mut solved = b.clone();
        factor.solve(&mut solved);
        for (b, x) in b.chunks_exact(n).zip(solved.chunks_exact(n)) {
            for j in 0..n {
                let product: f64 = (0..n).map(|i| f64::from(x[i]) * f64::from(h[i * n + j])).sum();
                let product = product + 0.05 * mean * f64::from(x[j]);
                assert!((product - f64::from(b[j])).abs() < 1e-4, "{product} {}", b[j]);
            }
        }
    }
}
