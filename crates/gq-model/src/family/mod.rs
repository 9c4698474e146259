//! One graph per family, written against [`Ops`]: blocks in order, a shape on every line.

mod gemma3;
mod gemma4;
mod llama;

use crate::LoadError;
use crate::linear::Linear;
use crate::ops::Ops;
use crate::source::Source;
use gq_checkpoint::{Family, ModelSpec};

/// A model's weights in the order of its graph.
#[derive(Debug)]
pub(crate) enum Graph {
    Llama(llama::Llama),
    Gemma3(gemma3::Gemma3),
    Gemma4(Box<gemma4::Gemma4>),
}

/// What flows from layer to layer.
#[derive(Clone, Debug)]
pub(crate) struct Residual<V> {
    /// The residual stream, `[tokens, hidden]`.
    pub(crate) x: V,
    /// Vectors that each layer takes its columns of (Gemma 4 E models), `[tokens, layers * width]`.
    pub(crate) per_layer: Option<V>,
}

impl Graph {
    pub(crate) fn load(spec: &ModelSpec, source: &mut Source) -> Result<Graph, LoadError> {
        Ok(match spec.family {
            Family::Llama | Family::Qwen2 => Graph::Llama(llama::Llama::load(spec, source)?),
            Family::Gemma3 => Graph::Gemma3(gemma3::Gemma3::load(spec, source)?),
            Family::Gemma4 => Graph::Gemma4(Box::new(gemma4::Gemma4::load(spec, source)?)),
        })
    }

    /// The residual stream after the last layer, `[tokens, hidden]`.
    pub(crate) fn hidden<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> O::Value {
        let Residual { mut x, per_layer } = self.start(ops, tokens);
        for index in 0..self.layers() {
            x = self.layer(ops, index, x, per_layer.as_ref());
        }
        x
    }

    /// Layers.
    pub(crate) fn layers(&self) -> usize {
        match self {
            Graph::Llama(graph) => graph.layers.len(),
            Graph::Gemma3(graph) => graph.layers.len(),
            Graph::Gemma4(graph) => graph.layers.len(),
        }
    }

    /// What enters the first layer.
    pub(crate) fn start<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> Residual<O::Value> {
        match self {
            Graph::Llama(graph) => graph.start(ops, tokens),
            Graph::Gemma3(graph) => graph.start(ops, tokens),
            Graph::Gemma4(graph) => graph.start(ops, tokens),
        }
    }

    /// One layer: `x [tokens, hidden]` to the same shape.
    pub(crate) fn layer<O: Ops>(
        &self,
        ops: &mut O,
        index: usize,
        x: O::Value,
        per_layer: Option<&O::Value>,
    ) -> O::Value {
        match self {
            Graph::Llama(graph) => graph.layer(ops, index, x),
            Graph::Gemma3(graph) => graph.layer(ops, index, x),
            Graph::Gemma4(graph) => graph.layer(ops, index, x, per_layer),
        }
    }

    /// Rows of the residual stream as the head takes them.
    pub(crate) fn head_input<O: Ops>(&self, ops: &mut O, hidden: &O::Value) -> O::Value {
        match self {
            Graph::Llama(graph) => graph.head_input(ops, hidden),
            Graph::Gemma3(graph) => graph.head_input(ops, hidden),
            Graph::Gemma4(graph) => graph.head_input(ops, hidden),
        }
    }

    /// The head's weights; the embedding's where they are tied.
    pub(crate) fn head(&self) -> &Linear {
        match self {
            Graph::Llama(graph) => graph.head(),
            Graph::Gemma3(graph) => graph.head(),
            Graph::Gemma4(graph) => graph.head(),
        }
    }

    /// Logits of rows of the residual stream: `[rows, hidden]` to `[rows, vocab]`.
    pub(crate) fn logits<O: Ops>(&self, ops: &mut O, hidden: &O::Value) -> O::Value {
        match self {
            Graph::Llama(graph) => graph.logits(ops, hidden),
            Graph::Gemma3(graph) => graph.logits(ops, hidden),
            Graph::Gemma4(graph) => graph.logits(ops, hidden),
        }
    }
}
