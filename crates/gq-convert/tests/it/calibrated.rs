//! Measurements, codes rounded by them, and budgets spent by them.

use crate::support::{bf16, policy, testdata, write_llama};
use gq_calibrate::{
    CalibrateOptions, CalibrationInput, ExpertMoments, MeasurementsDir, MeasuringMemory, MeasuringSize,
    measure,
};
use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_convert::{
    Budget, Calibration, ExecuteOptions, PlanError, Policy, Report, Resources, execute, plan_measured,
};
use gq_model::{ActivationMode, KvType, LogitRows, Model, RunOptions};
use gq_tensor::Isa;
use std::path::Path;
use std::sync::Arc;

const VARIANTS: [&str; 7] = [
    "tiny/llama",
    "tiny/gemma3",
    "tiny/gemma4-e2b",
    "tiny/gemma4-e4b",
    "tiny/gemma4-moe",
    "tiny/qwen3-moe",
    "tiny/gemma4-dense",
];

pub(crate) fn options(level: Isa) -> RunOptions {
    RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 }
}

/// Tokens that a model of this vocabulary has.
pub(crate) fn tokens(vocab: usize, count: usize, seed: usize) -> Vec<u32> {
    (0..count).map(|i| ((i + seed) * (i + 3 * seed + 7) * 31 % vocab) as u32).collect()
}

/// Measures on sequences of the model's own greedy-like noise.
pub(crate) fn tuned(checkpoint: &Arc<Checkpoint>, dir: &Path, level: Isa, threads: usize) -> MeasurementsDir {
    tuned_with(ExpertMoments::default(), checkpoint, dir, (level, threads))
}

fn tuned_with(
    expert_moments: ExpertMoments,
    checkpoint: &Arc<Checkpoint>,
    dir: &Path,
    (level, threads): (Isa, usize),
) -> MeasurementsDir {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    let model = Model::from_checkpoint(checkpoint.clone(), options(level)).unwrap();
    let sequences: Vec<_> = (0..13).map(|seed| tokens(model.vocab_size(), 64, seed)).collect();
    let text = CalibrationInput { texts: &[], sequences: &sequences };
    let wanted =
        |name: &str| name.ends_with("proj.weight") || name.contains("experts") || name.contains("embed");
    let options = CalibrateOptions {
        level,
        gradient_sequences: 2,
        seed: 5,
        expert_moments,
        asked: String::new(),
        max_memory: None,
    };
    pool.install(|| measure(checkpoint, &model, text, &wanted, &options, dir, &mut |_| ()).unwrap())
}

pub(crate) fn with(policy: Policy, measurements: &MeasurementsDir, budget: Option<Budget>) -> Policy {
    let calibration = Calibration {
        text_sha256: measurements.value().text_sha256.clone(),
        tokens: measurements.value().tokens,
        sha256: measurements.value().sha256(),
    };
    Policy { calibration: Some(calibration), budget, ..policy }
}

