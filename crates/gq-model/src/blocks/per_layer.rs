//! Per-layer embeddings: a vector for each layer and token, taken in at the end of its layer.

use crate::LoadError;
use crate::linear::Linear;
use crate::ops::{Norm, Ops};
use crate::weight_source::Source;
use gq_checkpoint::{Activation, Part, PerLayerEmbedding};

/// What makes one `width`-vector per layer and token.
#[derive(Debug)]
pub(crate) struct PerLayerInputs {
    spec: PerLayerEmbedding,
    /// `[vocab, layers * width]`.
    table: Linear,
    /// `[layers * width, hidden]`.
    projection: Linear,
    pub(crate) norm: Norm,
}

impl PerLayerInputs {
    pub(crate) fn load(spec: &PerLayerEmbedding, source: &mut Source) -> Result<Self, LoadError> {
        Ok(PerLayerInputs {
            spec: *spec,
            table: source.matrix(Part::PerLayerTable, None)?,
            projection: source.linear(Part::PerLayerModelProjection, None)?,
            norm: source.norm(Part::PerLayerModelNorm, None)?,
        })
    }

    /// From the scaled embedding `x [tokens, hidden]` and the tokens themselves to `[tokens, layers * width]`.
    pub(crate) fn forward<O: Ops>(&self, ops: &mut O, x: &O::Value, tokens: &[u32]) -> O::Value {
        let [context] = ops.linear(x, [&self.projection]); // [tokens, layers * width]
        let context = ops.scale(context, self.spec.projection_scale); // [tokens, layers * width]
        let context = ops.rms_norm(&context, &self.norm); // [tokens, layers * width], normed layer by layer
        let identity = ops.embed(&self.table, tokens); // [tokens, layers * width]
        let identity = ops.scale(identity, self.spec.table_scale); // [tokens, layers * width]
        let sum = ops.add(context, &identity); // [tokens, layers * width]
        ops.scale(sum, self.spec.sum_scale) // [tokens, layers * width]
    }
}

/// Where a layer takes in its vector.
#[derive(Debug)]
pub(crate) struct PerLayer {
    /// Columns of this layer among all vectors.
    pub(crate) columns: std::ops::Range<usize>,
    activation: Activation,
    gate: Linear,
    projection: Linear,
    pub(crate) norm: Norm,
}

impl PerLayer {
    pub(crate) fn load(
        spec: &PerLayerEmbedding,
        layer: usize,
        source: &mut Source,
    ) -> Result<PerLayer, LoadError> {
        let at = Some(layer);
        Ok(PerLayer {
            columns: layer * spec.width..(layer + 1) * spec.width,
            activation: spec.activation,
            gate: source.linear(Part::PerLayerGate, at)?,
            projection: source.normed_linear(Part::PerLayerProjection, at)?,
            norm: source.norm(Part::PerLayerNorm, at)?,
        })
    }

    /// `x [tokens, hidden]` and all vectors `[tokens, layers * width]` to `[tokens, hidden]`.
    pub(crate) fn forward<O: Ops>(&self, ops: &mut O, x: O::Value, vectors: &O::Value) -> O::Value {
        let vector = ops.columns(vectors, self.columns.clone()); // [tokens, width]
        let [gate] = ops.linear(&x, [&self.gate]); // [tokens, width]
        let h = ops.gated(self.activation, gate, &vector); // [tokens, width]
        let [h] = ops.linear(&h, [&self.projection]); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.norm); // [tokens, hidden]
        ops.add(x, &h) // [tokens, hidden]
    }
}
