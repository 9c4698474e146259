//! The backend whose results decide codes and budgets: one arithmetic on every CPU and thread count, observers at every
//! linear input, and a tape for gradients.
//!
//! In [`Deterministic`] a batch is one whole sequence from position 0. Matrix products are
//! [`gq_codec::fixed_product`]; everything else is IEEE operations in a fixed order.

mod attention;
mod backward;
mod experts;
mod factors;
mod overlay;
mod tape;

pub(crate) use factors::add_gradients;
pub use factors::{FactorGradients, Factors};
pub(crate) use overlay::Overlay;
pub use overlay::Replacements;
pub(crate) use tape::{Gradients, Place};

use gq_checkpoint::Activation;
use gq_model::arithmetic::{RopeTable, Routes, elementwise, stored};
use gq_model::{Attention, Linear, Matrix, Norm, Ops, Router};
use gq_tensor::Isa;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tape::{Record, Tape};

/// A computed matrix and its place on the tape.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) id: usize,
    pub(crate) matrix: Arc<Matrix>,
    /// Whether rows are those of chosen experts, not of tokens.
    by_expert: bool,
    /// What it is with the model's own weights, between experts' products where others stand in for a share.
    plain: Option<Arc<Matrix>>,
}

impl Value {
    fn plain(&self) -> &Matrix {
        self.plain.as_ref().unwrap_or(&self.matrix)
    }
}

/// Routes and the place of their factors on the tape.
#[derive(Clone, Debug)]
pub(crate) struct TapedRoutes {
    id: usize,
    routes: Arc<Routes>,
}

/// Inputs that meet one or more weights.
#[derive(Debug)]
pub struct Observation<'a> {
    /// Index of the sequence.
    pub sequence: usize,
    /// Weights that are multiplied by this input.
    pub weights: &'a [&'a Linear],
    /// The expert, for weights `[experts * rows, cols]`.
    pub expert: Option<usize>,
    /// `[tokens, cols]`, as the graph has it: not rotated.
    pub input: &'a Matrix,
    /// Root mean square of each token's outputs, where an RMS norm of all outputs comes right after the product.
    pub sizes: Option<&'a [f32]>,
}

impl Observation<'_> {
    /// The input, each token's over its size where there are sizes.
    ///
    /// That is what the norm does to the outputs: a token with large outputs weighs no more than another. K-FAC takes
    /// inputs and gradients at outputs for independent; before a norm, gradients are large where outputs are small, and
    /// those behind its division are not.
    pub fn weighed(&self) -> Cow<'_, Matrix> {
        match self.sizes {
            Some(sizes) => Cow::Owned(over_sizes(self.input, sizes)),
            None => Cow::Borrowed(self.input),
        }
    }
}

/// Each token's row over its size.
pub(crate) fn over_sizes(input: &Matrix, sizes: &[f32]) -> Matrix {
    let mut input = input.clone();
    elementwise::scale_rows(&mut input, sizes.iter().map(|size| 1.0 / size));
    input
}

/// Called at every product.
pub(crate) type Observer<'a> = &'a mut dyn FnMut(Observation<'_>);

/// Keys and values of layers that later layers read.
pub(crate) type SharedKeys = BTreeMap<usize, (Value, Value)>;

/// One sequence on its way through a graph.
pub(crate) struct Deterministic<'a> {
    pub(crate) level: Isa,
    /// One table per rotary embedding, from position 0.
    pub(crate) ropes: &'a [RopeTable],
    pub(crate) shared: SharedKeys,
    pub(crate) observer: Option<Observer<'a>>,
    pub(crate) tape: Option<Tape>,
    /// Index of the sequence, for the observer.
    pub(crate) sequence: usize,
    /// Products still to be seen: from the last one on, nothing is computed and values are zeros.
    pub(crate) left: Option<usize>,
    /// What differs from the model's own weights.
    pub(crate) overlay: Overlay<'a>,
    /// Gradients by its factors, after `backward`.
    pub(crate) by_factor: FactorGradients,
    next: usize,
}