pub(crate) fn converted(
    checkpoint: &Checkpoint,
    policy: &Policy,
    measurements: Option<&MeasurementsDir>,
    path: &Path,
    (level, threads): (Isa, usize),
) -> Report {
    let resources = Resources { threads, max_memory: None };
    let plan =
        plan_measured(checkpoint, policy, resources, measurements.map(MeasurementsDir::value), None).unwrap();
    let options = ExecuteOptions {
        level,
        restart: false,
        measurements,
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    execute(&plan, checkpoint, path, options, &mut |_| {}).unwrap()
}

#[test]
fn the_same_bytes_on_every_level_and_thread_count() {
    for name in VARIANTS {
        let dir = tempfile::tempdir().unwrap();
        let checkpoint = Arc::new(testdata(name));
        let mut first: Option<(Vec<u8>, [Vec<u8>; 3])> = None;
        let levels = Isa::available().into_iter();
        for (index, (level, threads)) in
            levels.map(|level| (level, 1)).chain([(Isa::detect(), 3)]).enumerate()
        {
            let place = dir.path().join(index.to_string());
            let measurements = tuned(&checkpoint, &place, level, threads);
            let files = ["tq3", "tq3-g32", "tt3"].map(|encoding| {
                let policy = with(policy(encoding, &[]), &measurements, None);
                let output = dir.path().join(format!("{index}.{encoding}.gq"));
                let report = converted(&checkpoint, &policy, Some(&measurements), &output, (level, threads));
                assert!(report.tensors.iter().any(|tensor| tensor.held_out_error.is_some()), "{name}");
                std::fs::read(&output).unwrap()
            });
            let made = (std::fs::read(place.join("measurements.json")).unwrap(), files);
            match &first {
                None => first = Some(made),
                Some(first) => assert!(first == &made, "{name} on {} with {threads}", level.name()),
            }
        }
    }
}

/// A width at which products are blocked, pieces are cut and strips are not whole: 576, that of a real layer.
#[test]
fn a_layer_of_real_width_has_the_same_bytes_on_every_level_and_thread_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut seed = 0;
    let tensor = |_: &str, elements: usize| {
        seed += 1;
        bf16(elements, seed)
    };
    write_llama(dir.path(), (576, 256), tensor, &[]);
    let checkpoint = Arc::new(Checkpoint::open(dir.path()).unwrap());
    let encodings = [("k_proj", "tt4"), ("v_proj", "tt3-s12"), ("o_proj", "tq4"), ("down_proj", "tt3")];
    let mut first: Option<[Vec<u8>; 2]> = None;
    let levels = Isa::available().into_iter().map(|level| (level, 1));
    for (index, (level, threads)) in levels.chain([(Isa::detect(), 2)]).enumerate() {
        let place = dir.path().join(index.to_string());
        let measurements = tuned(&checkpoint, &place, level, threads);
        let recipe = with(policy("exact", &encodings), &measurements, None);
        let output = dir.path().join(format!("{index}.gq"));
        let report = converted(&checkpoint, &recipe, Some(&measurements), &output, (level, threads));
        let calibrated = report.tensors.iter().filter(|tensor| tensor.held_out_error.is_some());
        assert_eq!(calibrated.count(), 1 + encodings.len(), "the embedding too");
        let made = [std::fs::read(place.join("measurements.json")).unwrap(), std::fs::read(&output).unwrap()];
        match &first {
            None => first = Some(made),
            Some(first) => assert!(first == &made, "{} with {threads} threads", level.name()),
        }
    }
}

/// Mean squared error of logits on tokens that were not calibrated on.
fn logit_error(checkpoint: &Arc<Checkpoint>, path: &Path) -> f64 {
    let reference = Model::from_checkpoint(checkpoint.clone(), options(Isa::detect())).unwrap();
    let container = Arc::new(Container::open(path).unwrap());
    let model = Model::from_container(container, options(Isa::detect())).unwrap();
    let tokens = tokens(reference.vocab_size(), 96, 1000);
    let logits = |model: &Model| {
        let mut out = Vec::new();
        model.forward(&tokens, &mut model.new_cache(tokens.len()), LogitRows::All, &mut out).unwrap();
        out
    };
    let (a, b) = (logits(&reference), logits(&model));
    a.iter().zip(&b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64
}

#[test]
fn calibrated_codes_are_closer_at_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata("demo"));
    let measurements = tuned(&checkpoint, &dir.path().join("measurements"), Isa::detect(), 2);
    let (plain, calibrated) = (dir.path().join("plain.gq"), dir.path().join("calibrated.gq"));
    let how = (Isa::detect(), 2);
    let errors = ["tq3", "tq3-g32", "tt3"].map(|encoding| {
        let before = converted(&checkpoint, &policy(encoding, &[]), None, &plain, how);
        let recipe = with(policy(encoding, &[]), &measurements, None);
        let after = converted(&checkpoint, &recipe, Some(&measurements), &calibrated, how);
        assert_eq!(before.payload_bytes, after.payload_bytes);
        let (before, after) = (logit_error(&checkpoint, &plain), logit_error(&checkpoint, &calibrated));
        eprintln!("mean squared logit error of {encoding}: nearest {before:.4}, calibrated {after:.4}");
        assert!(after < 0.7 * before, "{encoding}: {before} {after}");
        after
    });
    assert!(errors[1] < errors[0], "more scales are better: {errors:?}");
    assert!(errors[2] < 0.8 * errors[0], "the trellis is better than the scalar code: {errors:?}");
}

