//! What a batch is made of must not matter: tokens at once or one by one, sequences alone or together.

use super::backends::{Backend, on, run_wide, wide};
use super::cases::{Case, EXTRAS, ROPE, specification};
use super::{STORED, allowed, error, levels};
use crate::cache::KvCache;
use crate::cpu::{ActivationMode, Batch, Sums};
use crate::fixed::{Observation, Wide};
use crate::measure::CalibrationPass;
use crate::model::{Model, RunOptions};
use gq_checkpoint::Checkpoint;
use gq_tensor::Isa;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const SUMS: [Sums; 2] = [Sums::Fastest(ActivationMode::F32), Sums::Fixed];

fn part(x: &Wide, rows: std::ops::Range<usize>) -> Wide {
    Wide { width: x.width, data: x.data[rows.start * x.width..rows.end * x.width].to_vec() }
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
                let row: Vec<Wide> = inputs.iter().map(|x| part(x, token..token + 1)).collect();
                actual.extend(on(&mut ops, &case, &row).remove(0).data);
                ops.advance();
            }
            let kind = super::Kind::Cpu(sums, kv);
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
        let new = || counts.map(|count| KvCache::new(&specification(&case), count, super::KvType::F16));
        let (mut together, mut alone) = (new(), new());
        let sequences = counts.into_iter().zip(&mut together).collect();
        let mut ops = Batch::new(Isa::detect(), sums, std::slice::from_ref(&*ROPE), sequences);
        let all = on(&mut ops, &case, &inputs).remove(0);
        let q = ops.value(&inputs[0]);
        let turned = wide(&crate::ops::Ops::rope(&mut ops, q, 0));
        let mut start = 0;
        for (count, cache) in counts.into_iter().zip(&mut alone) {
            let rows = start..start + count;
            let mut ops = Batch::new(Isa::detect(), sums, std::slice::from_ref(&*ROPE), vec![(count, cache)]);
            let own: Vec<Wide> = inputs.iter().map(|x| part(x, rows.clone())).collect();
            assert_eq!(
                on(&mut ops, &case, &own)[0].data,
                part(&all, rows.clone()).data,
                "{extra:?} {sums:?}"
            );
            let q = ops.value(&own[0]);
            let own = wide(&crate::ops::Ops::rope(&mut ops, q, 0));
            assert_eq!(own.data, part(&turned, rows).data);
            start += count;
        }
    }
}

/// A device keeps its copies by these numbers.
#[test]
fn weights_have_ids_of_their_own() {
    for name in ["llama", "qwen3-moe", "gemma4-moe"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name);
        let model =
            Model::from_checkpoint(Arc::new(Checkpoint::open(path).unwrap()), RunOptions::default()).unwrap();
        let mut names = BTreeMap::new();
        let mut ids = BTreeMap::new();
        let mut note = |seen: Observation<'_>| {
            for weight in seen.weights {
                assert_eq!(names.entry(weight.id()).or_insert(weight.name().to_owned()), weight.name());
                assert_eq!(*ids.entry(weight.name().to_owned()).or_insert(weight.id()), weight.id());
            }
        };
        let mut pass = CalibrationPass::new(&model, vec![vec![1, 2, 3]]).unwrap();
        while pass.next_layer(&mut note).unwrap() {}
        assert!(names.len() > 6 * pass.layers(), "{name}");
    }
}
