//! Causal attention with grouped heads, sliding windows, softcap and sinks.

use crate::arithmetic::softmax_with_sink;
use crate::cache::{HeadRows, HeadScratch, LayerCache};
use crate::matrix::Matrix;
use crate::ops::Attention;
use crate::product::{Arithmetic, View, ViewMut, multiply, multiply_transposed};
use gq_tensor::math;
use rayon::prelude::*;
use std::ops::Range;

/// Queries that meet the keys together.
const BLOCK: usize = 32;

/// Products of a single query worth another thread.
const PARALLEL: usize = 1 << 18;

/// Queries `[tokens, heads * head_dim]` at positions `start..` over a layer's keys and values, theirs included.
pub(crate) fn attention(
    q: &Matrix,
    cache: &LayerCache,
    start: usize,
    layer: &Attention,
    arithmetic: Arithmetic,
) -> Matrix {
    let (tokens, spec) = (q.rows(), &layer.spec);
    let mut out = Matrix::zeros(tokens, q.width);
    if tokens == 1 {
        // The query heads of one key-value head are neighbors: they meet the keys as one block.
        let width = spec.heads / spec.kv_heads * spec.head_dim;
        let seen = (start + 1).min(spec.window.unwrap_or(usize::MAX));
        let work = |(kv_head, (q, out)): (usize, (&[f32], &mut [f32]))| {
            let task = Task { cache, layer, positions: start..start + 1, stride: spec.head_dim, arithmetic };
            let group = spec.heads / spec.kv_heads;
            task.run(kv_head * group, q, out, group, &mut Scratch::default());
        };
        let parts = q.data.chunks_exact(width).zip(out.data.chunks_exact_mut(width));
        if seen * q.width < PARALLEL {
            parts.enumerate().for_each(work);
        } else {
            parts.enumerate().collect::<Vec<_>>().into_par_iter().for_each(work);
        }
        return out;
    }
    let blocks = q.data.par_chunks(BLOCK * q.width).zip(out.data.par_chunks_mut(BLOCK * q.width));
    blocks.enumerate().for_each_init(Scratch::default, |scratch, (block, (q_rows, out))| {
        let first = start + block * BLOCK;
        let rows = q_rows.len() / q.width;
        let task = Task { cache, layer, positions: first..first + rows, stride: q.width, arithmetic };
        for head in 0..spec.heads {
            let at = head * spec.head_dim;
            task.run(head, &q_rows[at..], &mut out[at..], rows, scratch);
        }
    });
    out
}

#[derive(Debug, Default)]
struct Scratch {
    scores: Vec<f32>,
    heads: HeadScratch,
}

/// A block of queries and what they have in common.
struct Task<'a> {
    cache: &'a LayerCache,
    layer: &'a Attention,
    /// Positions of the queries: one for all, or one each.
    positions: Range<usize>,
    /// Distance between queries.
    stride: usize,
    /// Of the products.
    arithmetic: Arithmetic,
}

impl Task<'_> {
    /// `rows` queries of one head, or of so many heads from it on at one position, to the same places in `out`.
    fn run(&self, head: usize, q: &[f32], out: &mut [f32], rows: usize, scratch: &mut Scratch) {
        let spec = &self.layer.spec;
        let (dim, kv_head) = (spec.head_dim, head / (spec.heads / spec.kv_heads));
        let HeadRows { keys, values, first } =
            self.cache.head(kv_head, self.positions.clone(), &mut scratch.heads);
        let held = keys.len() / dim;
        let wrapped = self.cache.is_wrapped(self.positions.end);
        // Rows that query at `position` may see; a ring that has wrapped holds exactly its window.
        let visible = |position: usize| match wrapped {
            true => 0..held,
            false => {
                let window = spec.window.unwrap_or(usize::MAX);
                (position + 1).saturating_sub(window).saturating_sub(first)..position + 1 - first
            }
        };
        let from = visible(self.positions.start).start;
        let to = visible(self.positions.end - 1).end;
        let len = to - from;
        scratch.scores.resize(rows * len, 0.0);
        let block = View::new(q, rows, dim, self.stride);
        let seen_keys = View::new(&keys[from * dim..to * dim], len, dim, dim);
        let scores = ViewMut::new(&mut scratch.scores, rows, len, len);
        multiply_transposed(block, seen_keys, scores, self.arithmetic);
        for (row, scores) in scratch.scores.chunks_exact_mut(len).enumerate() {
            let seen = visible((self.positions.start + row).min(self.positions.end - 1));
            let position = (self.positions.start + row).min(self.positions.end - 1);
            let head = if self.positions.len() == 1 { head + row } else { head };
            self.softmax(head, position, scores, seen.start - from..seen.end - from);
        }
        let weights = View::new(&scratch.scores, rows, len, len);
        let seen_values = View::new(&values[from * dim..to * dim], len, dim, dim);
        multiply(weights, seen_values, ViewMut::new(out, rows, dim, self.stride), self.arithmetic);
    }

    /// Softmax of the visible scores; the others become 0.
    fn softmax(&self, head: usize, position: usize, scores: &mut [f32], visible: Range<usize>) {
        let Attention { spec, sinks } = self.layer;
        scores[..visible.start].fill(0.0);
        scores[visible.end..].fill(0.0);
        let (scores, scale) = (&mut scores[visible], spec.scale_at(position));
        match spec.softcap {
            Some(cap) => {
                let scale = scale / cap;
                scores.iter_mut().for_each(|score| *score = cap * math::tanh(*score * scale));
            }
            None => scores.iter_mut().for_each(|score| *score *= scale),
        }
        softmax_with_sink(scores, sinks.as_ref().map(|sinks| sinks[head]));
    }
}
