//! Hessian-aware rounding: columns in order, each toward what is left after the errors of those before it.
//!
//! LDLQ (QuIP, arXiv 2307.13304) over any code: a [`ColumnQuantizer`] rounds the columns of a strip of rows,
//! this driver feeds errors back through U of `H = U D U^T`.

use crate::factor::Factor;
use crate::fixed_product::{FixedProducts, Operand, ProductShape, packed_bytes};
use crate::parallelism::Parallelism;
use gq_tensor::Isa;

/// Columns between two updates by all columns before them.
const BLOCK: usize = 32;

/// Columns of `w U` computed together.
const PROJECTED: usize = 256;

/// Bytes at most of a strip `[rows, cols]` that is rounded column after column, but for what the code holds of it: weights
/// and errors, buffers of some columns, panels of the products.
pub(crate) fn round_strip_bytes(rows: usize, cols: usize) -> u64 {
    let buffers = BLOCK + 2 * PROJECTED.min(cols);
    4 * (rows * (2 * cols + buffers)) as u64 + packed_bytes(rows, cols)
}

/// A code for the columns of a strip of rows.
pub(crate) trait ColumnQuantizer {
    /// Rounds column `col`: `targets`, one per row, in units of their scales, become `values` in the same unit.
    fn round_column(&mut self, level: Isa, col: usize, targets: &[f32], values: &mut [f32]);
}

/// What rounding a strip cost, per row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StripOutcome {
    /// `e H e^T` of each row after the refit, with the damped H; infinite where it is no number.
    pub errors: Vec<f64>,
    /// `w H w^T` of each row, with the damped H.
    pub energies: Vec<f64>,
    /// Factor on the scales of each row that minimizes its error.
    pub refit: Vec<f32>,
}

/// Rounds a strip of rows.
///
/// `weights` is `[rows, n]` row-major in the basis of `factor`, `scales` `[groups, rows]` one scale for every row in each
/// of as many groups of columns, where 0 stands for a group without energy.
///
/// # Panics
/// When the slices are not of these lengths.
pub(crate) fn round_strip(
    level: Isa,
    parallelism: Parallelism,
    factor: &Factor,
    weights: &[f32],
    scales: &[f32],
    quantizer: &mut dyn ColumnQuantizer,
) -> StripOutcome {
    let n = factor.n();
    let rows = weights.len() / n.max(1);
    if rows == 0 {
        return StripOutcome::default();
    }
    let group = n * rows / scales.len().max(1);
    assert!(weights.len() == rows * n, "strip of {rows} rows");
    assert!(
        group > 0 && scales.len() * group == weights.len() && n.is_multiple_of(group),
        "scales of a strip"
    );
    let upper = factor.upper();
    // e_k = w_k - q_k, [n, rows], each row written before it is read. What is not made of zeros has its pages at once: what
    // a strip takes does not depend on how far it is, so that what was promised for all threads is what they take.
    let mut errors = weights.to_vec();
    let mut products = FixedProducts::of(level, parallelism, rows, n);
    let mut refit = Refit::new(n, rows);
    let mut block = vec![f32::NAN; BLOCK * rows];
    let (mut targets, mut value) = (vec![0.0f32; rows], vec![0.0f32; rows]);
    let inverse: Vec<f32> = scales.iter().map(|&s| if s > 0.0 { 1.0 / s } else { 0.0 }).collect();
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        for (c, block) in block.chunks_mut(rows).take(width).enumerate() {
            for (row, value) in block.iter_mut().enumerate() {
                *value = weights[row * n + start + c];
            }
        }
        let feedback = Operand { data: &upper[start.min(upper.len())..], row_stride: 1, col_stride: n };
        let shape = ProductShape { rows: width, cols: rows, depth: start };
        products.add(shape, feedback, Operand::rows(&errors, rows), &mut block, rows);
        for c in 0..width {
            let col = start + c;
            let (target, later) = block[c * rows..].split_at_mut(rows);
            let own = col / group * rows..(col / group + 1) * rows;
            for ((t, &b), &inverse) in targets.iter_mut().zip(target.iter()).zip(&inverse[own.clone()]) {
                *t = b * inverse;
            }
            quantizer.round_column(level, col, &targets, &mut value);
            let error = &mut errors[col * rows..(col + 1) * rows];
            let residual = refit.residual(col);
            for (row, scale) in scales[own].iter().enumerate() {
                let rounded = scale * value[row];
                error[row] = weights[row * n + col] - rounded;
                residual[row] = target[row] - rounded;
            }
            for (next, later) in later.chunks_mut(rows).take(width - c - 1).enumerate() {
                let u = upper[col * n + col + 1 + next];
                for (l, &e) in later.iter_mut().zip(error.iter()) {
                    *l = e.mul_add(u, *l);
                }
            }
        }
        let end = start + width;
        if end.is_multiple_of(PROJECTED) || end == n {
            refit.project(&mut products, factor, weights, end);
        }
    }
    refit.outcome()
}

