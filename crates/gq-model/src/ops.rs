//! The operators that graphs are written in.

use crate::ids::WeightId;
use crate::linear::Linear;
use gq_checkpoint::{Activation, AttentionSpec, RouterSpec};
use std::ops::Range;

/// A backend: it computes values `[tokens, width]` in f32, or records what would be computed.
///
/// Graphs in `family/` and `blocks/` call these operators in order and know nothing else of a backend.
pub trait Ops {
    /// A matrix `[tokens, width]`.
    type Value;

    /// The experts of every token and their factors.
    type Routes;

    /// Rows of `table [vocab, width]` to `[tokens, width]`.
    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Self::Value;

    /// `x W^T + bias` for each of several weights: `[tokens, cols]` to `[tokens, rows]` each.
    fn linear<const N: usize>(&mut self, x: &Self::Value, weights: [&Linear; N]) -> [Self::Value; N];

    /// `x / sqrt(mean(x^2) + eps) * weight` over every `norm.width` neighbors of a row. Same shape.
    fn rms_norm(&mut self, x: &Self::Value, norm: &Norm) -> Self::Value;

    /// Turns pairs `(i, i + head_dim / 2)` of every head by position times `ModelSpec::ropes[rope].inv_freq[i]`.
    fn rope(&mut self, x: Self::Value, rope: usize) -> Self::Value;

    /// Causal attention of queries `[tokens, heads * head_dim]` over the keys and values of layer `cache`;
    /// `new`, keys and values `[tokens, kv_heads * head_dim]` of these tokens, join them first.
    /// To `[tokens, heads * head_dim]`.
    fn attention(
        &mut self,
        q: Self::Value,
        new: Option<(Self::Value, Self::Value)>,
        cache: usize,
        attention: &Attention,
    ) -> Self::Value;

    /// [`Activation`] of a gate and an up value, element by element.
    fn gated(&mut self, activation: Activation, gate: Self::Value, up: &Self::Value) -> Self::Value;

    /// The experts that `scores [tokens, experts]` choose.
    fn route(&mut self, scores: &Self::Value, router: &Router) -> Self::Routes;

    /// `x W_e^T + bias_e` with the matrix of each chosen expert e of `weight [experts * rows, cols]`. `x` has a row for
    /// each token or, token after token, one for each of its experts in their order. To `[tokens * top_k, rows]`.
    fn grouped_linear(&mut self, x: &Self::Value, routes: &Self::Routes, weight: &Linear) -> Self::Value;

    /// The sum of the rows of a token's experts times their factors, in their order: `[tokens * top_k, width]` to
    /// `[tokens, width]`.
    fn combine(&mut self, x: Self::Value, routes: &Self::Routes) -> Self::Value;

    /// `x + y`.
    fn add(&mut self, x: Self::Value, y: &Self::Value) -> Self::Value;

    /// `x * factor`.
    fn scale(&mut self, x: Self::Value, factor: f32) -> Self::Value;

    /// `cap * tanh(x / cap)`.
    fn softcap(&mut self, x: Self::Value, cap: f32) -> Self::Value;

    /// Some tokens: `[tokens, width]` to `[rows.len(), width]`.
    fn rows(&mut self, x: Self::Value, rows: Range<usize>) -> Self::Value;

    /// Some columns: `[tokens, width]` to `[tokens, columns.len()]`.
    fn columns(&mut self, x: &Self::Value, columns: Range<usize>) -> Self::Value;
}

/// An RMS norm.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Number of its weight.
    pub id: WeightId,
    /// Canonical name of the weight's tensor; `None` where there is none that could be tuned.
    pub name: Option<std::sync::Arc<str>>,
    /// Factors `[width]`; `None`: 1.
    pub weight: Option<Vec<f32>>,
    /// Elements that are normed together.
    pub width: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// What the attention operator needs of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// Heads, window, scale and cap.
    pub spec: AttentionSpec,
    /// One score per query head that takes part in the softmax and stands for no position, `[heads]`.
    pub sinks: Option<Vec<f32>>,
}

/// How scores choose experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Router {
    /// The rule.
    pub spec: RouterSpec,
    /// Added to the weights for the choice alone, `[experts]`.
    pub selection_bias: Option<Vec<f32>>,
    /// Factor of each expert, `[experts]`; `None`: 1.
    pub scales: Option<Vec<f32>>,
}
