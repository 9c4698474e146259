//! Grouped-query attention with what families add to it: biases, norms of heads, values from keys, caches of other
//! layers, sinks, a gate on the result.

use super::normed;
use crate::LoadError;
use crate::linear::Linear;
use crate::ops::{self, Norm, Ops};
use crate::weight_source::Source;
use gq_checkpoint::{Activation, AttentionSpec, LayerSpec, NormPlacement, Part};

#[derive(Debug)]
pub(crate) struct Attention {
    pub(crate) operator: ops::Attention,
    /// The layer whose keys and values are read.
    cache: usize,
    pub(crate) query: Linear,
    pub(crate) query_norm: Option<Norm>,
    /// `None`: another layer's cache is read.
    pub(crate) keys_values: Option<KeysValues>,
    gate: Option<Linear>,
    pub(crate) output: Linear,
}

#[derive(Debug)]
pub(crate) struct KeysValues {
    pub(crate) key: Linear,
    pub(crate) key_norm: Option<Norm>,
    /// `None`: values are the key projection's output.
    pub(crate) value: Option<Linear>,
    pub(crate) value_norm: Option<Norm>,
}

impl Attention {
    pub(crate) fn load(layer: &LayerSpec, index: usize, source: &mut Source) -> Result<Attention, LoadError> {
        let (spec, at) = (layer.attention.clone(), Some(index));
        Ok(Attention {
            cache: spec.kv_shared_with.unwrap_or(index),
            query: source.linear(Part::Query, at)?,
            query_norm: spec.qk_norm.then(|| source.norm(Part::QueryNorm, at)).transpose()?,
            keys_values: match spec.kv_shared_with {
                None => Some(KeysValues::load(&spec, at, source)?),
                Some(_) => None,
            },
            gate: spec.output_gate.then(|| source.linear(Part::OutputGate, at)).transpose()?,
            output: match layer.norms {
                NormPlacement::Pre => source.linear(Part::Output, at)?,
                NormPlacement::PreAndPost => source.normed_linear(Part::Output, at)?,
            },
            operator: ops::Attention {
                sinks: spec.sinks.then(|| source.vector(Part::Sinks, at)).transpose()?,
                spec,
            },
        })
    }

    /// `[tokens, hidden]` to the same shape.
    pub(crate) fn forward<O: Ops>(&self, ops: &mut O, x: &O::Value) -> O::Value {
        let rope = self.operator.spec.rope;
        let (q, new) = match &self.keys_values {
            Some(part) => {
                let (q, k, v) = part.project(ops, x, &self.query); // [tokens, (kv_)heads * head_dim]
                let k = normed(ops, k, part.key_norm.as_ref()); // [tokens, kv_heads * head_dim]
                let k = ops.rope(k, rope); // [tokens, kv_heads * head_dim]
                (q, Some((k, v)))
            }
            None => {
                let [q] = ops.linear(x, [&self.query]); // [tokens, heads * head_dim]
                (q, None)
            }
        };
        let q = normed(ops, q, self.query_norm.as_ref()); // [tokens, heads * head_dim]
        let q = ops.rope(q, rope); // [tokens, heads * head_dim]
        let mut y = ops.attention(q, new, self.cache, &self.operator); // [tokens, heads * head_dim]
        if let Some(gate) = &self.gate {
            let [gate] = ops.linear(x, [gate]); // [tokens, heads * head_dim]
            y = ops.gated(Activation::SIGMOID, gate, &y); // [tokens, heads * head_dim]
        }
        let [y] = ops.linear(&y, [&self.output]); // [tokens, hidden]
        y
    }
}

impl KeysValues {
    fn load(spec: &AttentionSpec, at: Option<usize>, source: &mut Source) -> Result<KeysValues, LoadError> {
        Ok(KeysValues {
            key: source.linear(Part::Key, at)?,
            key_norm: spec.qk_norm.then(|| source.norm(Part::KeyNorm, at)).transpose()?,
            value: match spec.k_eq_v {
                true => None,
                false => Some(source.linear(Part::Value, at)?),
            },
            value_norm: spec.v_norm.then(|| source.plain_norm(spec.head_dim)),
        })
    }

    /// Queries and keys before their norms, values after theirs.
    fn project<O: Ops>(&self, ops: &mut O, x: &O::Value, query: &Linear) -> (O::Value, O::Value, O::Value) {
        match (&self.value, &self.value_norm) {
            (Some(value), norm) => {
                let [q, k, v] = ops.linear(x, [query, &self.key, value]); // [tokens, (kv_)heads * head_dim]
                let v = normed(ops, v, norm.as_ref()); // [tokens, kv_heads * head_dim]
                (q, k, v)
            }
            (None, Some(norm)) => {
                let [q, k] = ops.linear(x, [query, &self.key]); // [tokens, (kv_)heads * head_dim]
                let v = ops.rms_norm(&k, norm); // [tokens, kv_heads * head_dim]
                (q, k, v)
            }
            (None, None) => {
                let [q, k, v] = ops.linear(x, [query, &self.key, &self.key]); // [tokens, (kv_)heads * head_dim]
                (q, k, v)
            }
        }
    }
}