impl<'a> Deterministic<'a> {
    pub(crate) fn new(level: Isa, ropes: &'a [RopeTable]) -> Deterministic<'a> {
        Deterministic {
            level,
            ropes,
            shared: SharedKeys::new(),
            observer: None,
            tape: None,
            sequence: 0,
            left: None,
            overlay: Overlay::default(),
            by_factor: FactorGradients::new(),
            next: 0,
        }
    }

    /// A value that was computed elsewhere.
    pub(crate) fn leaf(&mut self, matrix: impl Into<Arc<Matrix>>) -> Value {
        self.next += 1;
        Value { id: self.next - 1, matrix: matrix.into(), by_expert: false, plain: None }
    }

    /// A value made of others that may be between experts' products.
    fn like(&mut self, matrix: Matrix, by_expert: bool, plain: Option<Matrix>) -> Value {
        Value { by_expert, plain: plain.map(Arc::new), ..self.leaf(matrix) }
    }

    /// Whether what follows is of no interest.
    fn is_over(&self) -> bool {
        self.left == Some(0)
    }

    fn linear_value(&mut self, x: &Value, y: Matrix, weight: &Linear, plain: Option<Matrix>) -> Value {
        let y = self.leaf(y);
        self.record(|| {
            let sizes = weight.normed().map(|eps| elementwise::root_mean_squares(&y.matrix, eps));
            Record::Linear { x: x.id, y: y.id, weight: weight.clone(), plain, sizes }
        });
        y
    }

    fn record(&mut self, make: impl FnOnce() -> Record) {
        if let Some(tape) = &mut self.tape {
            tape.records.push(make());
        }
    }
}

fn owned(x: Value) -> Matrix {
    Arc::unwrap_or_clone(x.matrix)
}

impl Ops for Deterministic<'_> {
    type Value = Value;
    type Routes = TapedRoutes;

    fn embed(&mut self, table: &Linear, tokens: &[u32]) -> Value {
        let y = self.overlay.embed(self.level, table, tokens);
        let y = self.leaf(y);
        self.record(|| Record::Embed { y: y.id, table: table.clone() });
        y
    }

    fn linear<const N: usize>(&mut self, x: &Value, weights: [&Linear; N]) -> [Value; N] {
        let mut early = None;
        // One size per token and product: weights that share an input would need inputs of their own.
        assert!(N == 1 || weights.iter().all(|weight| weight.normed().is_none()), "normed one by one");
        if let Some(observer) = self.observer.as_mut().filter(|_| self.left != Some(0)) {
            debug_assert!(self.overlay.factors.is_none() && self.overlay.share == 1.0, "observed as it is");
            let mut seen = Observation {
                sequence: self.sequence,
                weights: &weights,
                expert: None,
                input: &x.matrix,
                sizes: None,
            };
            if let ([weight], Some(eps)) = (&weights[..], weights[0].normed()) {
                let y = self.overlay.linear(self.level, weight, &x.matrix);
                let sizes = elementwise::root_mean_squares(&y, eps);
                seen.sizes = Some(&sizes);
                observer(seen);
                early = Some(y);
            } else {
                observer(seen);
            }
        }
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.is_over() {
            return weights.map(|weight| self.leaf(Matrix::zeros(x.matrix.rows(), weight.shape().rows)));
        }
        weights.map(|weight| {
            let Some(factors) = self.overlay.factors_of(weight) else {
                let y = early.take();
                let y = y.unwrap_or_else(|| self.overlay.linear(self.level, weight, &x.matrix));
                let other = self.overlay.of(weight);
                return self.linear_value(x, y, other.as_ref().unwrap_or(weight), None);
            };
            let plain = stored::rows(self.level, weight, 0..weight.shape().rows, &x.matrix);
            let y = factors::scaled(&plain, factors, weight.bias());
            self.linear_value(x, y, weight, Some(plain))
        })
    }

    fn rms_norm(&mut self, x: &Value, norm: &Norm) -> Value {
        let scaled = self.overlay.factors.and_then(|factors| factors::scaled_norm(norm, factors));
        let norm = scaled.as_ref().unwrap_or(norm);
        let y = self.leaf(elementwise::rms_norm(&x.matrix, norm));
        self.record(|| Record::RmsNorm { x: x.clone(), y: y.id, norm: norm.clone() });
        y
    }

    fn rope(&mut self, x: Value, rope: usize) -> Value {
        let id = x.id;
        let turned = match self.ropes.get(rope) {
            Some(table) => table.apply(owned(x)),
            None => owned(x),
        };
        let y = self.leaf(turned);
        self.record(|| Record::Rope { x: id, y: y.id, rope });
        y
    }

    fn attention(&mut self, q: Value, new: Option<(Value, Value)>, cache: usize, layer: &Attention) -> Value {
        if let Some(new) = new {
            self.shared.insert(cache, new);
        }
        let Some((k, v)) = self.shared.get(&cache).cloned().filter(|_| !self.is_over()) else { return q };
        let y = attention::attention(self.level, &q.matrix, &k.matrix, &v.matrix, layer);
        let y = self.leaf(y);
        self.record(|| Record::Attention { q, k, v, y: y.id, layer: Box::new(layer.clone()) });
        y
    }

