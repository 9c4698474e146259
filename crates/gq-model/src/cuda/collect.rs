//! What a graph multiplies by: it is run with nothing.

use super::weights::Wanted;
use crate::linear::Linear;
use crate::ops::{Attention, Norm, Ops, Router};
use gq_checkpoint::Activation;
use std::ops::Range;

/// Operators that compute nothing and keep the weights they are called with.
#[derive(Default)]
pub(crate) struct Collect(pub(super) Wanted);

impl Collect {
    fn matrix(&mut self, linear: &Linear) {
        self.0.matrices.entry(linear.id).or_insert_with(|| linear.clone());
    }
}

impl Ops for Collect {
    type Value = ();
    type Routes = ();

    /// Tables stay where they are.
    fn embed(&mut self, _: &Linear, _: &[u32]) {}

    fn linear<const N: usize>(&mut self, (): &(), weights: [&Linear; N]) -> [(); N] {
        weights.map(|linear| self.matrix(linear))
    }

    fn rms_norm(&mut self, (): &(), norm: &Norm) {
        self.0.norms.entry(norm.id).or_insert_with(|| norm.clone());
    }

    fn rope(&mut self, (): (), _: usize) {}

    fn attention(&mut self, (): (), _: Option<((), ())>, _: usize, _: &Attention) {}

    fn gated(&mut self, _: Activation, (): (), (): &()) {}

    fn route(&mut self, (): &(), _: &Router) {}

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
