//! The operators that graphs are written in.

use crate::linear::Linear;
use gq_checkpoint::{Activation, AttentionSpec};
use std::ops::Range;

/// A backend: it computes values `[tokens, width]` in f32, or records what would be computed.
///
/// Graphs in `family/` call these operators in order and know nothing else of a backend.
pub trait Ops {
    /// A matrix `[tokens, width]`.
    type Value;

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
        spec: &AttentionSpec,
    ) -> Self::Value;

    /// `activation(gate) * up`, element by element.
    fn gated(&mut self, activation: Activation, gate: Self::Value, up: &Self::Value) -> Self::Value;

    /// Softmax of `scores [tokens, experts]`, the `top_k` largest renormalized and times `experts.scales`; the sum of
    /// those experts' `down(activation(gate(x)) * up(x))` with these factors. `[tokens, hidden]` to the same shape.
    fn experts(&mut self, x: &Self::Value, scores: &Self::Value, experts: &Experts) -> Self::Value;

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
    /// Canonical name of the weight's tensor; `None` where there is none that could be tuned.
    pub name: Option<std::sync::Arc<str>>,
    /// Factors `[width]`; `None`: 1.
    pub weight: Option<Vec<f32>>,
    /// Elements that are normed together.
    pub width: usize,
    /// Added to the mean square.
    pub eps: f32,
}

/// The experts of one layer.
#[derive(Clone, Debug)]
pub struct Experts {
    /// `[experts * 2 * width, hidden]`: the gate rows of an expert, then its up rows.
    pub gate_up: Linear,
    /// `[experts * hidden, width]`.
    pub down: Linear,
    /// Factor of each expert, `[experts]`.
    pub scales: Vec<f32>,
    /// Experts per token.
    pub top_k: usize,
    /// Rows of an expert's gate.
    pub width: usize,
    /// Applied to the gate.
    pub activation: Activation,
}
