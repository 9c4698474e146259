//! Keys and values: however tokens come, the logits are those of one batch.

use crate::fixtures::{Reference, TINY, difference, exact, prefill, tiny_model};
use gq_model::{KvType, LogitRows, Model, RunOptions};
use gq_tensor::Isa;

/// Logits of `tokens` given in pieces of these lengths, cyclically.
fn in_pieces(model: &Model, tokens: &[u32], pieces: &[usize]) -> Vec<f32> {
    let mut cache = model.new_cache(tokens.len());
    let (mut all, mut logits, mut rest) = (Vec::new(), Vec::new(), tokens);
    for &piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at(piece.min(rest.len()));
        model.forward(now, &mut cache, LogitRows::All, &mut logits).unwrap();
        all.extend_from_slice(&logits);
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    assert_eq!(cache.len(), tokens.len());
    all
}

/// Windows of 16 and rows of 56 tokens: the rings wrap three times. Differences are relative to the largest logit.
#[test]
fn one_by_one_and_in_pieces_as_all_at_once() {
    for name in TINY {
        let model = tiny_model(name, exact(Isa::detect()));
        for tokens in Reference::read(name).rows {
            let expected = prefill(&model, &tokens);
            let largest = expected.iter().fold(0f32, |max, logit| max.max(logit.abs()));
            for pieces in [&[1][..], &[2], &[7, 1, 1], &[16], &[17], &[20, 30, 1], &[55, 1], &[1, 55]] {
                let error = difference(&in_pieces(&model, &tokens, pieces), &expected) / f64::from(largest);
                assert!(error <= 1e-5, "{name} in pieces of {pieces:?}: {error:e}");
            }
        }
    }
}

#[test]
fn a_cleared_cache_is_as_new() {
    let model = tiny_model("gemma3", exact(Isa::detect()));
    let rows = Reference::read("gemma3").rows;
    let (mut cache, mut logits) = (model.new_cache(56), Vec::new());
    model.forward(&rows[0], &mut cache, LogitRows::Last, &mut logits).unwrap();
    cache.clear();
    model.forward(&rows[1], &mut cache, LogitRows::All, &mut logits).unwrap();
    assert_eq!(logits, prefill(&model, &rows[1]));
}

#[test]
fn half_precision_is_close_and_half_the_memory() {
    for name in ["llama", "gemma4-e2b"] {
        let options = exact(Isa::detect());
        let (full, half) =
            (tiny_model(name, options), tiny_model(name, RunOptions { kv: KvType::F16, ..options }));
        let tokens = &Reference::read(name).rows[0];
        let error = difference(&in_pieces(&half, tokens, &[20, 1, 1]), &prefill(&full, tokens));
        assert!(error > 0.0 && error < 0.1, "{name}: {error:e}");
        assert_eq!(2 * half.new_cache(56).bytes(), full.new_cache(56).bytes());
    }
}

#[test]
fn int8_is_close_and_little_more_than_a_quarter() {
    for name in ["llama", "gemma3", "gemma4-e2b"] {
        let options = exact(Isa::detect());
        let of = |kv| tiny_model(name, RunOptions { kv, ..options });
        let (full, half, int8) = (of(KvType::F32), of(KvType::F16), of(KvType::Q8));
        let tokens = &Reference::read(name).rows[0];
        let exact = prefill(&full, tokens);
        let error = |model| difference(&in_pieces(model, tokens, &[20, 1, 1, 7]), &exact);
        // Eight bits are further away than eleven, and nearer than a lost position would be.
        let (half, eight) = (error(&half), error(&int8));
        assert!(eight > half && eight < 0.5, "{name}: {eight:e} {half:e}");
        let (full, int8) = (full.new_cache(56).bytes(), int8.new_cache(56).bytes());
        assert!(int8 <= full / 4 + full / 32, "{name}: {int8} of {full}");
    }
}

/// Sliding layers hold a window, layers that share hold nothing: of the E2B variant's layers
/// (sliding, sliding, full, sliding shared, full shared) three have caches.
#[test]
fn nothing_is_stored_that_is_not_read() {
    let model = tiny_model("gemma4-e2b", exact(Isa::detect()));
    let per_token = |head_dim: usize| 2 * 4 * head_dim;
    assert_eq!(model.new_cache(100).bytes(), 2 * 16 * per_token(16) + 100 * per_token(32));
    assert_eq!(model.new_cache(10).bytes(), 2 * 10 * per_token(16) + 10 * per_token(32));
}

#[test]
fn logits_of_some_rows() {
    let model = tiny_model("llama", exact(Isa::detect()));
    let tokens = &Reference::read("llama").rows[0];
    let (all, vocab) = (prefill(&model, tokens), model.vocab_size());
    let last = tokens.len() - 1;
    for (rows, range) in [
        (LogitRows::Last, last..last + 1),
        (LogitRows::Range(3..9), 3..9),
        (LogitRows::Range(5..5), 5..5),
        (LogitRows::All, 0..tokens.len()),
    ] {
        let mut logits = vec![1.0; 3];
        model.forward(tokens, &mut model.new_cache(56), rows, &mut logits).unwrap();
        let expected = &all[range.start * vocab..range.end * vocab];
        assert_eq!(logits.len(), expected.len());
        // A single row takes the other way to multiply.
        assert!(difference(&logits, expected) < 1e-4);
    }
}
