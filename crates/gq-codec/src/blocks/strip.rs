//! Rows that are rounded together, and what errors of earlier columns feed back to later ones.

use super::trial::{LANES, Lanes};
use crate::factor::Factor;
use crate::fixed_product::{Operand, ProductShape, fixed_product};
use crate::parallelism::Parallelism;
use gq_tensor::Isa;
use std::ops::Range;

/// Rows of a strip; what they are rounded to does not depend on it.
pub(super) const STRIP: usize = 4 * LANES;

/// What errors cost.
#[derive(Clone, Copy, Debug)]
pub enum Metric<'a> {
    /// Each column's squared error by its weight, `[n]`: rounding to nearest.
    Importance(&'a [f32]),
    /// `e H e^T`: errors are fed back to later columns.
    Moment(&'a Factor),
}

impl Metric<'_> {
    /// Columns.
    pub(super) fn width(&self) -> usize {
        match self {
            Metric::Importance(weights) => weights.len(),
            Metric::Moment(factor) => factor.n(),
        }
    }

    /// What a squared residual of each column costs, in units of the mean.
    pub(super) fn costs(&self) -> Vec<f32> {
        let costs: Vec<f64> = match self {
            Metric::Importance(weights) => weights.iter().map(|&w| f64::from(w)).collect(),
            Metric::Moment(factor) => factor.diagonal().to_vec(),
        };
        let mean = costs.iter().sum::<f64>() / costs.len().max(1) as f64;
        let unit = if mean > 0.0 { 1.0 / mean } else { 1.0 };
        costs.into_iter().map(|cost| (cost * unit) as f32).collect()
    }
}

/// Rows that are rounded together.
pub(super) struct Strip<'a> {
    level: Isa,
    metric: Metric<'a>,
    pub(super) costs: &'a [f32],
    rows: &'a [f32],
    pub(super) count: usize,
    /// Rows in whole groups.
    pub(super) stride: usize,
}

impl<'a> Strip<'a> {
    pub(super) fn new(level: Isa, metric: Metric<'a>, costs: &'a [f32], rows: &'a [f32]) -> Strip<'a> {
        let count = rows.len() / costs.len().max(1);
        Strip { level, metric, costs, rows, count, stride: count.next_multiple_of(LANES) }
    }

    /// Columns.
    pub(super) fn width(&self) -> usize {
        self.costs.len()
    }

    /// Columns from `start` on, `[columns, stride]`.
    pub(super) fn columns(&self, start: usize, targets: &mut [f32]) {
        let n = self.width();
        for (j, targets) in targets.chunks_exact_mut(self.stride).enumerate() {
            targets.fill(0.0);
            for (row, target) in targets.iter_mut().enumerate().take(self.count) {
                *target = self.rows[row * n + start + j];
            }
        }
    }

    /// Adds to the targets of columns from `at` on what errors of earlier columns feed back to them.
    pub(super) fn feed_back(&self, from: Range<usize>, at: usize, errors: &[f32], targets: &mut [f32]) {
        let (Metric::Moment(factor), false) = (self.metric, from.is_empty()) else { return };
        let n = factor.n();
        let upper = Operand { data: &factor.upper()[from.start * n + at..], row_stride: 1, col_stride: n };
        let errors = Operand::rows(&errors[from.start * self.stride..], self.stride);
        let shape = ProductShape { rows: targets.len() / self.stride, cols: self.stride, depth: from.len() };
        fixed_product(self.level, Parallelism::Serial, shape, upper, errors, targets, self.stride);
    }

    /// U of some columns among themselves, column after column; nothing where there is no feedback.
    pub(super) fn within(&self, at: usize, width: usize) -> Vec<f32> {
        let Metric::Moment(factor) = self.metric else { return Vec::new() };
        let (n, upper) = (factor.n(), factor.upper());
        let entry = |j: usize, k: usize| if k < j { upper[(at + k) * n + at + j] } else { 0.0 };
        (0..width).flat_map(|j| (0..width).map(move |k| entry(j, k))).collect()
    }

    /// Weights of some columns of some rows.
    pub(super) fn weights(&self, at: usize, group: usize, width: usize) -> Vec<Lanes> {
        let n = self.costs.len();
        let weight = |row: usize, col: usize| if row < self.count { self.rows[row * n + col] } else { 0.0 };
        let column = |j: usize| std::array::from_fn(|lane| weight(group * LANES + lane, at + j));
        (0..width).map(column).collect()
    }
}

/// Columns of one group of rows, of columns of a whole strip.
pub(super) fn lanes(columns: &[f32], stride: usize, group: usize, width: usize) -> Vec<Lanes> {
    let column = |column: &[f32]| std::array::from_fn(|lane| column[group * LANES + lane]);
    columns.chunks_exact(stride).take(width).map(column).collect()
}
