//! The second half of a layer: a dense MLP, experts, or the sum of both.

use super::{Experts, Mlp};
use crate::LoadError;
use crate::ops::Ops;
use crate::weight_source::Source;
use gq_checkpoint::{LayerSpec, ModelSpec, NormPlacement};

/// What follows attention.
#[derive(Debug)]
pub enum FeedForward {
    /// An MLP that every token takes.
    Dense(Mlp),
    /// Experts that each token chooses.
    Sparse(Box<Experts>),
    /// The sum of both.
    Both(Mlp, Box<Experts>),
}

impl FeedForward {
    /// # Errors
    /// When the layer has neither, or a tensor is missing.
    pub(crate) fn load(
        spec: &ModelSpec,
        index: usize,
        layer: &LayerSpec,
        source: &mut Source,
    ) -> Result<FeedForward, LoadError> {
        // A norm after the sum is none after the dense part alone.
        let normed = layer.norms == NormPlacement::PreAndPost && layer.moe.is_none();
        let mlp = layer.mlp.map(|_| Mlp::load(layer, normed, index, source)).transpose()?;
        let experts = layer.moe.map(|moe| Experts::load(spec, &moe, index, source)).transpose()?;
        match (mlp, experts.map(Box::new)) {
            (Some(mlp), None) => Ok(FeedForward::Dense(mlp)),
            (None, Some(experts)) => Ok(FeedForward::Sparse(experts)),
            (Some(mlp), Some(experts)) => Ok(FeedForward::Both(mlp, experts)),
            (None, None) => {
                Err(LoadError::MissingTensor { name: format!("MLP or experts of layer {index}") })
            }
        }
    }

    /// `[tokens, hidden]` to the same shape.
    pub fn forward<O: Ops>(&self, ops: &mut O, x: &O::Value) -> O::Value {
        match self {
            FeedForward::Dense(mlp) => mlp.forward(ops, x),
            FeedForward::Sparse(experts) => experts.forward(ops, x, x),
            FeedForward::Both(mlp, experts) => {
                let dense = mlp.forward(ops, x); // [tokens, hidden]
                let sparse = experts.forward(ops, x, x); // [tokens, hidden]
                ops.add(dense, &sparse) // [tokens, hidden]
            }
        }
    }
}
