//! What is left of a sequence between two layers.

use gq_model::Matrix;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Keys and values by the layer that made them.
pub(crate) type SharedMatrices = BTreeMap<usize, (Arc<Matrix>, Arc<Matrix>)>;

/// A sequence between two layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    /// The residual stream.
    pub(crate) x: Arc<Matrix>,
    /// Keys and values of layers that later layers read.
    pub(crate) shared: SharedMatrices,
}