#[test]
fn budgets_are_kept_and_spent() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata("demo"));
    let measurements = tuned(&checkpoint, &dir.path().join("measurements"), Isa::detect(), 2);
    let mut errors = Vec::new();
    for budget in [1_500_000u64, 1_800_000, 2_200_000] {
        let path = dir.path().join(format!("{budget}.gq"));
        let recipe = with(policy("tq4", &[]), &measurements, Some(Budget::FileBytes(budget)));
        converted(&checkpoint, &recipe, Some(&measurements), &path, (Isa::detect(), 2));
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(bytes <= budget && bytes * 100 > budget * 98, "{bytes} of {budget}");
        errors.push(logit_error(&checkpoint, &path));
    }
    assert!(errors.windows(2).all(|pair| pair[1] < pair[0]), "{errors:?}");
    let recipe = with(policy("tq4", &[]), &measurements, Some(Budget::BodyBits(3.5)));
    let path = dir.path().join("bits.gq");
    let report = converted(&checkpoint, &recipe, Some(&measurements), &path, (Isa::detect(), 2));
    assert!(report.body_bits <= 3.5 && report.body_bits > 3.45, "{}", report.body_bits);
    let resources = Resources { threads: 1, max_memory: None };
    let small = with(policy("tq4", &[]), &measurements, Some(Budget::FileBytes(300_000)));
    let error = plan_measured(&checkpoint, &small, resources, Some(measurements.value()), None).unwrap_err();
    assert!(matches!(error, PlanError::Budget { .. }), "{error}");
    let close = with(policy("tq4", &[]), &measurements, Some(Budget::Divergence(0.1)));
    let error = plan_measured(&checkpoint, &close, resources, None, None).unwrap_err();
    assert!(matches!(error, PlanError::NotMeasured), "{error}");
}

#[test]
fn measurements_are_known_by_their_source_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata("tiny/llama"));
    let place = dir.path().join("measurements");
    let measurements = tuned(&checkpoint, &place, Isa::detect(), 2);
    assert_eq!(MeasurementsDir::open(&place).unwrap().value().sha256(), measurements.value().sha256());
    let other = gq_calibrate::source_files(&testdata("tiny/gemma3"));
    let error = measurements.check_source(&other).unwrap_err().to_string();
    assert!(error.contains("another checkpoint") && !error.contains("(0 bytes)"), "{error}");
    let mut files = gq_calibrate::source_files(&checkpoint);
    assert!(measurements.check_source(&files).is_ok());
    // The same files with other weights: of digests nothing is said.
    files.last_mut().unwrap().0.push('0');
    let error = measurements.check_source(&files).unwrap_err().to_string();
    assert!(
        error.contains("other weights in files of the same names") && !error.contains("sha256"),
        "{error}"
    );
    let file = place.join("moments-0000-000.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let recipe = with(policy("tq3", &[]), &measurements, None);
    let plan = plan_measured(
        &checkpoint,
        &recipe,
        Resources { threads: 1, max_memory: None },
        Some(measurements.value()),
        None,
    )
    .unwrap();
    let options = ExecuteOptions {
        level: Isa::detect(),
        restart: false,
        measurements: Some(&measurements),
        origin: None,
        check: None,
        existing: gq_files::Existing::Replaced,
    };
    let error = execute(&plan, &checkpoint, &dir.path().join("x.gq"), options, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("sha256"), "{error}");
}

