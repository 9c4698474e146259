//! One graph per family, written against [`Ops`]: blocks in order, a shape on every line.

mod gemma3;
mod gemma4;
mod llama;

use crate::LoadError;
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

impl Graph {
    pub(crate) fn load(spec: &ModelSpec, source: &mut Source) -> Result<Graph, LoadError> {
        Ok(match spec.family {
            Family::Llama => Graph::Llama(llama::Llama::load(spec, source)?),
            Family::Gemma3 => Graph::Gemma3(gemma3::Gemma3::load(spec, source)?),
            Family::Gemma4 => Graph::Gemma4(Box::new(gemma4::Gemma4::load(spec, source)?)),
        })
    }

    /// The residual stream after the last layer, `[tokens, hidden]`.
    pub(crate) fn hidden<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> O::Value {
        match self {
            Graph::Llama(graph) => graph.hidden(ops, tokens),
            Graph::Gemma3(graph) => graph.hidden(ops, tokens),
            Graph::Gemma4(graph) => graph.hidden(ops, tokens),
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
