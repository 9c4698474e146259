//! Causal attention over one whole sequence, forward and backward, a head and a block of queries at a time.

use gq_checkpoint::AttentionSpec;
use gq_codec::{Operand, Parallelism, ProductShape, fixed_product};
use gq_model::arithmetic::softmax_with_sink;
use gq_model::{Attention, Matrix};
use gq_tensor::{Isa, math};
use rayon::prelude::*;
use std::ops::Range;

/// Queries that meet the keys together.
const BLOCK: usize = 64;

/// Queries `[tokens, heads * head_dim]` over keys and values `[tokens, kv_heads * head_dim]`.
pub(super) fn attention(level: Isa, q: &Matrix, k: &Matrix, v: &Matrix, layer: &Attention) -> Matrix {
    let spec = &layer.spec;
    let (tokens, dim) = (q.rows(), spec.head_dim);
    let mut out = Matrix { width: q.width, data: vec![0.0; q.data.len()] };
    out.data.par_chunks_mut(BLOCK * q.width).enumerate().for_each(|(index, out)| {
        let block = Block::new(index, tokens, spec);
        for head in 0..spec.heads {
            let weights = block.weights(level, head, q, k, layer);
            let v = operand(v, block.seen.start, head / (spec.heads / spec.kv_heads) * dim);
            let (m, n) = (block.queries.len(), block.seen.len());
            fixed_product(
                level,
                Parallelism::Threads,
                ProductShape { rows: m, cols: dim, depth: n },
                Operand::rows(&weights, n),
                v,
                &mut out[head * dim..],
                q.width,
            );
        }
    });
    out
}

/// Gradients with respect to queries, keys and values.
#[derive(Debug)]
pub(super) struct AttentionGradients {
    pub(super) q: Matrix,
    pub(super) k: Matrix,
    pub(super) v: Matrix,
}

/// From the gradient of the result to those of its inputs; weights are computed again.
pub(super) fn backward(
    level: Isa,
    q: &Matrix,
    k: &Matrix,
    v: &Matrix,
    layer: &Attention,
    dy: &Matrix,
) -> AttentionGradients {
    let spec = &layer.spec;
    let (tokens, dim, group) = (q.rows(), spec.head_dim, spec.heads / spec.kv_heads);
    // One key-value head after the other, its query heads in order: sums have one order.
    let parts = (0..spec.kv_heads).into_par_iter().map(|kv_head| {
        let mut dq = vec![0.0f32; tokens * group * dim];
        let (mut dk, mut dv) = (vec![0.0f32; tokens * dim], vec![0.0f32; tokens * dim]);
        for (member, index) in (0..group).flat_map(|m| (0..tokens.div_ceil(BLOCK)).map(move |i| (m, i))) {
            let block = Block::new(index, tokens, spec);
            let head = kv_head * group + member;
            let (m, n, from) = (block.queries.len(), block.seen.len(), block.seen.start);
            let weights = block.weights(level, head, q, k, layer);
            let dy = operand(dy, block.queries.start, head * dim);
            let mut ds = vec![0.0f32; m * n]; // gradient of the weights, then of the scores
            fixed_product(
                level,
                Parallelism::Threads,
                ProductShape { rows: m, cols: n, depth: dim },
                dy,
                operand(v, from, kv_head * dim).t(),
                &mut ds,
                n,
            );
            let weights_t = Operand::rows(&weights, n).t();
            fixed_product(
                level,
                Parallelism::Threads,
                ProductShape { rows: n, cols: dim, depth: m },
                weights_t,
                dy,
                &mut dv[from * dim..],
                dim,
            );
            let slopes = block.slopes(level, head, q, k, spec);
            for (row, (ds, p)) in ds.chunks_exact_mut(n).zip(weights.chunks_exact(n)).enumerate() {
                let mean: f64 = ds.iter().zip(p).map(|(&d, &p)| f64::from(d) * f64::from(p)).sum();
                for (i, (d, &p)) in ds.iter_mut().zip(p).enumerate() {
                    let slope = slopes.as_ref().map_or(spec.scale, |slopes| slopes[row * n + i]);
                    *d = p * (*d - mean as f32) * slope;
                }
            }
            let keys = operand(k, from, kv_head * dim);
            let at = (block.queries.start * group + member) * dim;
            fixed_product(
                level,
                Parallelism::Threads,
                ProductShape { rows: m, cols: dim, depth: n },
                Operand::rows(&ds, n),
                keys,
                &mut dq[at..],
                group * dim,
            );
            let queries = operand(q, block.queries.start, head * dim);
            fixed_product(
                level,
                Parallelism::Threads,
                ProductShape { rows: n, cols: dim, depth: m },
                Operand::rows(&ds, n).t(),
                queries,
                &mut dk[from * dim..],
                dim,
            );
        }
        [dq, dk, dv]
    });
    let parts: Vec<[Vec<f32>; 3]> = parts.collect();
    let join = |width: usize, which: usize| {
        let step = width / spec.kv_heads;
        let mut data = vec![0.0f32; tokens * width];
        for (kv_head, part) in parts.iter().enumerate() {
            for (row, part) in data.chunks_exact_mut(width).zip(part[which].chunks_exact(step)) {
                row[kv_head * step..(kv_head + 1) * step].copy_from_slice(part);
            }
        }
        Matrix { width, data }
    };
    AttentionGradients { q: join(q.width, 0), k: join(k.width, 1), v: join(v.width, 2) }
}

