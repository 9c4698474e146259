//! What was computed, in order, and gradients of it.

use super::{TapedRoutes, Value};
use gq_checkpoint::Activation;
use gq_model::arithmetic::Routes;
use gq_model::{Attention, Linear, Matrix, Norm, Router};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Operators in the order they ran; numbers are ids of values.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    pub(super) records: Vec<Record>,
}

#[cfg(test)]
impl Tape {
    /// Products whose gradients are seen behind a norm.
    pub(crate) fn normed(&self) -> usize {
        self.records.iter().filter(|record| matches!(record, Record::Linear { sizes: Some(_), .. })).count()
    }

    /// Products whose outputs go to a norm of them all, and to nothing else.
    pub(crate) fn normed_and_followed(&self) -> usize {
        let products = self.records.windows(2).filter(|two| match two {
            [Record::Linear { y, weight, .. }, Record::RmsNorm { x, norm, .. }] => {
                *y == x.id && norm.width == weight.shape().rows && weight.normed() == Some(norm.eps)
            }
            _ => false,
        });
        products.count()
    }
}

/// Where a gradient is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At the outputs of a product.
    Product,
    /// At the outputs of one expert's product.
    Expert(usize),
    /// At looked-up rows.
    Lookup,
}

#[derive(Debug)]
pub(super) enum Record {
    Embed {
        y: usize,
        table: Linear,
    },
    /// `plain`: the outputs before factors, where there are some. `sizes`: what a norm right after divides them by.
    Linear {
        x: usize,
        y: usize,
        weight: Linear,
        plain: Option<Matrix>,
        sizes: Option<Vec<f32>>,
    },
    RmsNorm {
        x: Value,
        y: usize,
        norm: Norm,
    },
    Rope {
        x: usize,
        y: usize,
        rope: usize,
    },
    Attention {
        q: Value,
        k: Value,
        v: Value,
        y: usize,
        layer: Box<Attention>,
    },
    Gated {
        activation: Activation,
        gate: Value,
        up: Value,
        y: usize,
    },
    Route {
        scores: Value,
        routes: TapedRoutes,
        router: Box<Router>,
    },
    Grouped {
        x: Value,
        routes: Arc<Routes>,
        weight: Linear,
        y: usize,
    },
    Combine {
        x: Value,
        routes: TapedRoutes,
        y: usize,
    },
    Add {
        x: usize,
        y: usize,
        sum: usize,
    },
    Scale {
        x: usize,
        y: usize,
        factor: f32,
    },
    Softcap {
        x: usize,
        y: Value,
        cap: f32,
    },
    Rows {
        x: usize,
        y: usize,
        rows: Range<usize>,
        total: usize,
    },
    Columns {
        x: usize,
        y: usize,
        columns: Range<usize>,
        width: usize,
    },
}

/// Gradients of a loss with respect to values, by their ids.
#[derive(Debug, Default)]
pub(crate) struct Gradients(BTreeMap<usize, Matrix>);

impl Gradients {
    /// Adds `gradient` to that of a value.
    pub(crate) fn add(&mut self, id: usize, gradient: Matrix) {
        match self.0.get_mut(&id) {
            Some(sum) => sum.data.iter_mut().zip(&gradient.data).for_each(|(sum, x)| *sum += x),
            None => {
                self.0.insert(id, gradient);
            }
        }
    }

    /// Takes a value's gradient: all that depends on the value has been visited.
    pub(crate) fn take(&mut self, id: usize) -> Option<Matrix> {
        self.0.remove(&id)
    }
}
