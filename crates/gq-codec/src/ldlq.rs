//! Hessian-aware rounding: columns in order, each toward what is left after the errors of those before it.
//!
//! LDLQ (QuIP, arXiv 2307.13304) over any code: a [`ColumnQuantizer`] rounds the columns of a strip of rows,
//! this driver feeds errors back through U of `H = U D U^T`.

use crate::factor::Factor;
use crate::fixed_product::{Operand, ProductShape, fixed_product};
use gq_tensor::Isa;

/// Columns between two updates by all columns before them.
const BLOCK: usize = 32;

/// Columns of `w U` computed together.
const PROJECTED: usize = 256;

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
/// `values` `[n, rows]` (column after column) receives the rounded weights in units of the scale.
///
/// # Panics
/// When the slices are not of these lengths.
pub(crate) fn round_strip(
    level: Isa,
    factor: &Factor,
    weights: &[f32],
    scales: &[f32],
    quantizer: &mut dyn ColumnQuantizer,
    values: &mut [f32],
) -> StripOutcome {
    let n = factor.n();
    let rows = weights.len() / n.max(1);
    if rows == 0 {
        return StripOutcome::default();
    }
    let group = n * rows / scales.len().max(1);
    assert!(weights.len() == rows * n && values.len() == weights.len(), "strip of {rows} rows");
    assert!(
        group > 0 && scales.len() * group == weights.len() && n.is_multiple_of(group),
        "scales of a strip"
    );
    let upper = factor.upper();
    let mut errors = vec![0.0f32; n * rows]; // e_k = w_k - q_k, [n, rows]
    let mut residuals = vec![0.0f32; n * rows]; // (e U)_j = target_j - q_j, [n, rows]
    let mut block = vec![0.0f32; BLOCK * rows];
    let mut targets = vec![0.0f32; rows];
    let inverse: Vec<f32> = scales.iter().map(|&s| if s > 0.0 { 1.0 / s } else { 0.0 }).collect();
    for start in (0..n).step_by(BLOCK) {
        let width = BLOCK.min(n - start);
        for (c, block) in block.chunks_mut(rows).take(width).enumerate() {
            for (row, value) in block.iter_mut().enumerate() {
                *value = weights[row * n + start + c];
            }
        }
        let feedback = Operand { data: &upper[start.min(upper.len())..], row_stride: 1, col_stride: n };
        fixed_product(
            level,
            ProductShape { rows: width, cols: rows, depth: start },
            feedback,
            Operand::rows(&errors, rows),
            &mut block,
            rows,
        );
        for c in 0..width {
            let col = start + c;
            let (target, later) = block[c * rows..].split_at_mut(rows);
            let own = col / group * rows..(col / group + 1) * rows;
            for ((t, &b), &inverse) in targets.iter_mut().zip(target.iter()).zip(&inverse[own.clone()]) {
                *t = b * inverse;
            }
            let value = &mut values[col * rows..(col + 1) * rows];
            quantizer.round_column(level, col, &targets, value);
            let error = &mut errors[col * rows..(col + 1) * rows];
            let residual = &mut residuals[col * rows..(col + 1) * rows];
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
    }
    refit(level, factor, weights, rows, &residuals)
}

/// Least-squares scale of every row in the metric of H: with `wU` and `qU = wU - residual`,
/// `w H q^T = sum_j D_j (wU)_j (qU)_j`.
fn refit(level: Isa, factor: &Factor, weights: &[f32], rows: usize, residuals: &[f32]) -> StripOutcome {
    let n = factor.n();
    let mut projected = vec![0.0f32; n * rows]; // (w U)^T, [n, rows]
    for start in (0..n).step_by(PROJECTED) {
        // U is zero below its diagonal.
        let end = n.min(start + PROJECTED);
        let upper = Operand::rows(&factor.upper()[start..], n).t();
        let projected = &mut projected[start * rows..end * rows];
        fixed_product(
            level,
            ProductShape { rows: end - start, cols: rows, depth: end },
            upper,
            Operand::rows(weights, n).t(),
            projected,
            rows,
        );
    }
    let (mut wq, mut qq, mut ww) = (vec![0.0f64; rows], vec![0.0f64; rows], vec![0.0f64; rows]);
    for (j, &d) in factor.diagonal().iter().enumerate() {
        for row in 0..rows {
            let w = f64::from(projected[j * rows + row]);
            let q = w - f64::from(residuals[j * rows + row]);
            wq[row] += d * w * q;
            qq[row] += d * q * q;
            ww[row] += d * w * w;
        }
    }
    let refit = |row: usize| if qq[row] > 0.0 && wq[row] > 0.0 { (wq[row] / qq[row]) as f32 } else { 1.0 };
    let refit: Vec<f32> = (0..rows).map(refit).collect();
    let error = |row: usize| {
        let f = f64::from(refit[row]);
        let error = ww[row] - 2.0 * f * wq[row] + f * f * qq[row];
        // A hair below zero is rounding. What is no number is no small error: it is infinite.
        if error.is_finite() { error.max(0.0) } else { f64::INFINITY }
    };
    StripOutcome { errors: (0..rows).map(error).collect(), energies: ww, refit }
}
