//! Gemma 4: two head sizes, shared caches, values from keys, per-layer embeddings, experts next to the dense MLP.

use super::Residual;
use crate::LoadError;
use crate::linear::Linear;
use crate::ops::{Experts, Norm, Ops};
use crate::source::Source;
use gq_checkpoint::{AttentionSpec, LayerSpec, MlpSpec, ModelSpec, MoeSpec, Part, PerLayerEmbedding};

#[derive(Debug)]
pub(crate) struct Gemma4 {
    embedding: Linear,
    embed_scale: f32,
    per_layer: Option<PerLayerInputs>,
    pub(super) layers: Vec<Layer>,
    norm: Norm,
    /// `None`: the embedding is the head.
    head: Option<Linear>,
    final_softcap: Option<f32>,
}

/// What makes one `width`-vector per layer and token.
#[derive(Debug)]
struct PerLayerInputs {
    spec: PerLayerEmbedding,
    /// `[vocab, layers * width]`.
    table: Linear,
    /// `[layers * width, hidden]`.
    projection: Linear,
    norm: Norm,
}

#[derive(Debug)]
pub(super) struct Layer {
    attention: AttentionSpec,
    /// The layer whose keys and values are read.
    cache: usize,
    input_norm: Norm,
    query: Linear,
    query_norm: Norm,
    /// `None`: another layer's cache is read.
    keys_values: Option<KeysValues>,
    output: Linear,
    post_attention_norm: Norm,
    mlp: MlpSpec,
    pre_feedforward_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
    moe: Option<Moe>,
    post_feedforward_norm: Norm,
    per_layer: Option<PerLayer>,
    scalar: f32,
}

#[derive(Debug)]
struct KeysValues {
    key: Linear,
    key_norm: Norm,
    /// `None`: values are the key projection's output.
    value: Option<Linear>,
    value_norm: Norm,
}

#[derive(Debug)]
struct Moe {
    /// RMS norm whose weight is the router's `scale`.
    router_norm: Norm,
    router_scale: f32,
    router: Linear,
    post_dense_norm: Norm,
    pre_norm: Norm,
    experts: Experts,
    post_norm: Norm,
}

/// Where a layer takes in its per-layer vector.
#[derive(Debug)]
struct PerLayer {
    /// Columns of this layer among all per-layer vectors.
    columns: std::ops::Range<usize>,
    gate: Linear,
    projection: Linear,
    norm: Norm,
}

impl Gemma4 {
    pub(crate) fn load(spec: &ModelSpec, source: &mut Source) -> Result<Gemma4, LoadError> {
        let per_layer = spec.per_layer_embedding.as_ref();
        let layers = 0..spec.layers.len();
        Ok(Gemma4 {
            embedding: source.matrix(Part::Embedding, None)?,
            embed_scale: spec.embed_scale.unwrap_or(1.0),
            layers: layers.map(|index| Layer::load(spec, index, source)).collect::<Result<_, _>>()?,
            per_layer: per_layer.map(|ple| PerLayerInputs::load(ple, source)).transpose()?,
            norm: source.norm(Part::FinalNorm, None)?,
            head: match spec.tied_head {
                true => None,
                false => Some(source.matrix(Part::Head, None)?),
            },
            final_softcap: spec.final_softcap,
        })
    }

    pub(crate) fn start<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> Residual<O::Value> {
        let x = ops.embed(&self.embedding, tokens); // [tokens, hidden]
        let x = ops.scale(x, self.embed_scale); // [tokens, hidden]
        let per_layer = self.per_layer.as_ref().map(|inputs| inputs.forward(ops, &x, tokens)); // [tokens, layers * width]
        Residual { x, per_layer }
    }

    pub(crate) fn layer<O: Ops>(
        &self,
        ops: &mut O,
        index: usize,
        x: O::Value,
        per_layer: Option<&O::Value>,
    ) -> O::Value {
        let layer = &self.layers[index];
        let x = layer.attend(ops, x); // [tokens, hidden]
        let mut x = layer.feed_forward(ops, x); // [tokens, hidden]
        if let (Some(part), Some(vectors)) = (&layer.per_layer, per_layer) {
            x = part.forward(ops, x, vectors, &layer.mlp); // [tokens, hidden]
        }
        ops.scale(x, layer.scalar) // [tokens, hidden]
    }

    /// Rows of the residual stream as the head takes them: `[rows, hidden]` to the same shape.
    pub(crate) fn head_input<O: Ops>(&self, ops: &mut O, hidden: &O::Value) -> O::Value {
        ops.rms_norm(hidden, &self.norm) // [rows, hidden]
    }

