//! Gemma 4: two head sizes, shared caches, values from keys, per-layer embeddings, experts next to the dense MLP.

use crate::LoadError;
use crate::blocks::{Attention, Mlp, ParallelExperts, PerLayer, Residual};
use crate::ops::Ops;
use crate::weight_source::Source;
use gq_checkpoint::{LayerSpec, ModelSpec, Part};

#[derive(Debug)]
pub(crate) struct Layer {
    around_attention: Residual,
    attention: Attention,
    around_mlp: Residual,
    mlp: Mlp,
    moe: Option<ParallelExperts>,
    per_layer: Option<PerLayer>,
    scalar: f32,
}

impl Layer {
    pub(super) fn load(
        spec: &ModelSpec,
        index: usize,
        layer: &LayerSpec,
        source: &mut Source,
    ) -> Result<Layer, LoadError> {
        let per_layer = spec.per_layer_embedding.as_ref();
        Ok(Layer {
            around_attention: Residual::attention(layer, index, source)?,
            attention: Attention::load(layer, index, source)?,
            around_mlp: Residual::feed_forward(layer, index, source)?,
            mlp: Mlp::load(layer, true, index, source)?,
            moe: layer.moe.map(|moe| ParallelExperts::load(spec, &moe, index, source)).transpose()?,
            per_layer: per_layer.map(|spec| PerLayer::load(spec, index, source)).transpose()?,
            scalar: match layer.layer_scalar {
                true => source.vector(Part::LayerScalar, Some(index))?.first().copied().unwrap_or(1.0),
                false => 1.0,
            },
        })
    }

    /// `x [tokens, hidden]` and all per-layer vectors to `[tokens, hidden]`.
    pub(super) fn forward<O: Ops>(&self, ops: &mut O, x: O::Value, vectors: Option<&O::Value>) -> O::Value {
        let x = self.around_attention.around(ops, x, |ops, _, h| self.attention.forward(ops, h));
        let mut x = self.around_mlp.around(ops, x, |ops, x, h| {
            let dense = self.mlp.forward(ops, h); // [tokens, hidden]
            match &self.moe {
                Some(moe) => moe.join(ops, x, dense), // [tokens, hidden]
                None => dense,
            }
        });
        if let (Some(part), Some(vectors)) = (&self.per_layer, vectors) {
            x = part.forward(ops, x, vectors); // [tokens, hidden]
        }
        ops.scale(x, self.scalar) // [tokens, hidden]
    }
}

#[cfg(test)]
mod mutations;
