//! Scales and norms tuned after rounding.

use crate::support::{convert, policy, testdata};
use gq_container::{Container, ScalesTuned};
use gq_convert::{ScalesError, ScalesOptions, TunedScales, tune_scales};
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_tensor::{Encoding, Isa};
use std::path::Path;
use std::sync::Arc;

const OPTIONS: ScalesOptions = ScalesOptions { steps: 12, batch: 2, rate: 2e-3 };

fn sequences(vocab: usize, count: usize) -> Vec<Vec<u32>> {
    let next = |i: usize, seed: usize| ((i + seed) * (i + 3 * seed + 7) * 31 % vocab) as u32;
    (0..count).map(|seed| (0..48).map(|i| next(i, seed)).collect()).collect()
}

/// Tunes the scales of `tiny` rounded to `encoding`, on `level` and `threads`; the result's file is at `out`.
fn scales_tuned(
    tiny: &str,
    encoding: &str,
    out: &Path,
    level: Isa,
    threads: usize,
) -> (TunedScales, Container) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let checkpoint = testdata(tiny);
    let (_, container) = convert(&checkpoint, &policy(encoding, &[]), out).unwrap();
    let container = Arc::new(container);
    let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
    let reference = Model::from_checkpoint(Arc::new(checkpoint), options).unwrap();
    let model = Model::from_container(container.clone(), options).unwrap();
    let sequences = sequences(model.vocab_size(), 16);
    let outcome = pool
        .install(|| tune_scales(&reference, &model, &container, &sequences, OPTIONS, &mut |_| ()))
        .unwrap();
    let what = ScalesTuned { text_sha256: gq_container::Digest::ZERO, ctx: 48, batch: 2, steps: 12 };
    let path = out.with_extension("tuned.gq");
    outcome.write(&container, &model, Some(what), &path).unwrap();
    (outcome, Container::open(&path).unwrap())
}

#[test]
fn held_out_text_gets_closer_at_the_same_codes() {
    let dir = tempfile::tempdir().unwrap();
    for (tiny, encoding) in [("tiny/llama", "tq3"), ("tiny/gemma3", "tt3"), ("tiny/gemma4-e2b", "tq3")] {
        let out = dir.path().join("a.gq");
        let (outcome, scales_tuned) = scales_tuned(tiny, encoding, &out, Isa::detect(), 2);
        assert!(outcome.helps(), "{tiny}: {} {}", outcome.before, outcome.after);
        let plain = Container::open(&out).unwrap();
        let mut changed = (0, 0);
        for (before, after) in plain.tensors().iter().zip(scales_tuned.tensors()) {
            assert_eq!((&before.name, before.bytes), (&after.name, after.bytes), "{tiny}");
            let (a, b) = (plain.payload(before), scales_tuned.payload(after));
            if before.encoding.is_exact() {
                changed.0 += usize::from(a != b);
                continue;
            }
            let codes = plain.matrix(before).unwrap().codes().len();
            assert_eq!(a[..codes], b[..codes], "{tiny}: codes of {}", before.name);
            changed.1 += usize::from(a != b);
        }
        assert!(changed.0 > 2 && changed.1 > 6, "{tiny}: {changed:?}");
        scales_tuned.verify(|_, _| ()).unwrap();
        assert_eq!(scales_tuned.provenance().unwrap().unwrap().scales_tuned.unwrap().steps, 12);
    }
}

/// What was promised on held-out text is what the written file does.
#[test]
fn the_file_holds_the_factors_that_were_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (outcome, scales_tuned) =
        scales_tuned("tiny/gemma3", "tt3", &dir.path().join("a.gq"), Isa::detect(), 2);
    let options = RunOptions { level: Isa::detect(), activations: ActivationMode::F32, kv: KvType::F32 };
    let reference = Model::from_checkpoint(Arc::new(testdata("tiny/gemma3")), options).unwrap();
    let model = Model::from_container(Arc::new(scales_tuned), options).unwrap();
    let sequences = sequences(model.vocab_size(), 16);
    // Nothing is left to tune without a step: what it measures before is what the file does.
    let none = ScalesOptions { steps: 0, ..OPTIONS };
    let container = Container::open(&dir.path().join("a.tuned.gq")).unwrap();
    let again = tune_scales(&reference, &model, &container, &sequences, none, &mut |_| ()).unwrap();
    let mean = again.before;
    assert!((mean - outcome.after).abs() < 1e-3 * outcome.after, "{mean} {}", outcome.after);
}

#[test]
fn the_same_bytes_on_every_level_and_thread_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (index, level) in Isa::available().into_iter().enumerate() {
        let (_, scales_tuned) =
            scales_tuned("tiny/llama", "tt3", &dir.path().join(format!("{index}.gq")), level, index + 1);
        files.push(scales_tuned.bytes().to_vec());
    }
    let (_, scales_tuned) = scales_tuned("tiny/llama", "tt3", &dir.path().join("x.gq"), Isa::detect(), 3);
    files.push(scales_tuned.bytes().to_vec());
    assert!(files.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn what_cannot_be_tuned_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let options = RunOptions { level: Isa::detect(), activations: ActivationMode::F32, kv: KvType::F32 };
    let load = |tiny: &str, encoding: &str| {
        let (_, container) =
            convert(&testdata(tiny), &policy(encoding, &[]), &dir.path().join("m.gq")).unwrap();
        let container = Arc::new(container);
        (Model::from_container(container.clone(), options).unwrap(), container)
    };
    let reference = |tiny: &str| Model::from_checkpoint(Arc::new(testdata(tiny)), options).unwrap();
    let (model, container) = load("tiny/llama", "tq3");
    let llama = reference("tiny/llama");
    let one = sequences(model.vocab_size(), 1);
    let outcome = tune_scales(&llama, &model, &container, &one, OPTIONS, &mut |_| ());
    assert!(matches!(outcome, Err(ScalesError::TooShort { limit: 2, actual: 1 })), "{outcome:?}");
    assert!(container.tensors().iter().any(|entry| matches!(entry.encoding, Encoding::Turbo { .. })));
}
