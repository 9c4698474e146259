//! Logits of a sequence that has passed all layers, some positions at a time.

use crate::deterministic::{Deterministic, Overlay};
use gq_model::{Matrix, Model};
use std::sync::Arc;

/// Positions whose logits are held at once.
pub(crate) const HEAD_ROWS: usize = 128;

/// Logits `[rows, vocab]` of a block of positions, from the last hidden states `[tokens, hidden]`.
pub(crate) fn logits(model: &Model, hidden: &Matrix, block: usize, overlay: Overlay<'_>) -> Matrix {
    let mut ops = Deterministic::new(model.options().level, &[]);
    ops.overlay = overlay;
    let x = ops.leaf(block_rows(hidden, block));
    Arc::unwrap_or_clone(model.graph().logits(&mut ops, &x).matrix)
}

/// The rows of a block of positions.
pub(crate) fn block_rows(hidden: &Matrix, block: usize) -> Matrix {
    let part = hidden.data.chunks(HEAD_ROWS * hidden.width).nth(block).unwrap_or_default();
    Matrix { width: hidden.width, data: part.to_vec() }
}
