//! The inference backend: every operator computes at once, on the CPU, in f32.

mod attention;
pub(crate) mod elementwise;
mod experts;
pub(crate) mod products;
mod rope;

pub(crate) use attention::{attention, softmax};
pub(crate) use experts::{Choice, choose};
pub(crate) use rope::Turns;

use crate::cache::KvCache;
use crate::linear::Linear;
use crate::ops::{Experts, Norm, Ops};
use crate::product::{Arithmetic, Spread};
use gq_checkpoint::{Activation, AttentionSpec};
use gq_tensor::Isa;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Arithmetic of the activations that meet codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ActivationMode {
    /// Rounded to int8, one scale per 32 elements after the rotation. Weights stored as floats meet f32.
    #[default]
    Int8,
    /// As they are.
    F32,
}

/// A matrix `[rows, width]`, row after row.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    /// Elements of a row.
    pub width: usize,
    /// All elements.
    pub data: Vec<f32>,
}

impl Matrix {
    pub(crate) fn zeros(rows: usize, width: usize) -> Matrix {
        Matrix { width, data: vec![0.0; rows * width] }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.data.len() / self.width.max(1)
    }

    /// A copy of some rows.
    pub(crate) fn part(&self, rows: Range<usize>) -> Matrix {
        Matrix { width: self.width, data: self.data[rows.start * self.width..rows.end * self.width].to_vec() }
    }

    /// A copy of some elements of every row.
    pub(crate) fn columns(&self, columns: Range<usize>) -> Matrix {
        let parts = self.data.chunks_exact(self.width).flat_map(|row| &row[columns.clone()]);
        Matrix { width: columns.len(), data: parts.copied().collect() }
    }
}

/// One batch of tokens of one sequence on its way through a graph.
#[derive(Debug)]
pub(crate) struct Eager<'a> {
    pub(crate) level: Isa,
    pub(crate) activations: ActivationMode,
    pub(crate) cache: &'a mut KvCache,
    /// Cosines and sines of the batch's positions, one table per rotary embedding.
    pub(crate) turns: &'a [Turns],
    /// Position of the first token.
    pub(crate) start: usize,
}

impl Ops for Eager<'_> {
    type Value = Matrix;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Matrix {
        products::embed(self.level, table, tokens)
    }

    fn linear<const N: usize>(&mut self, x: &Matrix, weights: [&Linear; N]) -> [Matrix; N] {
        products::linear(self.level, self.activations, x, weights)
    }

    fn rms_norm(&mut self, x: &Matrix, norm: &Norm) -> Matrix {
        elementwise::rms_norm(x, norm)
    }

    fn rope(&mut self, x: Matrix, rope: usize) -> Matrix {
        match self.turns.get(rope) {
            Some(turns) => turns.apply(x),
            None => x,
        }
    }

    fn attention(
        &mut self,
        q: Matrix,
        new: Option<(Matrix, Matrix)>,
        cache: usize,
        spec: &AttentionSpec,
    ) -> Matrix {
        if let (Some((keys, values)), Some(layer)) = (new, self.cache.layer_mut(cache)) {
            layer.append(self.start, &keys.data, &values.data);
        }
        match self.cache.layer(cache) {
            Some(layer) => attention(&q, layer, self.start, spec, Arithmetic::Fastest(Spread::Serial)),
            None => q,
        }
    }

    fn gated(&mut self, activation: Activation, gate: Matrix, up: &Matrix) -> Matrix {
        elementwise::gated(activation, gate, up)
    }

    fn experts(&mut self, x: &Matrix, scores: &Matrix, experts: &Experts) -> Matrix {
        experts::experts(self.level, self.activations, x, scores, experts)
    }

    fn add(&mut self, x: Matrix, y: &Matrix) -> Matrix {
        elementwise::add(x, y)
    }

    fn scale(&mut self, x: Matrix, factor: f32) -> Matrix {
        elementwise::map(x, |x| x * factor)
    }

    fn softcap(&mut self, x: Matrix, cap: f32) -> Matrix {
        elementwise::softcap(x, cap)
    }

    fn rows(&mut self, mut x: Matrix, rows: Range<usize>) -> Matrix {
        x.data.truncate(rows.end * x.width);
        x.data.drain(..rows.start * x.width);
        x
    }

    fn columns(&mut self, x: &Matrix, columns: Range<usize>) -> Matrix {
        x.columns(columns)
    }
}
