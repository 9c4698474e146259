//! What a batch is made of must not matter: tokens at once or one by one, sequences alone or together.

use gq_model::cpu::{ActivationMode, Batch, Sums};
use gq_model::{KvCache, KvType, LogitRows, Ops, Turn, argmax};
use gq_suite::{
    Backend, Case, Cpu, EXTRAS, MatrixF64, ROPE, STORED, allowed, error, levels, on, run_wide, specification,
    tiny,
};
use gq_tensor::Isa;

const SUMS: [Sums; 2] = [Sums::Fastest(ActivationMode::F32), Sums::Deterministic];

fn part(x: &MatrixF64, rows: std::ops::Range<usize>) -> MatrixF64 {
    MatrixF64 { width: x.width, data: x.data[rows.start * x.width..rows.end * x.width].to_vec() }
}

/// With a window, the ring wraps several times.
#[test]
fn attention_of_one_token_after_the_other_is_its_definition() {
    for (level, extra) in levels().into_iter().flat_map(|level| EXTRAS.map(|extra| (level, extra))) {
        let case = Case::Attention(extra);
        let inputs = case.inputs(23);
        let [expected] = run_wide(&case, &inputs).try_into().unwrap();
        for (sums, (kv, rounding)) in
            SUMS.into_iter().flat_map(|sums| STORED.iter().map(move |kv| (sums, *kv)))
        {
            let mut cache = KvCache::new(&specification(&case), 23, kv);
            let mut actual = Vec::new();
            for token in 0..23 {
                let mut ops = Batch::new(level, sums, &[], vec![(1, &mut cache)]);
                let row: Vec<MatrixF64> = inputs.iter().map(|x| part(x, token..token + 1)).collect();
                actual.extend(on(&mut ops, &case, &row).remove(0).data);
                ops.advance();
            }
            let kind = Cpu(sums, kv);
            let (error, limit) = (error(&actual, &expected.data), allowed("attention", kind) + rounding);
            assert!(error <= limit, "{extra:?} {kind:?} {}: {error:e} > {limit:e}", level.name());
        }
    }
}

/// The same bits, whatever else is in the batch.
#[test]
fn sequences_do_not_see_each_other() {
    for (sums, extra) in SUMS.into_iter().flat_map(|sums| EXTRAS.map(|extra| (sums, extra))) {
        let case = Case::Attention(extra);
        let (inputs, counts) = (case.inputs(24), [9, 1, 14]);
        let new = || counts.map(|count| KvCache::new(&specification(&case), count, KvType::F16));
        let (mut together, mut alone) = (new(), new());
        let sequences = counts.into_iter().zip(&mut together).collect();
        let mut ops = Batch::new(Isa::detect(), sums, std::slice::from_ref(&*ROPE), sequences);
        let all = on(&mut ops, &case, &inputs).remove(0);
        let q = ops.value(&inputs[0]);
        let turned = MatrixF64::from(&ops.rope(q, 0));
        let mut start = 0;
        for (count, cache) in counts.into_iter().zip(&mut alone) {
            let rows = start..start + count;
            let mut ops = Batch::new(Isa::detect(), sums, std::slice::from_ref(&*ROPE), vec![(count, cache)]);
            let own: Vec<MatrixF64> = inputs.iter().map(|x| part(x, rows.clone())).collect();
            assert_eq!(
                on(&mut ops, &case, &own)[0].data,
                part(&all, rows.clone()).data,
                "{extra:?} {sums:?}"
            );
            let q = ops.value(&own[0]);
            let own = MatrixF64::from(&ops.rope(q, 0));
            assert_eq!(own.data, part(&turned, rows).data);
            start += count;
        }
    }
}

const TINY: [&str; 6] = ["llama", "qwen2", "gemma3", "gemma4-e2b", "gemma4-moe", "gemma4-dense"];

