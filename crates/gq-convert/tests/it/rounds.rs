//! Layers rounded again behind rounded layers.

use crate::support::{convert, policy, testdata};
use gq_calibrate::{Factors, Teacher};
use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_convert::{RoundAgain, RoundAgainError, RoundAgainOptions, RoundedAgainOutcome};
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_tensor::Isa;
use std::path::Path;
use std::sync::Arc;

fn tokens(vocab: usize, count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i + seed) * (i + 3 * seed + 7) * 31 % vocab) as u32).collect()
}

fn options(level: Isa) -> RunOptions {
    RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 }
}

struct Pair {
    checkpoint: Arc<Checkpoint>,
    reference: Model,
    container: Arc<Container>,
    model: Model,
}

impl Pair {
    fn new(name: &str, made_from: &str, encoding: &str, path: &Path, level: Isa) -> Pair {
        let (_, container) = convert(&testdata(made_from), &policy(encoding, &[]), path).unwrap();
        let (checkpoint, container) = (Arc::new(testdata(name)), Arc::new(container));
        let reference = Model::from_checkpoint(checkpoint.clone(), options(level)).unwrap();
        let model = Model::from_container(container.clone(), options(level)).unwrap();
        Pair { checkpoint, reference, container, model }
    }

    fn again(
        &self,
        (sequences, length): (usize, usize),
        max_memory: Option<u64>,
        out: &Path,
        threads: usize,
    ) -> Result<RoundedAgainOutcome, RoundAgainError> {
        let vocab = self.reference.vocab_size();
        let sequences: Vec<_> = (0..sequences).map(|seed| tokens(vocab, length, seed)).collect();
        let level = self.reference.options().level;
        let text_sha256 = gq_calibrate::texts_digest(&[]);
        let options = RoundAgainOptions { level, measurements: None, text_sha256, max_memory };
        let Pair { checkpoint, reference, container, model } = self;
        let what = RoundAgain { checkpoint, reference, container, model };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| what.run(&sequences, &options, out, &mut |_| ()))
    }
}

/// Divergence on text that nothing was decided on.
fn divergence(pair: &Pair, model: &Model) -> f64 {
    let tokens = tokens(pair.reference.vocab_size(), 96, 1000);
    Teacher::new(&pair.reference, tokens).unwrap().divergence(model, &Factors::new()).unwrap()
}

#[test]
fn unseen_text_gets_closer_at_the_same_size() {
    let dir = tempfile::tempdir().unwrap();
    for encoding in ["tq3", "tt3"] {
        let out = dir.path().join(format!("{encoding}.again.gq"));
        let level = Isa::detect();
        let pair = Pair::new("demo", "demo", encoding, &dir.path().join("a.gq"), level);
        let outcome = pair.again((25, 64), None, &out, 2).unwrap();
        assert!(outcome.helps(), "{} {}", outcome.before, outcome.after);
        let again = Arc::new(Container::open(&out).unwrap());
        again.verify(|_, _| ()).unwrap();
        for (before, after) in pair.container.tensors().iter().zip(again.tensors()) {
            assert_eq!(before.spec(), after.spec());
        }
        let (taken, all) =
            (outcome.tensors.iter().filter(|tensor| tensor.taken).count(), outcome.tensors.len());
        let corrected = outcome.tensors.iter().filter(|tensor| tensor.strength > 0.0).count();
        assert!(2 * taken > all && corrected > 4, "{taken} and {corrected} of {all}");
        for tensor in outcome.tensors.iter().filter(|tensor| tensor.taken) {
            assert!(tensor.held_out.1 < tensor.held_out.0, "{tensor:?}");
        }
        let what = again.provenance().unwrap().unwrap().rounded_again.unwrap();
        assert_eq!(what.payload_sha256, pair.container.payload_sha256());
        let text = again.text(gq_container::TextKind::Report).unwrap().unwrap();
        assert!(text.contains("rounded again, new codes won"));
        let model = Model::from_container(again, options(level)).unwrap();
        let (before, after) = (divergence(&pair, &pair.model), divergence(&pair, &model));
        eprintln!("{encoding}: {before:.4} {after:.4}");
        assert!(after < 0.9 * before, "{encoding}: {before} {after}");
        let left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".gq")), "{left:?}");
    }
}

#[test]
fn the_same_bytes_on_every_level_and_thread_count_and_from_the_disk() {
    let mut written = 0;
    for (name, encoding) in [
        ("tiny/llama", "tt3"),
        ("tiny/gemma4-e2b", "tq3"),
        ("tiny/gemma4-moe", "tt2"),
        ("tiny/qwen3-moe", "tt2"),
        ("tiny/gpt-oss", "tt2"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut first: Option<(RoundedAgainOutcome, Option<Vec<u8>>)> = None;
        let levels = Isa::available().into_iter().map(|level| (level, 1, None));
        let tight = std::iter::once((Isa::detect(), 3, Some(1)));
        for (level, threads, memory) in levels.chain(tight) {
            let (file, out) = (dir.path().join("a.gq"), dir.path().join("b.gq"));
            let _ = std::fs::remove_file(&out);
            let pair = Pair::new(name, name, encoding, &file, level);
            // The least that the limit allows is what the refusal says.
            let memory = memory.map(|limit| match pair.again((5, 40), Some(limit), &out, threads) {
                Err(RoundAgainError::Measure(gq_calibrate::CalibrateError::Memory { actual, .. })) => actual,
                other => panic!("{other:?}"),
            });
            let outcome = pair.again((5, 40), memory, &out, threads).unwrap();
            let made = (outcome, std::fs::read(&out).ok());
            written += usize::from(made.1.is_some());
            match &first {
                None => first = Some(made),
                Some(first) => assert!(first == &made, "{name} on {} with {threads}", level.name()),
            }
        }
    }
    assert!(written > 1, "no bytes to compare");
}

#[test]
fn what_cannot_be_rounded_again_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("a.gq"), dir.path().join("b.gq"));
    let level = Isa::detect();
    let pair = Pair::new("tiny/llama", "tiny/llama", "tq3", &file, level);
    let outcome = pair.again((1, 48), None, &out, 1);
    assert!(matches!(outcome, Err(RoundAgainError::Measure(_))), "{outcome:?}");
    // Of another model, and of another one of the same shape.
    let other = Pair::new("tiny/llama", "tiny/gemma3", "tq3", &file, level);
    let outcome = other.again((3, 48), None, &out, 1);
    assert!(matches!(outcome, Err(RoundAgainError::OtherSource { .. })), "{outcome:?}");
    let twin = dir.path().join("twin");
    std::fs::create_dir(&twin).unwrap();
    for entry in std::fs::read_dir(testdata("tiny/llama").dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let mut bytes = std::fs::read(&path).unwrap();
            if path.extension().is_some_and(|end| end == "safetensors") {
                *bytes.last_mut().unwrap() ^= 1;
            }
            std::fs::write(twin.join(path.file_name().unwrap()), bytes).unwrap();
        }
    }
    let checkpoint = Arc::new(Checkpoint::open(&twin).unwrap());
    let pair = Pair { checkpoint, ..pair };
    let outcome = pair.again((3, 48), None, &out, 1);
    let message = outcome.unwrap_err().to_string();
    assert!(message.contains("sha256 of model.safetensors"), "{message}");
    let exact = Pair::new("tiny/llama", "tiny/llama", "tqp3", &file, level);
    let outcome = exact.again((3, 48), None, &out, 1);
    assert!(matches!(outcome, Err(RoundAgainError::Nothing)), "{outcome:?}");
    assert!(!out.exists());
}