/// Every token goes to `top_k` experts: of one moment for all of them it counts as often, and of moments of their own each
/// expert has its share. That decides the codes of gates and no others.
#[test]
fn gates_of_experts_have_moments_of_their_own_or_their_layers() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata("tiny/gemma4-moe"));
    let moe = checkpoint.spec().layers[0].moe.unwrap();
    let how = (Isa::detect(), 2);
    // The second is measured over the first, and leaves nothing of it.
    let place = dir.path().join("measurements");
    let files = [ExpertMoments::Own, ExpertMoments::Layer].map(|which| {
        let measurements = tuned_with(which, &checkpoint, &place, how);
        for (name, measured) in
            measurements.value().tensors.iter().filter(|(name, _)| name.contains("experts.gate_up"))
        {
            let seen: Vec<usize> =
                measured.inputs.iter().map(|input| measurements.value().inputs[input].tokens).collect();
            assert_eq!(seen.iter().sum::<usize>(), measurements.value().tokens * moe.router.top_k, "{name}");
            assert_eq!(seen.len(), if which == ExpertMoments::Own { moe.experts } else { 1 }, "{name}");
        }
        let there = std::fs::read_dir(&place).unwrap().count();
        assert_eq!(there, measurements.value().digests.len() + 1, "{which:?}");
        let size =
            MeasuringSize { sequences: 13, ctx: 64, gradients: true, trial_tokens: 0, threads: 2, held: 0 };
        let promised = MeasuringMemory::new(checkpoint.spec(), size, which, None).unwrap().saved;
        // `tuned` measures routers too, which the program does not.
        let inputs = measurements.value().inputs.iter().filter(|(name, _)| !name.contains("router"));
        let moments = inputs.map(|(_, input)| std::fs::metadata(place.join(&input.file)).unwrap());
        let saved = moments.map(|file| file.len()).sum::<u64>();
        // Names and offsets stand before the numbers of each file.
        let most = promised + 512 * measurements.value().inputs.len() as u64;
        assert!(saved > promised && saved < most, "{which:?}: {saved} bytes, {promised} promised");
        let path = dir.path().join(format!("{which:?}.gq"));
        let report = converted(
            &checkpoint,
            &with(policy("tq3", &[]), &measurements, None),
            Some(&measurements),
            &path,
            how,
        );
        let gates = report.tensors.iter().filter(|tensor| tensor.name.contains("experts.gate_up"));
        let said = gates.map(|tensor| tensor.reason.contains("tokens per expert"));
        assert!(said.eq(vec![which == ExpertMoments::Own; checkpoint.spec().layers.len()]));
        Container::open(&path).unwrap()
    });
    for tensor in files[0].tensors() {
        let [own, layer] = [0, 1].map(|file: usize| {
            let file = &files[file];
            file.payload(file.tensor(&tensor.name).unwrap())
        });
        assert_eq!(own == layer, !tensor.name.contains("experts.gate_up"), "{}", tensor.name);
    }
}

