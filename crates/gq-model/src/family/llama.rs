//! Llama: grouped-query attention, then a gated MLP, each behind one norm.
//!
//! The same order serves Qwen2 (biases on queries, keys and values), Qwen3 (norms of queries and keys, experts in place of
//! the MLP), Mistral (windows, queries that
//! grow), Phi (heads that turn in part), GPT-OSS (sinks, windows, experts with biases) and Gemma 3 (norms after both, norms of queries and keys, sliding windows): blocks have what the
//! specification says.

use crate::LoadError;
use crate::blocks::{Attention, FeedForward, Residual};
use crate::ops::Ops;
use crate::weight_source::Source;
use gq_checkpoint::{LayerSpec, ModelSpec};

#[derive(Debug)]
pub(crate) struct Layer {
    around_attention: Residual,
    attention: Attention,
    around_feed_forward: Residual,
    feed_forward: FeedForward,
}

impl Layer {
    pub(super) fn load(
        spec: &ModelSpec,
        index: usize,
        layer: &LayerSpec,
        source: &mut Source,
    ) -> Result<Layer, LoadError> {
        Ok(Layer {
            around_attention: Residual::attention(layer, index, source)?,
            attention: Attention::load(layer, index, source)?,
            around_feed_forward: Residual::feed_forward(layer, index, source)?,
            feed_forward: FeedForward::load(spec, index, layer, source)?,
        })
    }

    /// `[tokens, hidden]` to the same shape.
    pub(super) fn forward<O: Ops>(&self, ops: &mut O, x: O::Value) -> O::Value {
        let x = self.around_attention.around(ops, x, |ops, _, h| self.attention.forward(ops, h));
        self.around_feed_forward.around(ops, x, |ops, _, h| self.feed_forward.forward(ops, h))
    }
}

#[cfg(test)]
mod biases;
#[cfg(test)]
mod gpt_oss;
#[cfg(test)]
mod mistral;
#[cfg(test)]
mod phi3;
#[cfg(test)]
mod qwen3;
