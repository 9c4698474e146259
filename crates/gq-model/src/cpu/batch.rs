//! New tokens of one or more sequences on their way through a graph, each sequence after what its own cache has.

use super::{ActivationMode, attention::attention, grouped, products};
use crate::arithmetic::{Place, RopeTable, Routes, elementwise, stored};
use crate::cache::KvCache;
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::ops::{Attention, Norm, Ops, Router};
use crate::product::Arithmetic;
use gq_checkpoint::{Activation, RopeSpec};
use gq_codec::Parallelism;
use gq_tensor::Isa;
use rayon::prelude::*;
use std::ops::Range;

/// In what order sums are taken, of products and of attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sums {
    /// As this machine is fastest.
    Fastest(ActivationMode),
    /// The same on every CPU and thread count, whichever sequences are in the batch; activations are f32.
    Deterministic,
}

/// Rows of one sequence after those of the other.
#[derive(Debug)]
pub struct Batch<'a> {
    level: Isa,
    sums: Sums,
    parts: Vec<Part<'a>>,
    /// One table per rotary embedding, for every row.
    ropes: Vec<RopeTable>,
}

/// One sequence's tokens.
#[derive(Debug)]
struct Part<'a> {
    rows: Range<usize>,
    cache: &'a mut KvCache,
}

impl<'a> Batch<'a> {
    /// So many new tokens of each sequence, with its cache.
    pub fn new(level: Isa, sums: Sums, ropes: &[RopeSpec], sequences: Vec<(usize, &'a mut KvCache)>) -> Self {
        let mut end = 0;
        let parts = sequences.into_iter().map(|(count, cache)| {
            end += count;
            Part { rows: end - count..end, cache }
        });
        let parts: Vec<_> = parts.collect();
        let places = || {
            parts.iter().flat_map(|part| {
                let context = part.cache.max_tokens();
                (0..part.rows.len()).map(move |row| Place { position: part.cache.len() + row, context })
            })
        };
        let ropes = ropes.iter().map(|rope| RopeTable::at(rope, places())).collect();
        Batch { level, sums, parts, ropes }
    }

    /// The last row of each sequence.
    pub fn last_rows(&self, x: &Matrix) -> Matrix {
        let last = self.parts.iter().flat_map(|part| {
            let row = part.rows.end.saturating_sub(1);
            &x.data[row * x.width..(row + 1) * x.width]
        });
        Matrix { width: x.width, data: last.copied().collect() }
    }

    /// Ends the batch: its tokens have passed all layers.
    pub fn advance(self) {
        self.parts.into_iter().for_each(|part| part.cache.advance(part.rows.len()));
    }

    /// Of attention: heads and queries are spread over threads, so a product in the fastest arithmetic is not.
    fn arithmetic(&self, deterministic: Parallelism) -> Arithmetic {
        match self.sums {
            Sums::Fastest(_) => Arithmetic::Fastest(Parallelism::Serial),
            Sums::Deterministic => Arithmetic::Deterministic(self.level, deterministic),
        }
    }
}

impl Ops for Batch<'_> {
    type Value = Matrix;
    type Routes = Routes;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Matrix {
        stored::embed(self.level, table, tokens)
    }

    fn linear<const N: usize>(&mut self, x: &Matrix, weights: [&Linear; N]) -> [Matrix; N] {
        match self.sums {
            Sums::Fastest(mode) => products::linear(self.level, mode, x, weights),
            Sums::Deterministic => weights.map(|weight| stored::linear(self.level, weight, x)),
        }
    }

    fn rms_norm(&mut self, x: &Matrix, norm: &Norm) -> Matrix {
        elementwise::rms_norm(x, norm)
    }

    fn rope(&mut self, x: Matrix, rope: usize) -> Matrix {
        match self.ropes.get(rope) {
            Some(table) => table.apply(x),
            None => x,
        }
    }

    fn attention(
        &mut self,
        q: Matrix,
        new: Option<(Matrix, Matrix)>,
        cache: usize,
        layer: &Attention,
    ) -> Matrix {
        // Sequences are spread over threads as well, where there are several.
        let pieces = if self.parts.len() > 1 { self.parts.len() } else { 0 };
        let arithmetic = self.arithmetic(Parallelism::within(pieces));
        if let [part] = self.parts.as_mut_slice() {
            return part.attend(q, new, cache, layer, arithmetic);
        }
        let seen = self.parts.par_iter_mut().map(|part| {
            let rows = |x: &Matrix| x.part(part.rows.clone());
            let (q, new) = (rows(&q), new.as_ref().map(|(keys, values)| (rows(keys), rows(values))));
            part.attend(q, new, cache, layer, arithmetic).data
        });
        Matrix { width: q.width, data: seen.collect::<Vec<_>>().concat() }
    }

    fn gated(&mut self, activation: Activation, gate: Matrix, up: &Matrix) -> Matrix {
        elementwise::gated(activation, gate, up)
    }

    fn route(&mut self, scores: &Matrix, router: &Router) -> Routes {
        Routes::new(scores, router)
    }

    fn grouped_linear(&mut self, x: &Matrix, routes: &Routes, weight: &Linear) -> Matrix {
        match self.sums {
            Sums::Fastest(mode) => grouped::grouped(self.level, mode, x, routes, weight),
            Sums::Deterministic => stored::grouped(self.level, weight, x, routes, &mut |_, _| ()),
        }
    }

    fn combine(&mut self, x: Matrix, routes: &Routes) -> Matrix {
        routes.combine(&x)
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

impl Part<'_> {
    /// Attention of this sequence's queries, after its new keys and values are in its cache.
    fn attend(
        &mut self,
        q: Matrix,
        new: Option<(Matrix, Matrix)>,
        cache: usize,
        layer: &Attention,
        arithmetic: Arithmetic,
    ) -> Matrix {
        let start = self.cache.len();
        if let (Some((keys, values)), Some(own)) = (new, self.cache.layer_mut(cache)) {
            own.append(start, &keys.data, &values.data);
        }
        match self.cache.layer(cache) {
            Some(own) => attention(&q, own, start, layer, arithmetic),
            None => q,
        }
    }
}