/// An expert that no token reaches has the mean of the others, and nobody's rows move.
#[test]
fn an_expert_that_was_never_chosen_is_rounded_by_what_others_see() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata("tiny/gemma4-moe"));
    let model = Model::from_checkpoint(checkpoint.clone(), options(Isa::detect())).unwrap();
    // Two sequences of one token: of several experts, most are left out.
    let sequences = vec![vec![5], vec![5]];
    let text = CalibrationInput { texts: &[], sequences: &sequences };
    let options = CalibrateOptions {
        level: Isa::detect(),
        gradient_sequences: 1,
        seed: 5,
        expert_moments: ExpertMoments::Own,
        asked: String::new(),
        max_memory: None,
    };
    let wanted = |name: &str| name.contains("experts");
    let place = dir.path().join("measurements");
    let measurements = measure(&checkpoint, &model, text, &wanted, &options, &place, &mut |_| ()).unwrap();
    for part in ["down", "gate_up"] {
        assert!(measurements.value().tensors.keys().any(|name| name.contains(part)));
    }
    for (name, measured) in &measurements.value().tensors {
        let experts = checkpoint.tensor(name).unwrap().shape[0];
        assert_eq!(measured.inputs.len(), experts, "{name}");
        assert!(
            measured.inputs.iter().any(|input| measurements.value().inputs[input].tokens == 0),
            "{name}: all were chosen"
        );
    }
    for encoding in ["tt3", "tq3", "tq3-g32"] {
        let recipe = with(policy(encoding, &[]), &measurements, None);
        let path = dir.path().join(format!("{encoding}.gq"));
        converted(&checkpoint, &recipe, Some(&measurements), &path, (Isa::detect(), 2));
        Container::open(&path).unwrap();
    }
}

/// The report rides in the file: what it says must not depend on how rows were cut into blocks.
#[test]
fn memory_limits_leave_the_bytes_alone() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata("demo"));
    let measurements = tuned(&checkpoint, &dir.path().join("measurements"), Isa::detect(), 2);
    for encoding in ["tq3", "tq3-g32", "tt3"] {
        let recipe = with(policy(encoding, &[]), &measurements, None);
        let free = Resources { threads: 2, max_memory: None };
        let plan = plan_measured(&checkpoint, &recipe, free, Some(measurements.value()), None).unwrap();
        let tight = Resources { max_memory: Some(plan.memory.peak - 1), ..free };
        let small = plan_measured(&checkpoint, &recipe, tight, Some(measurements.value()), None).unwrap();
        assert!(small.memory.block < plan.memory.block);
        let bytes = [plan, small].map(|plan| {
            let path = dir.path().join(format!("{encoding}-{}.gq", plan.memory.block));
            let options = ExecuteOptions {
                level: Isa::detect(),
                restart: false,
                measurements: Some(&measurements),
                origin: None,
                check: None,
                existing: gq_files::Existing::Replaced,
            };
            execute(&plan, &checkpoint, &path, options, &mut |_| {}).unwrap();
            std::fs::read(path).unwrap()
        });
        assert!(bytes[0] == bytes[1], "{encoding}");
    }
}

/// Without measurements roles say where bytes go: more to values than to gates, and never above the budget.
#[test]
fn budgets_without_measurements_are_spent_by_roles() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = Arc::new(testdata("demo"));
    for budget in [1_500_000u64, 2_200_000] {
        let path = dir.path().join(format!("{budget}.gq"));
        let recipe = Policy { budget: Some(Budget::FileBytes(budget)), ..policy("tq4", &[]) };
        let report = converted(&checkpoint, &recipe, None, &path, (Isa::detect(), 2));
        let bytes = std::fs::metadata(&path).unwrap().len();
        assert!(bytes <= budget && bytes * 100 > budget * 98, "{bytes} of {budget}");
        let bits = |part: &str| -> f64 {
            let of = report.tensors.iter().filter(|tensor| tensor.name.contains(part));
            let bits: Vec<f64> = of.map(|tensor| tensor.bits).collect();
            bits.iter().sum::<f64>() / bits.len() as f64
        };
        assert!(bits("v_proj") > bits("gate_proj"), "{} {}", bits("v_proj"), bits("gate_proj"));
    }
    let resources = Resources { threads: 1, max_memory: None };
    let recipe = Policy { budget: Some(Budget::BodyBits(3.0)), ..policy("tq4", &[]) };
    let plan = plan_measured(&checkpoint, &recipe, resources, None, None).unwrap();
    assert!(plan.expected_divergence.is_none());
    assert!(plan.steps.iter().any(|step| step.reason == "budget: by its role, not measured"));
}