    pub(crate) fn head(&self) -> &Linear {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    pub(crate) fn logits<O: Ops>(&self, ops: &mut O, hidden: &O::Value) -> O::Value {
        let x = self.head_input(ops, hidden); // [rows, hidden]
        let [logits] = ops.linear(&x, [self.head()]); // [rows, vocab]
        match self.final_softcap {
            Some(cap) => ops.softcap(logits, cap), // [rows, vocab]
            None => logits,
        }
    }
}

impl PerLayerInputs {
    fn load(ple: &PerLayerEmbedding, source: &mut Source) -> Result<Self, LoadError> {
        Ok(PerLayerInputs {
            spec: *ple,
            table: source.matrix(Part::PerLayerTable, None)?,
            projection: source.linear(Part::PerLayerModelProjection, None)?,
            norm: source.norm(Part::PerLayerModelNorm, None)?,
        })
    }

    /// From the scaled embedding `x [tokens, hidden]` and the tokens themselves to `[tokens, layers * width]`.
    fn forward<O: Ops>(&self, ops: &mut O, x: &O::Value, tokens: &[u32]) -> O::Value {
        let [context] = ops.linear(x, [&self.projection]); // [tokens, layers * width]
        let context = ops.scale(context, self.spec.projection_scale); // [tokens, layers * width]
        let context = ops.rms_norm(&context, &self.norm); // [tokens, layers * width], normed layer by layer
        let identity = ops.embed(&self.table, tokens); // [tokens, layers * width]
        let identity = ops.scale(identity, self.spec.table_scale); // [tokens, layers * width]
        let sum = ops.add(context, &identity); // [tokens, layers * width]
        ops.scale(sum, self.spec.sum_scale) // [tokens, layers * width]
    }
}

impl Layer {
    fn load(spec: &ModelSpec, index: usize, source: &mut Source) -> Result<Layer, LoadError> {
        let layer: &LayerSpec = &spec.layers[index];
        let (attention, mlp) = (layer.attention.clone(), layer.mlp);
        let own_cache = attention.kv_shared_with.is_none();
        let ple = spec.per_layer_embedding.as_ref();
        let at = Some(index);
        Ok(Layer {
            cache: attention.kv_shared_with.unwrap_or(index),
            input_norm: source.norm(Part::AttentionNorm, at)?,
            query: source.linear(Part::Query, at)?,
            query_norm: source.norm(Part::QueryNorm, at)?,
            keys_values: match own_cache {
                true => Some(KeysValues::load(&attention, at, source)?),
                false => None,
            },
            output: source.normed_linear(Part::Output, at)?,
            post_attention_norm: source.norm(Part::PostAttentionNorm, at)?,
            pre_feedforward_norm: source.norm(Part::MlpNorm, at)?,
            gate: source.linear(Part::Gate, at)?,
            up: source.linear(Part::Up, at)?,
            down: source.normed_linear(Part::Down, at)?,
            moe: layer.moe.map(|moe| Moe::load(&moe, &mlp, at, source)).transpose()?,
            post_feedforward_norm: source.norm(Part::PostMlpNorm, at)?,
            per_layer: ple.map(|ple| PerLayer::load(index, ple, source)).transpose()?,
            scalar: match layer.layer_scalar {
                true => source.vector(Part::LayerScalar, at)?.first().copied().unwrap_or(1.0),
                false => 1.0,
            },
            attention,
            mlp,
        })
    }

    fn attend<O: Ops>(&self, ops: &mut O, x: O::Value) -> O::Value {
        let h = ops.rms_norm(&x, &self.input_norm); // [tokens, hidden]
        let (q, new) = match &self.keys_values {
            Some(part) => {
                let (q, k, v) = part.project(ops, &h, &self.query); // [tokens, (kv_)heads * head_dim]
                let k = ops.rms_norm(&k, &part.key_norm); // [tokens, kv_heads * head_dim]
                let k = ops.rope(k, self.attention.rope); // [tokens, kv_heads * head_dim]
                (q, Some((k, v)))
            }
            None => {
                let [q] = ops.linear(&h, [&self.query]); // [tokens, heads * head_dim]
                (q, None)
            }
        };
        let q = ops.rms_norm(&q, &self.query_norm); // [tokens, heads * head_dim]
        let q = ops.rope(q, self.attention.rope); // [tokens, heads * head_dim]
        let h = ops.attention(q, new, self.cache, &self.attention); // [tokens, heads * head_dim]
        let [h] = ops.linear(&h, [&self.output]); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.post_attention_norm); // [tokens, hidden]
        ops.add(x, &h) // [tokens, hidden]
    }

