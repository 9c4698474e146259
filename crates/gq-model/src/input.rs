//! Activations as they meet stored weights.

use gq_codec::Activations;

/// One token's input to matrices of one basis.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    /// In the basis of the matrices.
    pub(crate) values: Vec<f32>,
    /// The same rounded to int8, when codes are to be multiplied by that.
    pub(crate) int8: Option<Activations>,
}
