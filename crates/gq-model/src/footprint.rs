//! Memory of a running model in addition to its weights, from its specification alone.

use crate::cache::{KV_GROUP, KvType};
use gq_checkpoint::ModelSpec;

/// Tokens that pass through the layers together.
const BATCH: u64 = 512;

/// Program, headers, decoded tiles.
const BASE: u64 = 48 << 20;

/// A thread's stack, decoded tiles and packed operands.
const THREAD: u64 = 3 << 20;

/// Bytes that reading a tokenizer takes for each entry of the vocabulary: 640 to 1600 were measured.
const VOCABULARY_ENTRY: u64 = 1600;

/// Queries whose scores a thread holds.
const QUERIES: u64 = 32;

/// Bytes of keys and values of one sequence of `tokens` tokens: a ring of the window's length on layers that have
/// one, nothing on layers that read another's.
pub fn kv_cache_bytes(spec: &ModelSpec, tokens: usize, kind: KvType) -> u64 {
    let head = |dim: usize| match kind {
        KvType::F32 => 4 * dim as u64,
        KvType::F16 => 2 * dim as u64,
        KvType::Q8 => (dim + 2 * dim.div_ceil(KV_GROUP)) as u64,
    };
    let layers = spec.layers.iter().map(|layer| &layer.attention);
    let own = layers.filter(|attention| attention.kv_shared_with.is_none());
    let bytes = own.map(|attention| {
        let slots = attention.window.map_or(tokens, |window| window.min(tokens)).max(1);
        2 * attention.kv_heads as u64 * head(attention.head_dim) * slots as u64
    });
    bytes.sum()
}

/// Bytes of everything else with `context` tokens in the cache: activations of one batch at the widest layer, logits,
/// the tokenizer, keys and values of a batch that passes a window, and each thread's scores and unpacked heads.
pub fn work_bytes(spec: &ModelSpec, context: usize, kind: KvType, threads: usize) -> u64 {
    let widest = spec.layers.iter().map(|layer| {
        // Gate and up rows of all chosen experts, whole and in halves, or their results.
        let experts =
            layer.moe.map_or(0, |moe| (4 * moe.width).max(moe.width + spec.hidden_size) * moe.router.top_k);
        let attention = layer.attention.q_width() + 2 * layer.attention.kv_width();
        (3 * layer.dense_width() + experts).max(2 * attention)
    });
    let per_layer = spec.per_layer_embedding.map_or(0, |ple| 2 * ple.width * spec.layers.len());
    let per_token = 4 * spec.hidden_size + widest.max().unwrap_or(0) + per_layer;
    let attention = || spec.layers.iter().map(|layer| &layer.attention);
    let windowed = attention().filter(|attention| attention.kv_shared_with.is_none());
    let windowed = windowed.filter_map(|attention| {
        let window = attention.window.filter(|window| *window < context)?;
        Some(2 * attention.kv_width() as u64 * (window as u64 + BATCH))
    });
    let head = attention().map(|attention| {
        let slots = attention.window.map_or(context, |window| window.min(context)) as u64;
        2 * slots * attention.head_dim as u64
    });
    let unpacked = if kind == KvType::F32 { 0 } else { head.max().unwrap_or(0) };
    let per_thread = 4 * (QUERIES * context as u64 + unpacked) + THREAD;
    BASE + VOCABULARY_ENTRY * spec.vocab_size as u64
        + 4 * (BATCH * per_token as u64 + 2 * spec.vocab_size as u64 + windowed.sum::<u64>())
        + threads as u64 * per_thread
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActivationMode, Model, RunOptions};
    use gq_checkpoint::Checkpoint;
    use gq_tensor::Isa;
    use std::path::Path;
    use std::sync::Arc;

    #[test]
    fn what_is_stated_is_what_a_cache_takes() {
        for name in ["llama", "qwen2", "qwen3-moe", "gemma3", "gemma4-e2b", "gemma4-moe", "gemma4-dense"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name);
            let options =
                RunOptions { level: Isa::detect(), activations: ActivationMode::F32, kv: KvType::F16 };
            let model = Model::from_checkpoint(Arc::new(Checkpoint::open(path).unwrap()), options).unwrap();
            for (tokens, kv) in
                [1, 7, 100].into_iter().flat_map(|n| [KvType::F32, KvType::F16, KvType::Q8].map(|kv| (n, kv)))
            {
                let stated = kv_cache_bytes(model.spec(), tokens, kv);
                assert_eq!(stated, model.new_cache_of(tokens, kv).bytes() as u64, "{name} {tokens} {kv:?}");
            }
        }
    }
}
