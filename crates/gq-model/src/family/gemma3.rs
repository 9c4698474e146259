//! Gemma 3: norms before and after attention and MLP, norms of queries and keys, sliding and full layers.

use super::Residual;
use crate::LoadError;
use crate::linear::Linear;
use crate::ops::{Norm, Ops};
use crate::source::Source;
use gq_checkpoint::{AttentionSpec, LayerSpec, MlpSpec, ModelSpec, Part};

#[derive(Debug)]
pub(crate) struct Gemma3 {
    embedding: Linear,
    embed_scale: f32,
    pub(super) layers: Vec<Layer>,
    norm: Norm,
    /// `None`: the embedding is the head.
    head: Option<Linear>,
    final_softcap: Option<f32>,
}

#[derive(Debug)]
pub(super) struct Layer {
    index: usize,
    attention: AttentionSpec,
    input_norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Norm,
    key_norm: Norm,
    output: Linear,
    post_attention_norm: Norm,
    mlp: MlpSpec,
    pre_feedforward_norm: Norm,
    gate: Linear,
    up: Linear,
    down: Linear,
    post_feedforward_norm: Norm,
}

impl Gemma3 {
    pub(crate) fn load(spec: &ModelSpec, source: &mut Source) -> Result<Gemma3, LoadError> {
        let layers = spec.layers.iter().enumerate();
        Ok(Gemma3 {
            embedding: source.matrix(Part::Embedding, None)?,
            embed_scale: spec.embed_scale.unwrap_or(1.0),
            layers: layers
                .map(|(index, layer)| Layer::load(index, layer, source))
                .collect::<Result<_, _>>()?,
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
        Residual { x, per_layer: None }
    }

    pub(crate) fn layer<O: Ops>(&self, ops: &mut O, index: usize, x: O::Value) -> O::Value {
        self.layers[index].forward(ops, x) // [tokens, hidden]
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

impl Layer {
    fn load(index: usize, spec: &LayerSpec, source: &mut Source) -> Result<Layer, LoadError> {
        let (attention, mlp) = (spec.attention.clone(), spec.mlp);
        let at = Some(index);
        Ok(Layer {
            index,
            input_norm: source.norm(Part::AttentionNorm, at)?,
            query: source.linear(Part::Query, at)?,
            key: source.linear(Part::Key, at)?,
            value: source.linear(Part::Value, at)?,
            query_norm: source.norm(Part::QueryNorm, at)?,
            key_norm: source.norm(Part::KeyNorm, at)?,
            output: source.normed_linear(Part::Output, at)?,
            post_attention_norm: source.norm(Part::PostAttentionNorm, at)?,
            pre_feedforward_norm: source.norm(Part::MlpNorm, at)?,
            gate: source.linear(Part::Gate, at)?,
            up: source.linear(Part::Up, at)?,
            down: source.normed_linear(Part::Down, at)?,
            post_feedforward_norm: source.norm(Part::PostMlpNorm, at)?,
            attention,
            mlp,
        })
    }

    fn forward<O: Ops>(&self, ops: &mut O, x: O::Value) -> O::Value {
        let h = ops.rms_norm(&x, &self.input_norm); // [tokens, hidden]
        let [q, k, v] = ops.linear(&h, [&self.query, &self.key, &self.value]); // [tokens, (kv_)heads * head_dim]
        let q = ops.rms_norm(&q, &self.query_norm); // [tokens, heads * head_dim]
        let k = ops.rms_norm(&k, &self.key_norm); // [tokens, kv_heads * head_dim]
        let q = ops.rope(q, self.attention.rope); // [tokens, heads * head_dim]
        let k = ops.rope(k, self.attention.rope); // [tokens, kv_heads * head_dim]
        let h = ops.attention(q, Some((k, v)), self.index, &self.attention); // [tokens, heads * head_dim]
        let [h] = ops.linear(&h, [&self.output]); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.post_attention_norm); // [tokens, hidden]
        let x = ops.add(x, &h); // [tokens, hidden]

        let h = ops.rms_norm(&x, &self.pre_feedforward_norm); // [tokens, hidden]
        let [gate, up] = ops.linear(&h, [&self.gate, &self.up]); // [tokens, width]
        let h = ops.gated(self.mlp.activation, gate, &up); // [tokens, width]
        let [h] = ops.linear(&h, [&self.down]); // [tokens, hidden]
        let h = ops.rms_norm(&h, &self.post_feedforward_norm); // [tokens, hidden]
        ops.add(x, &h) // [tokens, hidden]
    }
}