    fn feed_forward<O: Ops>(&self, ops: &mut O, x: O::Value) -> O::Value {
        let h = ops.rms_norm(&x, &self.pre_feedforward_norm); // [tokens, hidden]
        let [gate, up] = ops.linear(&h, [&self.gate, &self.up]); // [tokens, width]
        let h = ops.gated(self.mlp.activation, gate, &up); // [tokens, width]
        let [h] = ops.linear(&h, [&self.down]); // [tokens, hidden]
        let h = match &self.moe {
            Some(moe) => moe.join(ops, &x, h), // [tokens, hidden]
            None => h,
        };
        let h = ops.rms_norm(&h, &self.post_feedforward_norm); // [tokens, hidden]
        ops.add(x, &h) // [tokens, hidden]
    }
}

impl KeysValues {
    fn load(
        attention: &AttentionSpec,
        at: Option<usize>,
        source: &mut Source,
    ) -> Result<KeysValues, LoadError> {
        Ok(KeysValues {
            key: source.linear(Part::Key, at)?,
            key_norm: source.norm(Part::KeyNorm, at)?,
            value: match attention.k_eq_v {
                true => None,
                false => Some(source.linear(Part::Value, at)?),
            },
            value_norm: source.plain_norm(attention.head_dim),
        })
    }

    /// Queries and keys before their norms, values after theirs.
    fn project<O: Ops>(&self, ops: &mut O, h: &O::Value, query: &Linear) -> (O::Value, O::Value, O::Value) {
        match &self.value {
            Some(value) => {
                let [q, k, v] = ops.linear(h, [query, &self.key, value]); // [tokens, (kv_)heads * head_dim]
                let v = ops.rms_norm(&v, &self.value_norm); // [tokens, kv_heads * head_dim]
                (q, k, v)
            }
            None => {
                let [q, k] = ops.linear(h, [query, &self.key]); // [tokens, (kv_)heads * head_dim]
                let v = ops.rms_norm(&k, &self.value_norm); // [tokens, kv_heads * head_dim]
                (q, k, v)
            }
        }
    }
}

impl Moe {
    fn load(moe: &MoeSpec, mlp: &MlpSpec, at: Option<usize>, source: &mut Source) -> Result<Moe, LoadError> {
        let MoeSpec { top_k, width, input_scale, .. } = *moe;
        let scale = source.vector(Part::RouterScale, at)?;
        let router_norm = source.plain_norm(scale.len());
        Ok(Moe {
            router_norm: Norm { weight: Some(scale), ..router_norm },
            router_scale: input_scale,
            router: Linear { precise: true, ..source.linear(Part::Router, at)? },
            post_dense_norm: source.norm(Part::DenseNorm, at)?,
            pre_norm: source.norm(Part::ExpertNorm, at)?,
            experts: Experts {
                gate_up: source.matrix(Part::ExpertGateUp, at)?,
                down: source.matrix(Part::ExpertDown, at)?,
                scales: source.vector(Part::ExpertScale, at)?,
                top_k,
                width,
                activation: mlp.activation,
            },
            post_norm: source.norm(Part::PostExpertNorm, at)?,
        })
    }

    /// The dense MLP's output and the experts', both from the residual `x`.
    fn join<O: Ops>(&self, ops: &mut O, x: &O::Value, dense: O::Value) -> O::Value {
        let dense = ops.rms_norm(&dense, &self.post_dense_norm); // [tokens, hidden]
        let r = ops.rms_norm(x, &self.router_norm); // [tokens, hidden]
        let r = ops.scale(r, self.router_scale); // [tokens, hidden]
        let [scores] = ops.linear(&r, [&self.router]); // [tokens, experts]
        let h = ops.rms_norm(x, &self.pre_norm); // [tokens, hidden]
        let h = ops.experts(&h, &scores, &self.experts); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.post_norm); // [tokens, hidden]
        ops.add(dense, &h) // [tokens, hidden]
    }
}

impl PerLayer {
    fn load(index: usize, ple: &PerLayerEmbedding, source: &mut Source) -> Result<PerLayer, LoadError> {
        let at = Some(index);
        Ok(PerLayer {
            columns: index * ple.width..(index + 1) * ple.width,
            gate: source.linear(Part::PerLayerGate, at)?,
            projection: source.normed_linear(Part::PerLayerProjection, at)?,
            norm: source.norm(Part::PerLayerNorm, at)?,
        })
    }

    fn forward<O: Ops>(&self, ops: &mut O, x: O::Value, vectors: &O::Value, mlp: &MlpSpec) -> O::Value {
        let vector = ops.columns(vectors, self.columns.clone()); // [tokens, width]
        let [gate] = ops.linear(&x, [&self.gate]); // [tokens, width]
        let h = ops.gated(mlp.activation, gate, &vector); // [tokens, width]
        let [h] = ops.linear(&h, [&self.projection]); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.norm); // [tokens, hidden]
        ops.add(x, &h) // [tokens, hidden]
    }
}

#[cfg(test)]
mod mutations;
