//! Low-rank factors of one tensor, and how files have them.

use super::AdapterError;
use super::modules::Module;
use crate::assembly::alternating_row;
use crate::safetensors::HeaderEntry;
use std::ops::Range;

/// Low-rank factors of a tensor, or of rows of it.
#[derive(Clone, Debug)]
pub(super) struct Factors {
    pub a: HeaderEntry,
    pub b: HeaderEntry,
    pub magnitude: Option<HeaderEntry>,
    pub rank: usize,
    /// Weight and scale together.
    pub scale: f64,
    pub layout: Layout,
    /// Rows of the tensor that they are for, where that is a stack and they are one expert's.
    pub rows: Option<Range<usize>>,
}

/// How `a` and `b` stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// `a [rank, cols]`, `b [rows, rank]`.
    Linear,
    /// `a [rank, rows]`, `b [cols, rank]`.
    Embedding,
    /// `a [rows, rank]`, `b [rank, cols]`: MLX's embedding.
    Direct,
    /// `a [cols, rank]`, `b [rank, rows]`: MLX's linear layer.
    Transposed,
    /// Of `[experts, outputs, inputs]`: `a [experts * rank, inputs]`, `b [outputs, rank * experts]`.
    Experts(usize),
    /// The same where gate and up outputs stand in turn.
    ExpertsInTurn(usize),
    /// Of `[experts, inputs, outputs]`, the same.
    ExpertsInputsFirst(usize),
}

impl Factors {
    /// Matrices that have factors of their own.
    pub(super) fn experts(&self) -> usize {
        match self.layout {
            Layout::Experts(experts)
            | Layout::ExpertsInTurn(experts)
            | Layout::ExpertsInputsFirst(experts) => experts.max(1),
            _ => 1,
        }
    }

    /// `left [rows, rank]` and `right [experts * rank, cols]` from what is in the file.
    pub(super) fn order(&self, a: Vec<f32>, b: Vec<f32>, cols: usize) -> (Vec<f32>, Vec<f32>) {
        let (rank, experts) = (self.rank, self.experts());
        match self.layout {
            Layout::Linear => (b, a),
            Layout::Embedding => (transposed(&a, rank), transposed(&b, cols)),
            Layout::Direct => (a, b),
            Layout::Transposed => (transposed(&b, rank), transposed(&a, cols)),
            // PEFT counts experts slowest in the rows of `a`, and fastest in the columns of `b`.
            Layout::Experts(_) => (of_experts(&b, rank, experts), a),
            Layout::ExpertsInTurn(_) => {
                let left = of_experts(&b, rank, experts);
                let rows_per_matrix = left.len() / (rank * experts).max(1);
                let row = |row: usize| &left[alternating_row(row, rows_per_matrix) * rank..][..rank];
                ((0..rows_per_matrix * experts).flat_map(row).copied().collect(), a)
            }
            Layout::ExpertsInputsFirst(_) => {
                let rows = a.len() / (rank * experts).max(1);
                let left: Vec<f32> =
                    a.chunks((rank * rows).max(1)).flat_map(|a| transposed(a, rank)).collect();
                let b = of_experts(&b, rank, experts);
                let right = b.chunks((rank * cols).max(1)).flat_map(|b| transposed(b, cols)).collect();
                (left, right)
            }
        }
    }
}

/// `[n, rank * experts]`, experts fastest, to `[experts, n, rank]`.
fn of_experts(b: &[f32], rank: usize, experts: usize) -> Vec<f32> {
    let n = b.len() / (rank * experts).max(1);
    let at = |i: usize| {
        let (expert, row, r) = (i / (n * rank), i / rank % n, i % rank);
        b[row * rank * experts + r * experts + expert]
    };
    (0..b.len()).map(at).collect()
}

/// `[m, n]` with `m` rows to `[n, m]`.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let cols = values.len() / rows.max(1);
    (0..values.len()).map(|i| values[i % rows * cols + i / rows]).collect()
}

pub(super) fn both(name: &str, module: &Module) -> Result<Option<(HeaderEntry, HeaderEntry)>, AdapterError> {
    let incomplete = |missing| Err(AdapterError::Incomplete { module: name.to_owned(), missing });
    match (module.a.clone(), module.b.clone()) {
        (Some(a), Some(b)) => Ok(Some((a, b))),
        (Some(_), None) => incomplete("B"),
        (None, Some(_)) => incomplete("A"),
        (None, None) if module.magnitude.is_some() || module.b_bias.is_some() => incomplete("A"),
        (None, None) => Ok(None),
    }
}

pub(super) fn check_shape(entry: &HeaderEntry, expected: &[usize]) -> Result<(), AdapterError> {
    match entry.shape == expected {
        true => Ok(()),
        false => Err(AdapterError::Shape {
            name: entry.name.clone(),
            actual: entry.shape.clone(),
            expected: expected.to_vec(),
        }),
    }
}
