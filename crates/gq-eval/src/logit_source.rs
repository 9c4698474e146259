//! Where logits come from.

use gq_model::{KvCache, KvType, LogitRows, Model, ModelError};
use std::ops::Range;

/// Something that gives logits to a sequence of tokens.
pub trait LogitSource {
    /// Entries of a row of logits.
    fn vocab_size(&self) -> usize;

    /// Forgets what came before and begins a sequence of up to `max_tokens` tokens.
    fn begin(&mut self, max_tokens: usize);

    /// Continues the sequence by `tokens` and replaces `out` by the logits `[rows.len(), vocab_size]` of some of them.
    ///
    /// # Errors
    /// When the tokens cannot be run.
    fn forward(&mut self, tokens: &[u32], rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), ModelError>;
}

/// A model's logits, with its options but the storage of keys and values.
#[derive(Debug)]
pub struct ModelLogits<'a> {
    model: &'a Model,
    kv: KvType,
    cache: KvCache,
}

impl<'a> ModelLogits<'a> {
    /// As the model computes by itself.
    pub fn new(model: &'a Model) -> ModelLogits<'a> {
        ModelLogits::with_kv(model, model.options().kv)
    }

    /// With keys and values stored as `kv`.
    pub fn with_kv(model: &'a Model, kv: KvType) -> ModelLogits<'a> {
        ModelLogits { model, kv, cache: model.new_cache_of(0, kv) }
    }
}

impl LogitSource for ModelLogits<'_> {
    fn vocab_size(&self) -> usize {
        self.model.vocab_size()
    }

    fn begin(&mut self, max_tokens: usize) {
        self.cache = self.model.new_cache_of(max_tokens, self.kv);
    }

    fn forward(&mut self, tokens: &[u32], rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), ModelError> {
        self.model.forward(tokens, &mut self.cache, LogitRows::Range(rows), out)
    }
}