/// Consecutive queries and the keys that any of them sees.
struct Block {
    queries: Range<usize>,
    seen: Range<usize>,
    window: usize,
}

impl Block {
    fn new(index: usize, tokens: usize, spec: &AttentionSpec) -> Block {
        let queries = index * BLOCK..((index + 1) * BLOCK).min(tokens);
        let window = spec.window.unwrap_or(usize::MAX);
        let seen = (queries.start + 1).saturating_sub(window)..queries.end;
        Block { queries, seen, window }
    }

    /// `q . k` of every query and key of the block.
    fn products(&self, level: Isa, head: usize, q: &Matrix, k: &Matrix, spec: &AttentionSpec) -> Vec<f32> {
        let dim = spec.head_dim;
        let (m, n) = (self.queries.len(), self.seen.len());
        let mut products = vec![0.0; m * n];
        let keys = operand(k, self.seen.start, head / (spec.heads / spec.kv_heads) * dim);
        let queries = operand(q, self.queries.start, head * dim);
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows: m, cols: n, depth: dim },
            queries,
            keys.t(),
            &mut products,
            n,
        );
        products
    }

    /// Softmax of the scores, 0 where a query does not see a key: `[queries, seen]`.
    fn weights(&self, level: Isa, head: usize, q: &Matrix, k: &Matrix, layer: &Attention) -> Vec<f32> {
        let Attention { spec, sinks } = layer;
        let mut scores = self.products(level, head, q, k, spec);
        for (query, scores) in self.queries.clone().zip(scores.chunks_exact_mut(self.seen.len())) {
            let visible = (query + 1).saturating_sub(self.window).max(self.seen.start)..query + 1;
            let visible = visible.start - self.seen.start..visible.end - self.seen.start;
            scores[..visible.start].fill(0.0);
            scores[visible.end..].fill(0.0);
            let (scores, scale) = (&mut scores[visible], spec.scale_at(query));
            match spec.softcap {
                Some(cap) => {
                    let scale = scale / cap;
                    scores.iter_mut().for_each(|score| *score = cap * math::tanh(*score * scale));
                }
                None => scores.iter_mut().for_each(|score| *score *= scale),
            }
            softmax_with_sink(scores, sinks.as_ref().map(|sinks| sinks[head]));
        }
        scores
    }

    /// Slope of every score by its product, where that is not the constant scale.
    fn slopes(
        &self,
        level: Isa,
        head: usize,
        q: &Matrix,
        k: &Matrix,
        spec: &AttentionSpec,
    ) -> Option<Vec<f32>> {
        if spec.softcap.is_none() && spec.query_growth.is_none() {
            return None;
        }
        let mut slopes = self.products(level, head, q, k, spec);
        for (query, slopes) in self.queries.clone().zip(slopes.chunks_exact_mut(self.seen.len())) {
            let scale = spec.scale_at(query);
            match spec.softcap {
                Some(cap) => slopes.iter_mut().for_each(|slope| {
                    let t = math::tanh(*slope * (scale / cap));
                    *slope = scale * (1.0 - t * t);
                }),
                None => slopes.fill(scale),
            }
        }
        Some(slopes)
    }
}

/// Rows from `row` on, columns from `col` on.
fn operand(x: &Matrix, row: usize, col: usize) -> Operand<'_> {
    Operand { data: &x.data[row * x.width + col..], row_stride: x.width, col_stride: 1 }
}
