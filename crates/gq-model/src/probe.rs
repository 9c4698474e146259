//! Some layers and the head on a few tokens: whether stored weights can be computed with, without reading all of them.

use crate::cache::KvCache;
use crate::cpu::Sums;
use crate::matrix::Matrix;
use crate::model::Model;
use crate::sampler::argmax;
use crate::{ModelError, RunOptions};
use gq_checkpoint::{LayerSpec, ModelSpec};

impl Model {
    /// One layer of each kind, in order: those that differ in anything but their weights, and the layers whose keys and
    /// values they read.
    pub fn layers_of_each_kind(&self) -> Vec<usize> {
        of_each_kind(self.spec())
    }

    /// Runs `tokens` one after the other through these layers alone, in order, and the head, and gives the likeliest next
    /// token. With all layers it is the model's; with fewer it is only a number that came out.
    ///
    /// # Errors
    /// For no tokens, tokens beyond the vocabulary, and logits that are not finite.
    pub fn probe(&self, tokens: &[u32], layers: &[usize]) -> Result<u32, ModelError> {
        self.check_tokens(tokens)?;
        let RunOptions { activations, kv, .. } = self.options();
        let mut cache = KvCache::new(self.spec(), tokens.len(), kv);
        let mut logits = Matrix::default();
        // One token multiplies codes as they are: no matrix is decoded.
        for token in tokens {
            let mut ops = self.ops(Sums::Fastest(activations), vec![(1, &mut cache)]);
            let stream = self.graph().start(&mut ops, &[*token]);
            let mut x = stream.x;
            for &layer in layers {
                x = self.graph().layer(&mut ops, layer, x, stream.per_layer.as_ref());
            }
            logits = self.graph().logits(&mut ops, &x);
            ops.advance();
        }
        self.check_logits(&logits.data)?;
        Ok(argmax(&logits.data))
    }
}

fn of_each_kind(spec: &ModelSpec) -> Vec<usize> {
    // Which layer's keys are read is no kind, whether another's are is one.
    let kind = |layer: &LayerSpec| {
        let mut kind = layer.clone();
        kind.attention.kv_shared_with = layer.attention.kv_shared_with.map(|_| 0);
        kind
    };
    let mut kinds: Vec<LayerSpec> = Vec::new();
    let mut chosen = Vec::new();
    for (index, layer) in spec.layers.iter().enumerate() {
        let kind = kind(layer);
        if !kinds.contains(&kind) {
            kinds.push(kind);
            chosen.extend(layer.attention.kv_shared_with);
            chosen.push(index);
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    chosen
}