/// What rounding cost each row, and the scale that would have cost least, summed up column after column.
struct Refit {
    /// Of columns since the last projection: `(e U)_j = target_j - q_j`, `[PROJECTED, rows]`.
    residuals: Vec<f32>,
    /// `(w U)^T` of the same columns.
    projected: Vec<f32>,
    /// Sums over columns of `D (w U) (q U)`, `D (q U)^2` and `D (w U)^2`, for each row.
    wq: Vec<f64>,
    qq: Vec<f64>,
    ww: Vec<f64>,
}

impl Refit {
    fn new(n: usize, rows: usize) -> Refit {
        let [residuals, projected] = [(); 2].map(|()| vec![f32::NAN; PROJECTED.min(n) * rows]);
        let [wq, qq, ww] = [(); 3].map(|()| vec![0.0; rows]);
        Refit { residuals, projected, wq, qq, ww }
    }

    /// Where the residuals of a column go.
    fn residual(&mut self, col: usize) -> &mut [f32] {
        let (rows, at) = (self.wq.len(), col % PROJECTED);
        &mut self.residuals[at * rows..(at + 1) * rows]
    }

    /// Takes in the columns before `end` that were not taken in yet, of which all residuals are there.
    fn project(&mut self, products: &mut FixedProducts, factor: &Factor, weights: &[f32], end: usize) {
        let (n, rows, start) = (factor.n(), self.wq.len(), (end - 1) / PROJECTED * PROJECTED);
        // U is zero below its diagonal.
        let upper = Operand::rows(&factor.upper()[start..], n).t();
        self.projected.fill(0.0);
        let shape = ProductShape { rows: end - start, cols: rows, depth: end };
        products.add(shape, upper, Operand::rows(weights, n).t(), &mut self.projected, rows);
        let columns = self.projected.chunks_exact(rows).zip(self.residuals.chunks_exact(rows));
        for ((projected, residuals), &d) in columns.zip(&factor.diagonal()[start..end]) {
            for (row, (&projected, &residual)) in projected.iter().zip(residuals).enumerate() {
                let w = f64::from(projected);
                let q = w - f64::from(residual);
                self.wq[row] += d * w * q;
                self.qq[row] += d * q * q;
                self.ww[row] += d * w * w;
            }
        }
    }

    fn outcome(self) -> StripOutcome {
        let Refit { wq, qq, ww, .. } = self;
        let refit =
            |row: usize| if qq[row] > 0.0 && wq[row] > 0.0 { (wq[row] / qq[row]) as f32 } else { 1.0 };
        let refit: Vec<f32> = (0..ww.len()).map(refit).collect();
        let error = |row: usize| {
            let f = f64::from(refit[row]);
            let error = ww[row] - 2.0 * f * wq[row] + f * f * qq[row];
            // A hair below zero is rounding. What is no number is no small error: it is infinite.
            if error.is_finite() { error.max(0.0) } else { f64::INFINITY }
        };
        StripOutcome { errors: (0..ww.len()).map(error).collect(), energies: ww, refit }
    }
}
