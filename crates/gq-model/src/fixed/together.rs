//! Several sequences in one batch, each after what its own cache holds, in fixed arithmetic: what they are given next
//! is the same on every CPU and thread count, whichever sequences are in the batch.

use super::{experts, product};
use crate::cache::KvCache;
use crate::eager::{Matrix, Turns, attention, elementwise, products};
use crate::linear::Linear;
use crate::ops::{Experts, Norm, Ops};
use crate::product::Arithmetic;
use gq_checkpoint::{Activation, AttentionSpec, RopeSpec};
use gq_codec::serially;
use gq_tensor::Isa;
use rayon::prelude::*;
use std::ops::Range;

/// The sequences' tokens on their way through a graph: rows of one after those of the other.
pub(crate) struct Together<'a> {
    level: Isa,
    parts: Vec<Part<'a>>,
    /// One table per rotary embedding, for every row.
    turns: Vec<Turns>,
}

/// One sequence's tokens.
struct Part<'a> {
    rows: Range<usize>,
    cache: &'a mut KvCache,
}

impl<'a> Together<'a> {
    /// As many new tokens of each sequence as `counts` has, each with the cache of that sequence.
    pub(crate) fn new(level: Isa, ropes: &[RopeSpec], sequences: Vec<(usize, &'a mut KvCache)>) -> Self {
        let mut end = 0;
        let parts = sequences.into_iter().map(|(count, cache)| {
            end += count;
            Part { rows: end - count..end, cache }
        });
        let parts: Vec<_> = parts.collect();
        let positions =
            || parts.iter().flat_map(|part| (0..part.rows.len()).map(|row| part.cache.len() + row));
        let turns = ropes.iter().map(|rope| Turns::at(rope, positions())).collect();
        Together { level, parts, turns }
    }

    /// The last row of each sequence.
    pub(crate) fn last_rows(&self, x: &Matrix) -> Matrix {
        let last = self.parts.iter().flat_map(|part| {
            let row = part.rows.end.saturating_sub(1);
            &x.data[row * x.width..(row + 1) * x.width]
        });
        Matrix { width: x.width, data: last.copied().collect() }
    }

    /// Ends the batch: its tokens have passed all layers.
    pub(crate) fn advance(self) {
        self.parts.into_iter().for_each(|part| part.cache.advance(part.rows.len()));
    }
}

impl Ops for Together<'_> {
    type Value = Matrix;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Matrix {
        products::embed(self.level, table, tokens)
    }

    fn linear<const N: usize>(&mut self, x: &Matrix, weights: [&Linear; N]) -> [Matrix; N] {
        weights.map(|weight| product::linear(self.level, weight, x))
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
        let arithmetic = Arithmetic::Fixed(self.level);
        let many = self.parts.len() >= rayon::current_num_threads();
        let seen = self.parts.par_iter_mut().map(|part| {
            let (start, q) = (part.cache.len(), q.part(part.rows.clone()));
            if let (Some((keys, values)), Some(layer)) = (&new, part.cache.layer_mut(cache)) {
                let (keys, values) = (keys.part(part.rows.clone()), values.part(part.rows.clone()));
                layer.append(start, &keys.data, &values.data);
            }
            let Some(layer) = part.cache.layer(cache) else { return q.data };
            let attend = || attention(&q, layer, start, spec, arithmetic).data;
            if many { serially(attend) } else { attend() }
        });
        Matrix { width: q.width, data: seen.collect::<Vec<_>>().concat() }
    }

    fn gated(&mut self, activation: Activation, gate: Matrix, up: &Matrix) -> Matrix {
        elementwise::gated(activation, gate, up)
    }

    fn experts(&mut self, x: &Matrix, scores: &Matrix, experts: &Experts) -> Matrix {
        experts::experts(self.level, x, scores, experts, 0, &mut None)
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

    fn rows(&mut self, x: Matrix, rows: Range<usize>) -> Matrix {
        x.part(rows)
    }

    fn columns(&mut self, x: &Matrix, columns: Range<usize>) -> Matrix {
        x.columns(columns)
    }
}