/// Ragged prompts, more than a batch together and one more than a batch alone, then single tokens, beyond the window:
/// side by side as inference does it one by one.
#[test]
fn together_as_alone() {
    for name in TINY {
        let model = tiny(name, Isa::detect());
        let token = |i: usize| (i * i * 7 + 3 * i + 5) as u32 % model.vocab_size() as u32;
        let lengths = [3, 17, 1, 40, 300, 250, 600, 2];
        let prompts = lengths.map(|length| (length..2 * length).map(token).collect::<Vec<u32>>());
        let mut caches: Vec<_> = prompts.iter().map(|_| model.new_cache(640)).collect();
        let mut alone: Vec<_> = prompts.iter().map(|_| model.new_cache(640)).collect();
        let mut new = prompts.clone();
        for step in 0..12 {
            let given = new.iter().map(Vec::as_slice).zip(&mut caches).collect();
            let together = model.forward_deterministic(given).unwrap();
            let rows = together.data.chunks_exact(together.width);
            for ((row, tokens), cache) in rows.zip(&mut new).zip(&mut alone) {
                let mut logits = Vec::new();
                model.forward(tokens, cache, LogitRows::Last, &mut logits).unwrap();
                let error = row.iter().zip(&logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error < 5e-4, "{name}, step {step}: {error:e}");
                *tokens = vec![argmax(&logits)];
            }
        }
    }
}

/// Turns together, some of which want no logits: deterministic sums have the bits of each alone, however its tokens were
/// cut, and the fastest agree to rounding.
#[test]
fn turns_have_the_logits_that_each_has_alone() {
    for name in TINY {
        let model = tiny(name, Isa::detect());
        let token = |i: usize| (i * i * 7 + 3 * i + 5) as u32 % model.vocab_size() as u32;
        let prompts = [1, 37, 6, 90].map(|length| (length..2 * length).map(token).collect::<Vec<u32>>());
        for (sums, limit) in SUMS.into_iter().zip([5e-4, 0.0]) {
            let new = || prompts.iter().map(|_| model.new_cache(128)).collect::<Vec<_>>();
            let (mut together, mut alone) = (new(), new());
            // First parts of two of them, which want nothing.
            let cut = |index: usize| if index % 2 == 1 { 30 } else { 0 };
            let turns = |from: &dyn Fn(usize) -> usize, to: &dyn Fn(usize) -> usize, logits: bool| {
                let given = prompts.iter().enumerate().map(|(index, all)| &all[from(index)..to(index)]);
                given.map(|tokens| (tokens.to_vec(), logits)).collect::<Vec<_>>()
            };
            let first = turns(&|_| 0, &cut, false);
            let rest = turns(&cut, &|index| prompts[index].len(), true);
            let mut logits = gq_model::Matrix::default();
            for part in [first, rest] {
                let given = part.iter().zip(&mut together).filter(|((tokens, _), _)| !tokens.is_empty());
                let turns = given.map(|((tokens, logits), cache)| Turn { tokens, cache, logits: *logits });
                logits = model.forward_together(sums, turns.collect()).unwrap();
            }
            assert_eq!(logits.data.len(), prompts.len() * model.vocab_size());
            for ((row, tokens), cache) in logits.data.chunks_exact(logits.width).zip(&prompts).zip(&mut alone)
            {
                let own = model.forward_together(sums, vec![Turn { tokens, cache, logits: true }]).unwrap();
                let error = row.iter().zip(&own.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(error <= limit, "{name} {sums:?}: {error:e}");
            }
            // Nothing is run where one of them cannot be.
            let lengths: Vec<usize> = together.iter().map(KvCache::len).collect();
            let [a, b, ..] = together.as_mut_slice() else { panic!() };
            let wrong = [(&[1u32][..], a), (&[u32::MAX][..], b)];
            let turns = wrong.into_iter().map(|(tokens, cache)| Turn { tokens, cache, logits: true });
            assert!(model.forward_together(sums, turns.collect()).is_err());
            assert_eq!(together.iter().map(KvCache::len).collect::<Vec<_>>(), lengths);
        }
        assert!(model.forward_together(Sums::Deterministic, Vec::new()).unwrap().data.is_empty());
    }
}
