//! One sequence through a model, a layer at a time.

use super::state::{SharedMatrices, State};
use crate::deterministic::{Deterministic, Observer, Overlay, Value};
use gq_model::arithmetic::RopeTable;
use gq_model::{Matrix, Model, Stream};
use std::sync::Arc;

/// A sequence from position 0 on its way through a model.
pub(crate) struct Walk<'a> {
    model: &'a Model,
    tokens: &'a [u32],
    ropes: Vec<RopeTable>,
}

/// How a part of the way is gone.
#[derive(Default)]
pub(crate) struct Run<'a> {
    /// Called at every product.
    pub(crate) observer: Option<Observer<'a>>,
    /// Index of the sequence, for the observer.
    pub(crate) sequence: usize,
    /// Products of the layer to go through; all of them unless given.
    pub(crate) left: Option<usize>,
    /// What differs from the model's own weights.
    pub(crate) overlay: Overlay<'a>,
}

impl<'a> Run<'a> {
    /// The same for a shorter time.
    fn shorter(&mut self) -> Run<'_> {
        let mut run = Run { sequence: self.sequence, left: self.left, ..Run::over(self.overlay) };
        if let Some(observer) = &mut self.observer {
            run.observer = Some(&mut **observer);
        }
        run
    }

    /// Without an observer.
    pub(crate) fn over(overlay: Overlay<'a>) -> Run<'a> {
        Run { overlay, ..Run::default() }
    }
}

/// What enters the first layer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// The residual stream.
    pub(crate) x: Arc<Matrix>,
    /// Vectors of all layers, where the model has such.
    pub(crate) vectors: Option<Arc<Matrix>>,
}

/// One layer's result, the ids of its inputs, and what was recorded.
pub(crate) struct LayerRun<'t> {
    pub(crate) x: Value,
    pub(crate) input: usize,
    pub(crate) vectors: Option<usize>,
    pub(crate) ops: Deterministic<'t>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(model: &'a Model, tokens: &'a [u32]) -> Walk<'a> {
        Walk { model, tokens, ropes: rope_tables(model, tokens.len()) }
    }

    /// The model.
    pub(super) fn model(&self) -> &'a Model {
        self.model
    }

    /// Operators for this sequence.
    pub(super) fn ops<'t>(&'t self, run: Run<'t>) -> Deterministic<'t> {
        let mut ops = Deterministic::new(self.model.options().level, &self.ropes);
        let Run { observer, sequence, left, overlay } = run;
        (ops.observer, ops.sequence, ops.left, ops.overlay) = (observer, sequence, left, overlay);
        ops
    }

    /// What precedes the layers.
    pub(crate) fn start(&self, mut run: Run<'_>) -> Start {
        let mut ops = self.ops(run.shorter());
        let Stream { x, per_layer } = self.model.graph().start(&mut ops, self.tokens);
        Start { x: x.matrix, vectors: per_layer.map(|vectors| vectors.matrix) }
    }

    /// Whether a layer needs what [`start`](Walk::start) makes. The vectors of all layers together are several times the
    /// residual stream: they are not kept, but made again for each layer.
    pub(crate) fn needs_start(&self, layer: usize) -> bool {
        layer == 0 || self.model.spec().per_layer_embedding.is_some()
    }

    /// One layer: the state before it to the state after it.
    pub(crate) fn layer(
        &self,
        layer: usize,
        state: State,
        vectors: Option<Arc<Matrix>>,
        mut run: Run<'_>,
    ) -> State {
        let LayerRun { x, mut ops, .. } = self.run(layer, state, vectors, run.shorter(), false);
        let layers = &self.model.spec().layers;
        let read_later = |cache: &usize| {
            layers.iter().skip(layer + 1).any(|later| later.attention.kv_shared_with == Some(*cache))
        };
        let shared = std::mem::take(&mut ops.shared).into_iter().filter(|(cache, _)| read_later(cache));
        let shared: SharedMatrices = shared.map(|(cache, (k, v))| (cache, (k.matrix, v.matrix))).collect();
        State { x: x.matrix, shared }
    }

    /// The same with what precedes the layers where the layer needs it; the observer sees that before the first layer
    /// when `shows_start`.
    pub(crate) fn layer_from(
        &self,
        layer: usize,
        mut state: State,
        mut run: Run<'_>,
        shows_start: bool,
    ) -> State {
        let mut vectors = None;
        if self.needs_start(layer) {
            let mut before = Run { left: None, ..run.shorter() };
            if layer > 0 || !shows_start {
                before.observer = None;
            }
            let start = self.start(before);
            vectors = start.vectors;
            if layer == 0 {
                state.x = start.x;
            }
        }
        self.layer(layer, state, vectors, run)
    }

    /// One layer, recorded where it is `taped`.
    pub(crate) fn run<'t>(
        &'t self,
        layer: usize,
        State { x, shared }: State,
        vectors: Option<Arc<Matrix>>,
        run: Run<'t>,
        taped: bool,
    ) -> LayerRun<'t> {
        let mut ops = self.ops(run);
        for (cache, (keys, values)) in shared {
            let pair = (ops.leaf(keys), ops.leaf(values));
            ops.shared.insert(cache, pair);
        }
        let vectors = vectors.map(|vectors| ops.leaf(vectors));
        let x = ops.leaf(x);
        let input = x.id;
        ops.tape = taped.then(Default::default);
        let x = self.model.graph().layer(&mut ops, layer, x, vectors.as_ref());
        LayerRun { x, input, vectors: vectors.map(|vectors| vectors.id), ops }
    }
}

/// The rotary tables of a sequence from position 0.
pub(crate) fn rope_tables(model: &Model, tokens: usize) -> Vec<RopeTable> {
    model.spec().ropes.iter().map(|rope| RopeTable::new(rope, tokens, 0, tokens)).collect()
}
