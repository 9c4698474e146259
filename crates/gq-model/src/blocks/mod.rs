//! What families are made of. Each block loads its weights by the specification and runs on any backend.

mod attention;
mod ends;
mod experts;
mod feed_forward;
mod mlp;
mod parallel_experts;
mod per_layer;
mod residual;

pub(crate) use attention::Attention;
#[cfg(test)]
pub(crate) use attention::KeysValues;
pub(crate) use ends::Ends;
pub use experts::Experts;
pub use feed_forward::FeedForward;
pub use mlp::Mlp;
pub(crate) use parallel_experts::ParallelExperts;
pub(crate) use per_layer::{PerLayer, PerLayerInputs};
pub(crate) use residual::Residual;

use crate::ops::{Norm, Ops};

/// `x` normed, where there is a norm.
fn normed<O: Ops>(ops: &mut O, x: O::Value, norm: Option<&Norm>) -> O::Value {
    match norm {
        Some(norm) => ops.rms_norm(&x, norm),
        None => x,
    }
}