    fn gated(&mut self, activation: Activation, gate: Value, up: &Value) -> Value {
        let y = match self.tape {
            Some(_) => elementwise::gated(activation, gate.matrix.as_ref().clone(), &up.matrix),
            None => elementwise::gated(activation, owned(gate.clone()), &up.matrix),
        };
        let plain = (gate.plain.is_some() || up.plain.is_some())
            .then(|| elementwise::gated(activation, gate.plain().clone(), up.plain()));
        let y = self.like(y, gate.by_expert, plain);
        self.record(|| Record::Gated { activation, gate, up: up.clone(), y: y.id });
        y
    }

    fn route(&mut self, scores: &Value, router: &Router) -> TapedRoutes {
        let routes = match self.is_over() {
            true => Routes { tokens: scores.matrix.rows(), choices: Vec::new() },
            false => Routes::new(&scores.matrix, router),
        };
        self.next += 1;
        let routes = TapedRoutes { id: self.next - 1, routes: Arc::new(routes) };
        self.record(|| Record::Route {
            scores: scores.clone(),
            routes: routes.clone(),
            router: Box::new(router.clone()),
        });
        routes
    }

    fn grouped_linear(&mut self, x: &Value, routes: &TapedRoutes, weight: &Linear) -> Value {
        let (level, sequence, routes) = (self.level, self.sequence, &routes.routes);
        let other = self.overlay.of(weight);
        let mixed = self.overlay.share != 1.0;
        let mut seen = |expert: usize, input: &Matrix| {
            let Some(observer) = &mut self.observer else { return };
            let weights = &[weight];
            observer(Observation { sequence, weights, expert: Some(expert), input, sizes: None });
        };
        let used = other.as_ref().unwrap_or(weight);
        let y = stored::grouped(level, used, &x.matrix, routes, &mut seen);
        // Experts' outputs are mixed where they are combined: what is between their products is not linear in weights.
        let plain = (mixed && (other.is_some() || x.plain.is_some()))
            .then(|| stored::grouped(level, weight, x.plain(), routes, &mut |_, _| ()));
        let y = self.like(y, true, plain);
        self.record(|| Record::Grouped {
            x: x.clone(),
            routes: routes.clone(),
            weight: used.clone(),
            y: y.id,
        });
        y
    }

    fn combine(&mut self, x: Value, routes: &TapedRoutes) -> Value {
        let y = routes.routes.combine(&x.matrix);
        let y = match &x.plain {
            Some(plain) => self.overlay.mixed(y, || routes.routes.combine(plain)),
            None => y,
        };
        let y = self.leaf(y);
        self.record(|| Record::Combine { x, routes: routes.clone(), y: y.id });
        y
    }

    fn add(&mut self, x: Value, y: &Value) -> Value {
        let id = x.id;
        let sum = self.leaf(elementwise::add(x.matrix.as_ref().clone(), &y.matrix));
        self.record(|| Record::Add { x: id, y: y.id, sum: sum.id });
        sum
    }

    fn scale(&mut self, x: Value, factor: f32) -> Value {
        let id = x.id;
        let y = self.leaf(elementwise::map(owned(x), |x| x * factor));
        self.record(|| Record::Scale { x: id, y: y.id, factor });
        y
    }

    fn softcap(&mut self, x: Value, cap: f32) -> Value {
        let id = x.id;
        let y = self.leaf(elementwise::softcap(owned(x), cap));
        self.record(|| Record::Softcap { x: id, y: y.clone(), cap });
        y
    }

    fn rows(&mut self, x: Value, rows: Range<usize>) -> Value {
        let (id, total) = (x.id, x.matrix.rows());
        let y = self.leaf(x.matrix.part(rows.clone()));
        self.record(|| Record::Rows { x: id, y: y.id, rows, total });
        y
    }

    fn columns(&mut self, x: &Value, columns: Range<usize>) -> Value {
        let (id, width) = (x.id, x.matrix.width);
        let plain = x.plain.as_ref().map(|plain| plain.columns(columns.clone()));
        let y = self.like(x.matrix.columns(columns.clone()), x.by_expert, plain);
        self.record(|| Record::Columns { x: id, y: y.id, columns, width });
        y
    }
}
