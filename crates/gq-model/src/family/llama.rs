//! Llama: grouped-query attention and a gated MLP, each behind one norm.

use super::Residual;
use crate::LoadError;
use crate::linear::Linear;
use crate::ops::{Norm, Ops};
use crate::source::Source;
use gq_checkpoint::{AttentionSpec, LayerSpec, MlpSpec, ModelSpec, Part};

#[derive(Debug)]
pub(crate) struct Llama {
    embedding: Linear,
    pub(super) layers: Vec<Layer>,
    norm: Norm,
    /// `None`: the embedding is the head.
    head: Option<Linear>,
}

#[derive(Debug)]
pub(super) struct Layer {
    index: usize,
    attention: AttentionSpec,
    input_norm: Norm,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    post_attention_norm: Norm,
    mlp: MlpSpec,
    gate: Linear,
    up: Linear,
    down: Linear,
}

impl Llama {
    pub(crate) fn load(spec: &ModelSpec, source: &mut Source) -> Result<Llama, LoadError> {
        let layers = spec.layers.iter().enumerate();
        Ok(Llama {
            embedding: source.matrix(Part::Embedding, None)?,
            layers: layers
                .map(|(index, layer)| Layer::load(index, layer, source))
                .collect::<Result<_, _>>()?,
            norm: source.norm(Part::FinalNorm, None)?,
            head: match spec.tied_head {
                true => None,
                false => Some(source.matrix(Part::Head, None)?),
            },
        })
    }

    pub(crate) fn start<O: Ops>(&self, ops: &mut O, tokens: &[u32]) -> Residual<O::Value> {
        let x = ops.embed(&self.embedding, tokens); // [tokens, hidden]
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
        logits
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
            output: source.linear(Part::Output, at)?,
            post_attention_norm: source.norm(Part::MlpNorm, at)?,
            gate: source.linear(Part::Gate, at)?,
            up: source.linear(Part::Up, at)?,
            down: source.linear(Part::Down, at)?,
            attention,
            mlp,
        })
    }

    fn forward<O: Ops>(&self, ops: &mut O, x: O::Value) -> O::Value {
        let h = ops.rms_norm(&x, &self.input_norm); // [tokens, hidden]
        let [q, k, v] = ops.linear(&h, [&self.query, &self.key, &self.value]); // [tokens, (kv_)heads * head_dim]
        let q = ops.rope(q, self.attention.rope); // [tokens, heads * head_dim]
        let k = ops.rope(k, self.attention.rope); // [tokens, kv_heads * head_dim]
        let h = ops.attention(q, Some((k, v)), self.index, &self.attention); // [tokens, heads * head_dim]
        let [h] = ops.linear(&h, [&self.output]); // [tokens, hidden]
        let x = ops.add(x, &h); // [tokens, hidden]

        let h = ops.rms_norm(&x, &self.post_attention_norm); // [tokens, hidden]
        let [gate, up] = ops.linear(&h, [&self.gate, &self.up]); // [tokens, width]
        let h = ops.gated(self.mlp.activation, gate, &up); // [tokens, width]
        let [h] = ops.linear(&h, [&self.down]); // [tokens, hidden]
        ops.add(x, &h) // [tokens, hidden]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{KvCache, KvType};
    use crate::eager::{ActivationMode, Eager, Turns};
    use crate::source::Decoded;
    use gq_checkpoint::Checkpoint;
    use gq_tensor::Isa;
    use safetensors::SafeTensors;
    use std::path::Path;
    use std::sync::Arc;

    /// Largest error of the logits of Qwen2's tiny checkpoint under a change of its layers, in what parity tolerates.
    fn error(change: fn(&mut Layer)) -> f64 {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/qwen2");
        let facts = std::fs::read_to_string(dir.join("reference.json")).unwrap();
        let floor =
            serde_json::from_str::<serde_json::Value>(&facts).unwrap()["floor_max_abs"].as_f64().unwrap();
        let reference = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let reference = SafeTensors::deserialize(&reference).unwrap();
        let words = |name: &str| -> Vec<[u8; 8]> {
            let data = reference.tensor(name).unwrap().data().to_vec();
            data.chunks_exact(8).map(|word| word.try_into().unwrap()).collect()
        };
        let tokens = reference.tensor("input_ids").unwrap().shape()[1];
        let ids: Vec<u32> = words("input_ids").into_iter().map(|id| i64::from_le_bytes(id) as u32).collect();
        let logits = words("logits").into_iter().map(f64::from_le_bytes);

        let checkpoint = Arc::new(Checkpoint::open(&dir).unwrap());
        let spec = checkpoint.spec().clone();
        let mut graph =
            Llama::load(&spec, &mut Source::checkpoint(checkpoint, Decoded::Held).unwrap()).unwrap();
        graph.layers.iter_mut().for_each(change);
        let mut actual = Vec::new();
        for tokens in ids.chunks(tokens) {
            let turns: Vec<_> = spec.ropes.iter().map(|rope| Turns::new(rope, 0, tokens.len())).collect();
            let mut cache = KvCache::new(&spec, tokens.len(), KvType::F32);
            let (level, activations) = (Isa::detect(), ActivationMode::F32);
            let mut ops = Eager { level, activations, cache: &mut cache, turns: &turns, start: 0 };
            let Residual { mut x, .. } = graph.start(&mut ops, tokens);
            for index in 0..graph.layers.len() {
                x = graph.layer(&mut ops, index, x);
            }
            actual.extend(graph.logits(&mut ops, &x).data);
        }
        let errors =
            actual.iter().zip(logits).map(|(actual, expected)| (f64::from(*actual) - expected).abs());
        errors.fold(0.0, f64::max) / (3.0 * floor)
    }

    #[test]
    fn parity_notices_every_missing_bias_and_one_too_many() {
        assert!(error(|_| {}) <= 1.0, "{}", error(|_| {}));
        type Change = fn(&mut Layer);
        let drop: [(&str, Change); 4] = [
            ("query", |layer| layer.query.bias = None),
            ("key", |layer| layer.key.bias = None),
            ("value", |layer| layer.value.bias = None),
            ("output", |layer| layer.output.bias = Some(vec![0.1; layer.output.shape().rows])),
        ];
        for (name, change) in drop {
            let error = error(change);
            assert!(error > 30.0, "{name}: {error}");
        }
    }
}
