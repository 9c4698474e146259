//! Gemma 4: two head sizes, shared caches, values from keys, per-layer embeddings, experts next to the dense MLP.

use crate::LoadError;
use crate::blocks::{Attention, Experts, Mlp, PerLayer, Residual};
use crate::ops::{Norm, Ops};
use crate::source::Source;
use gq_checkpoint::{LayerSpec, ModelSpec, MoeSpec, Part};

#[derive(Debug)]
pub(crate) struct Layer {
    around_attention: Residual,
    attention: Attention,
    around_mlp: Residual,
    mlp: Mlp,
    moe: Option<Moe>,
    per_layer: Option<PerLayer>,
    scalar: f32,
}

/// Experts next to the dense MLP, both from the residual stream, each between norms of its own.
#[derive(Debug)]
struct Moe {
    after_dense: Norm,
    /// RMS norm whose weight is the router's `scale`.
    before_router: Norm,
    router_scale: f32,
    before: Norm,
    experts: Experts,
    after: Norm,
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
            moe: layer.moe.map(|moe| Moe::load(spec, &moe, index, source)).transpose()?,
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

impl Moe {
    fn load(spec: &ModelSpec, moe: &MoeSpec, index: usize, source: &mut Source) -> Result<Moe, LoadError> {
        let at = Some(index);
        let scale = source.vector(Part::RouterScale, at)?;
        Ok(Moe {
            after_dense: source.norm(Part::DenseNorm, at)?,
            before_router: source.norm_of(scale),
            router_scale: moe.input_scale.unwrap_or(1.0),
            before: source.norm(Part::ExpertNorm, at)?,
            experts: Experts::load(spec, moe, index, source)?,
            after: source.norm(Part::PostExpertNorm, at)?,
        })
    }

    /// The dense MLP's output and the experts', both from the residual `x`.
    fn join<O: Ops>(&self, ops: &mut O, x: &O::Value, dense: O::Value) -> O::Value {
        let dense = ops.rms_norm(&dense, &self.after_dense); // [tokens, hidden]
        let r = ops.rms_norm(x, &self.before_router); // [tokens, hidden]
        let r = ops.scale(r, self.router_scale); // [tokens, hidden]
        let h = ops.rms_norm(x, &self.before); // [tokens, hidden]
        let h = self.experts.forward(ops, &r, &h); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.after); // [tokens, hidden]
        ops.add(dense, &h) // [tokens, hidden]
    }
}

#[cfg(test)]
mod mutations;
