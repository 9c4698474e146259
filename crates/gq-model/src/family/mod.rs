//! One graph per family, written against [`Ops`]: blocks in order, a shape on every line.

mod gemma4;
mod llama;
#[cfg(test)]
mod slips;

use crate::LoadError;
use crate::blocks::{Ends, PerLayerInputs};
use crate::linear::Linear;
use crate::ops::Ops;
use crate::weight_source::Source;
use gq_checkpoint::{Family, ModelSpec};

/// A model's weights in the order of its graph.
#[derive(Debug)]
pub struct Graph {
    ends: Ends,
    per_layer: Option<PerLayerInputs>,
    layers: Layers,
}

/// Layers in order.
#[derive(Debug)]
enum Layers {
    Llama(Vec<llama::Layer>),
    Gemma4(Vec<gemma4::Layer>),
}

/// What flows from layer to layer.
#[derive(Clone, Debug)]
pub struct Stream<V> {
    /// The residual stream, `[tokens, hidden]`.
    pub x: V,
    /// Vectors that each layer takes its columns of (Gemma 4 E models), `[tokens, layers * width]`.
    pub per_layer: Option<V>,
}

impl Graph {
    pub(crate) fn load(spec: &ModelSpec, source: &mut Source) -> Result<Graph, LoadError> {
        let per_layer = spec.per_layer_embedding.as_ref();
        let layers = spec.layers.iter().enumerate();
        Ok(Graph {
            ends: Ends::load(spec, source)?,
            per_layer: per_layer.map(|spec| PerLayerInputs::load(spec, source)).transpose()?,
            layers: match spec.family {
                Family::Llama
                | Family::Qwen2
                | Family::Qwen3
                | Family::Qwen3Moe
                | Family::Mistral3
                | Family::Phi3
                | Family::GptOss
                | Family::Gemma3 => {
                    let load = layers.map(|(index, layer)| llama::Layer::load(spec, index, layer, source));
                    Layers::Llama(load.collect::<Result<_, _>>()?)
                }
                Family::Gemma4 => {
                    let load = layers.map(|(index, layer)| gemma4::Layer::load(spec, index, layer, source));
                    Layers::Gemma4(load.collect::<Result<_, _>>()?)
                }
            },
        })
    }

    /// The residual stream after the last layer, `[tokens, hidden]`.
    pub fn hidden<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> O::Value {
        let Stream { mut x, per_layer } = self.start(ops, tokens);
        for index in 0..self.layers() {
            x = self.layer(ops, index, x, per_layer.as_ref());
        }
        x
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        match &self.layers {
            Layers::Llama(layers) => layers.len(),
            Layers::Gemma4(layers) => layers.len(),
        }
    }

    /// What enters the first layer.
    pub fn start<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> Stream<O::Value> {
        let x = self.ends.embed(ops, tokens); // [tokens, hidden]
        let per_layer = self.per_layer.as_ref().map(|inputs| inputs.forward(ops, &x, tokens)); // [tokens, layers * width]
        Stream { x, per_layer }
    }

    /// One layer: `x [tokens, hidden]` to the same shape.
    pub fn layer<O: Ops>(
        &self,
        ops: &mut O,
        index: usize,
        x: O::Value,
        per_layer: Option<&O::Value>,
    ) -> O::Value {
        match &self.layers {
            Layers::Llama(layers) => layers[index].forward(ops, x),
            Layers::Gemma4(layers) => layers[index].forward(ops, x, per_layer),
        }
    }

    /// Rows of the residual stream as the head takes them.
    pub fn head_input<O: Ops>(&self, ops: &mut O, hidden: &O::Value) -> O::Value {
        self.ends.head_input(ops, hidden)
    }

    /// The head's weights; the embedding's where they are tied.
    pub fn head(&self) -> &Linear {
        self.ends.head()
    }

    /// Logits of rows of the residual stream: `[rows, hidden]` to `[rows, vocab]`.
    pub fn logits<O: Ops>(&self, ops: &mut O, hidden: &O::Value) -> O::Value {
        self.ends.logits(ops, hidden)
    }
}
