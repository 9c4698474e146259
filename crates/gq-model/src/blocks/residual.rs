//! Norms around a branch of the residual stream.

use crate::LoadError;
use crate::ops::{Norm, Ops};
use crate::weight_source::Source;
use gq_checkpoint::{LayerSpec, NormPlacement, Part};

/// `x + f(norm(x))`, or `x + norm(f(norm(x)))`.
#[derive(Debug)]
pub(crate) struct Residual {
    pub(crate) before: Norm,
    pub(crate) after: Option<Norm>,
}

impl Residual {
    /// The norms before and, where the layer has such, after a branch.
    pub(crate) fn load(
        spec: &LayerSpec,
        [before, after]: [Part; 2],
        layer: usize,
        source: &mut Source,
    ) -> Result<Residual, LoadError> {
        Ok(Residual {
            before: source.norm(before, Some(layer))?,
            after: match spec.norms {
                NormPlacement::Pre => None,
                NormPlacement::PreAndPost => Some(source.norm(after, Some(layer))?),
            },
        })
    }

    /// Around attention.
    pub(crate) fn attention(
        spec: &LayerSpec,
        layer: usize,
        source: &mut Source,
    ) -> Result<Residual, LoadError> {
        Residual::load(spec, [Part::AttentionNorm, Part::PostAttentionNorm], layer, source)
    }

    /// Around the MLP and the experts.
    pub(crate) fn feed_forward(
        spec: &LayerSpec,
        layer: usize,
        source: &mut Source,
    ) -> Result<Residual, LoadError> {
        Residual::load(spec, [Part::MlpNorm, Part::PostMlpNorm], layer, source)
    }

    /// `branch(ops, x, normed x)` gives what is added: `[tokens, hidden]` to the same shape.
    pub(crate) fn around<O: Ops>(
        &self,
        ops: &mut O,
        x: O::Value,
        branch: impl FnOnce(&mut O, &O::Value, &O::Value) -> O::Value,
    ) -> O::Value {
        let normed = ops.rms_norm(&x, &self.before); // [tokens, hidden]
        let h = branch(ops, &x, &normed); // [tokens, hidden]
        drop(normed);
        let h = super::normed(ops, h, self.after.as_ref()); // [tokens, hidden]
        ops.add(x, &h) // [tokens, hidden]
    }
}
