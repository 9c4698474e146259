//! Experts next to the dense MLP (Gemma 4).

use super::Experts;
use crate::LoadError;
use crate::ops::{Norm, Ops};
use crate::weight_source::Source;
use gq_checkpoint::{ModelSpec, MoeSpec, Part};

/// Experts next to the dense MLP, both from the residual stream, each between norms of its own.
#[derive(Debug)]
pub(crate) struct ParallelExperts {
    pub(crate) after_dense: Norm,
    /// RMS norm whose weight is the router's `scale`.
    pub(crate) before_router: Norm,
    router_scale: f32,
    pub(crate) before: Norm,
    pub(crate) experts: Experts,
    pub(crate) after: Norm,
}

impl ParallelExperts {
    pub(crate) fn load(
        spec: &ModelSpec,
        moe: &MoeSpec,
        index: usize,
        source: &mut Source,
    ) -> Result<ParallelExperts, LoadError> {
        let at = Some(index);
        let scale = source.vector(Part::RouterScale, at)?;
        Ok(ParallelExperts {
            after_dense: source.norm(Part::DenseNorm, at)?,
            before_router: source.norm_of(scale),
            router_scale: moe.input_scale.unwrap_or(1.0),
            before: source.norm(Part::ExpertNorm, at)?,
            experts: Experts::load(spec, moe, index, source)?,
            after: source.norm(Part::PostExpertNorm, at)?,
        })
    }

    /// The dense MLP's output and the experts', both from the residual `x`.
    pub(crate) fn join<O: Ops>(&self, ops: &mut O, x: &O::Value, dense: O::Value) -> O::Value {
        let dense = ops.rms_norm(&dense, &self.after_dense); // [tokens, hidden]
        let r = ops.rms_norm(x, &self.before_router); // [tokens, hidden]
        let r = ops.scale(r, self.router_scale); // [tokens, hidden]
        let h = ops.rms_norm(x, &self.before); // [tokens, hidden]
        let h = self.experts.forward(ops, &r, &h); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.after); // [tokens, hidden]
        ops.add(dense, &h) // [tokens, hidden]
    }
}
