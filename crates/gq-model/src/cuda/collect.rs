//! What a graph multiplies by: it is run with nothing.

use super::weights::{Wanted, expert_factors, runs};
use crate::linear::Linear;
use crate::ops::{Attention, Norm, Ops, Router};
use gq_checkpoint::Activation;
use std::ops::Range;

/// Operators that compute nothing and keep the weights they are called with.
#[derive(Default)]
pub(crate) struct Collect {
    pub(super) wanted: Wanted,
    /// Columns of the last product.
    experts: usize,
}

impl Collect {
    fn matrix(&mut self, linear: &Linear) {
        self.wanted.matrices.entry(linear.id).or_insert_with(|| linear.clone());
    }
}

impl Ops for Collect {
    type Value = ();
    type Routes = ();

    /// Tables stay where they are.
    fn embed(&mut self, _: &Linear, _: &[u32]) {}

    fn linear<const N: usize>(&mut self, (): &(), weights: [&Linear; N]) -> [(); N] {
        let joined = runs(&weights).into_iter().filter(|run| run.len() > 1);
        let ids = |run: Range<usize>| weights[run].iter().map(|linear| linear.id).collect::<Vec<_>>();
        for ids in joined.map(ids) {
            if !self.wanted.joined.contains(&ids) {
                self.wanted.joined.push(ids);
            }
        }
        weights.map(|linear| {
            self.matrix(linear);
            // A router's rows are what it chooses among.
            self.experts = linear.shape.rows;
            if linear.bias().is_some() && !self.wanted.biased.contains(&linear.id) {
                self.wanted.biased.push(linear.id);
            }
        })
    }

    fn rms_norm(&mut self, (): &(), norm: &Norm) {
        self.wanted.norms.entry(norm.id).or_insert_with(|| norm.clone());
    }

    fn rope(&mut self, (): (), _: usize) {}

    fn attention(&mut self, (): (), _: Option<((), ())>, _: usize, attention: &Attention) {
        self.wanted.constants.extend(attention.sinks.clone());
    }

    fn gated(&mut self, _: Activation, (): (), (): &()) {}

    fn route(&mut self, (): &(), router: &Router) {
        self.wanted.constants.extend(expert_factors(router, self.experts));
    }

    fn grouped_linear(&mut self, (): &(), (): &(), weight: &Linear) {
        self.matrix(weight);
    }

    fn combine(&mut self, (): (), (): &()) {}

    fn add(&mut self, (): (), (): &()) {}

    fn scale(&mut self, (): (), _: f32) {}

    fn softcap(&mut self, (): (), _: f32) {}

    fn rows(&mut self, (): (), _: Range<usize>) {}

    fn columns(&mut self, (): &(), _: Range<usize>) {}
}
