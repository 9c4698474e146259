//! Predictions corrected by divergences measured on what moments hold out.

use crate::calibrated::{converted, options, tokens, tuned, with};
use crate::support::{policy, testdata};
use gq_calibrate::{ExpertMoments, MeasurementsDir, MeasuringMemory, MeasuringSize, TrialOptions};
use gq_calibrate::{Factors, Teacher};
use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_convert::{Budget, Resources, correct, plan_measured};
use gq_model::Model;
use gq_tensor::Isa;
use std::path::Path;
use std::sync::Arc;

fn corrected(
    checkpoint: &Arc<Checkpoint>,
    dir: &Path,
    (level, threads): (Isa, usize),
    max_memory: Option<u64>,
) -> MeasurementsDir {
    let mut measurements = MeasurementsDir::open(dir).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let model = Model::from_checkpoint(checkpoint.clone(), options(level)).unwrap();
    // As `tuned` has them.
    let sequences: Vec<_> = (0..13).map(|seed| tokens(model.vocab_size(), 64, seed)).collect();
    let options = TrialOptions { tokens: 256, max_memory };
    pool.install(|| {
        correct(checkpoint, &model, &sequences, &options, level, &mut measurements, &mut |_| ()).unwrap()
    });
    measurements
}

/// Most memory that leaves no room for the states of all trials.
fn tight(checkpoint: &Checkpoint) -> u64 {
    let size =
        MeasuringSize { sequences: 13, ctx: 64, gradients: false, trial_tokens: 64, threads: 3, held: 0 };
    let peak = |limit| MeasuringMemory::new(checkpoint.spec(), size, ExpertMoments::Own, limit);
    let mut limit = peak(None).unwrap().peak;
    while let Ok(memory) = peak(Some(limit - 4096)) {
        limit -= 4096;
        if memory.spilled > 0 {
            return limit;
        }
    }
    limit
}

#[test]
fn the_same_corrections_on_every_level_and_thread_count() {
    for name in ["tiny/llama", "tiny/gemma4-e2b", "tiny/gemma4-moe", "tiny/qwen3-moe"] {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Arc::new(testdata(name));
        let before = tuned(&checkpoint, dir.path(), Isa::detect(), 2);
        assert!(before.value().corrections.is_none());
        let index = dir.path().join("measurements.json");
        let plain = std::fs::read_to_string(&index).unwrap();
        assert!(!plain.contains("corrections"), "measurements without trials are as they were");
        let first = corrected(&checkpoint, dir.path(), (Isa::detect(), 1), None);
        let made = std::fs::read(&index).unwrap();
        for level in Isa::available() {
            std::fs::write(&index, &plain).unwrap();
            corrected(&checkpoint, dir.path(), (level, 3), Some(tight(&checkpoint)));
            assert!(std::fs::read(&index).unwrap() == made, "{name} on {}", level.name());
        }
        assert!(!dir.path().join("trials.partial").exists());
        // Found again, and without them it is what it was.
        let found = MeasurementsDir::open(dir.path()).unwrap();
        assert_eq!(found.value().sha256(), first.value().sha256());
        assert_ne!(found.value().sha256(), before.value().sha256());
        assert_eq!(found.without_corrections().value().sha256(), before.value().sha256());
        let corrections = first.value().corrections.clone().unwrap();
        let tried: usize = corrections.groups.iter().map(|group| group.tensors.len()).sum();
        assert_eq!(tried, before.value().tensors.len(), "{name}: {corrections:?}");
        assert!(corrections.groups.iter().any(|group| group.measured > 0.0), "{name}");
        // Rules of another version are refused.
        let other = String::from_utf8(made).unwrap();
        let (head, rest) = other.split_once("\"corrections\"").unwrap();
        let rest = rest.replacen("\"format\": 1", "\"format\": 99", 1);
        std::fs::write(&index, format!("{head}\"corrections\"{rest}")).unwrap();
        assert!(MeasurementsDir::open(dir.path()).unwrap_err().to_string().contains("other rules"));
    }
}

#[test]
fn the_corrected_expectation_is_nearer_to_what_is_measured() {
    let dir = tempfile::tempdir().unwrap();
    let (checkpoint, level) = (Arc::new(testdata("demo")), Isa::detect());
    let place = dir.path().join("measurements");
    let plain = tuned(&checkpoint, &place, level, 2);
    let corrected = corrected(&checkpoint, &place, (level, 2), None);
    let resources = Resources { threads: 2, max_memory: None };
    let reference = Model::from_checkpoint(checkpoint.clone(), options(level)).unwrap();
    for budget in [1_500_000, 2_000_000] {
        let plan = |measurements: &MeasurementsDir| {
            let recipe = with(policy("tq4", &[]), measurements, Some(Budget::FileBytes(budget)));
            plan_measured(&checkpoint, &recipe, resources, Some(measurements.value()), None).unwrap()
        };
        let path = dir.path().join("x.gq");
        let recipe = with(policy("tq4", &[]), &corrected, Some(Budget::FileBytes(budget)));
        converted(&checkpoint, &recipe, Some(&corrected), &path, (level, 2));
        let model = Model::from_container(Arc::new(Container::open(&path).unwrap()), options(level)).unwrap();
        let unseen = (20..26).map(|seed| {
            let teacher = Teacher::new(&reference, tokens(reference.vocab_size(), 64, seed)).unwrap();
            teacher.divergence(&model, &Factors::new()).unwrap()
        });
        let measured = unseen.sum::<f64>() / 6.0;
        assert!(plan(&corrected).corrected && !plan(&plain).corrected);
        let expected = plan(&corrected).expected_divergence.unwrap();
        let uncorrected = {
            // Of the same encodings.
            let mut same = with(policy("tq4", &[]), &plain, None);
            same.overrides = plan(&corrected)
                .steps
                .iter()
                .filter(|step| !step.encoding.is_exact())
                .map(|step| gq_convert::Override {
                    pattern: format!("^{}$", step.tensor.replace('.', "\\.")),
                    encoding: gq_convert::Choice::Coded(step.encoding),
                })
                .collect();
            let plan = plan_measured(&checkpoint, &same, resources, Some(plain.value()), None).unwrap();
            plan.expected_divergence.unwrap()
        };
        eprintln!("measured {measured:.4}, expected {expected:.4}, uncorrected {uncorrected:.4}");
        let off = |expected: f64| (expected / measured).ln().abs();
        // Where predictions are within a sixth already, trials of a few tokens cannot tell.
        assert!(off(expected) < off(uncorrected).max(0.167), "{measured} {expected} {uncorrected}");
        assert!(off(expected) < 0.25, "{measured} {expected}");
    }
}
