//! The backend for GPUs on a stand-in of the driver, whose device executes the kernels' PTX: against the CPU backend in
//! int8 mode.

use crate::fixtures::{Recipe, Reference, contained, exact, prefill, testdata, tiny};
use gq_model::{
    ActivationMode, DeviceError, Generation, GenerationOptions, KvType, LogitRows, Model, RunOptions,
    Sampling, Turn, cpu::Sums, cuda,
};
use gq_suite::Cuda;
use gq_tensor::{Encoding, Isa, RotationKind};

pub(crate) fn options(kv: KvType) -> RunOptions {
    RunOptions { activations: ActivationMode::Int8, kv, ..exact(Isa::detect()) }
}

/// A tiny checkpoint in codes, on the CPU and on the GPU.
fn both(name: &str, encoding: &str, kv: KvType) -> [Model; 2] {
    let recipe =
        Recipe { encoding: Encoding::from_name(encoding).unwrap(), rotation: RotationKind::Hadamard };
    let dir = tempfile::tempdir().unwrap();
    let container = contained(&tiny(name), recipe, &dir.path().join("model.gq"));
    let model = || Model::from_container(container.clone(), options(kv)).unwrap();
    let (cpu, mut gpu) = (model(), model());
    gpu.move_to_gpu(0, 128).unwrap();
    [cpu, gpu]
}

/// The largest difference over the root mean square.
pub(crate) fn error(actual: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let sum: f64 = expected.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let largest = actual.iter().zip(expected).map(|(a, b)| f64::from((a - b).abs()));
    let largest = largest.fold(0.0, |max, error| if error.is_nan() { f64::INFINITY } else { error.max(max) });
    largest / (sum / expected.len() as f64).sqrt()
}

fn one_by_one(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let (mut cache, mut all, mut logits) = (model.new_cache(tokens.len()), Vec::new(), Vec::new());
    for &token in tokens {
        model.forward(&[token], &mut cache, LogitRows::Last, &mut logits).unwrap();
        all.extend_from_slice(&logits);
    }
    all
}

fn greedy(model: &Model, prompt: &[u32]) -> Vec<u32> {
    let options = GenerationOptions { max_tokens: 64, sampling: Sampling::default(), stop: vec![] };
    let generation = Generation::start(model, None, prompt, options).unwrap();
    generation.map(|piece| piece.unwrap().token.unwrap()).collect()
}

/// Logits of a prompt, in one batch and token by token, and what is generated after it.
#[allow(clippy::print_stderr)] // the figures of the pages
fn agrees(name: &str, encoding: &str, kv: KvType, limit: f64) {
    let [cpu, gpu] = both(name, encoding, kv);
    let reference = Reference::read(name);
    let tokens = &reference.rows[0];
    let expected = prefill(&cpu, tokens);
    let (batch, single) = (prefill(&gpu, tokens), one_by_one(&gpu, tokens));
    let errors =
        [error(&batch, &expected), error(&single, &one_by_one(&cpu, tokens)), error(&batch, &single)];
    eprintln!(
        "{name} in {encoding}, {kv:?}: batch {:.1e}, one by one {:.1e}, of each other {:.1e}",
        errors[0], errors[1], errors[2]
    );
    assert!(errors.iter().all(|error| *error <= limit), "{name} in {encoding}: {errors:?} > {limit:e}");
    let prompt = &reference.facts.greedy[0].prompt;
    assert_eq!(greedy(&gpu, prompt), greedy(&cpu, prompt), "{name} in {encoding}");
}

#[test]
fn llama_is_what_it_is_on_the_cpu() {
    let Some(()) = gq_stand_in::inside("cuda::llama_is_what_it_is_on_the_cpu", "count=1") else { return };
    assert!(testdata("tiny").exists());
    agrees("llama", "tq4", KvType::F32, 1e-5);
}

#[test]
fn gemma_4_e_is_what_it_is_on_the_cpu() {
    let Some(()) = gq_stand_in::inside("cuda::gemma_4_e_is_what_it_is_on_the_cpu", "count=1") else { return };
    agrees("gemma4-e2b", "tt4", KvType::F32, 1e-5);
}

#[test]
fn experts_are_what_they_are_on_the_cpu() {
    let Some(()) = gq_stand_in::inside("cuda::experts_are_what_they_are_on_the_cpu", "count=1") else {
        return;
    };
    agrees("qwen3-moe", "tt3", KvType::F32, 1e-5);
}

#[test]
fn every_operator_is_its_definition() {
    let Some(()) = gq_stand_in::inside("cuda::every_operator_is_its_definition", "") else { return };
    gq_suite::every_operator(Cuda(KvType::F32));
}

#[test]
fn keys_and_values_that_are_rounded_are_as_close_as_they_may_be() {
    let name = "cuda::keys_and_values_that_are_rounded_are_as_close_as_they_may_be";
    let Some(()) = gq_stand_in::inside(name, "") else { return };
    for kind in [KvType::F16, KvType::Q8] {
        gq_suite::every_reference(Cuda(kind));
    }
}

#[test]
fn routers_gates_and_sinks_are_those_of_transformers() {
    let name = "cuda::routers_gates_and_sinks_are_those_of_transformers";
    let Some(()) = gq_stand_in::inside(name, "") else { return };
    gq_suite::every_reference(Cuda(KvType::F32));
}

/// Weights as they are: logits of every family's graph.
#[test]
fn every_family_is_its_definition() {
    let Some(()) = gq_stand_in::inside("cuda::every_family_is_its_definition", "races=0") else { return };
    gq_suite::every_family(Cuda(KvType::F32));
}

/// Weights as they are, of which no rounding to int8 can fall the other way.
pub(crate) fn both_exact(name: &str, kv: KvType) -> [Model; 2] {
    let model = || Model::from_checkpoint(tiny(name), RunOptions { kv, ..exact(Isa::detect()) }).unwrap();
    let (cpu, mut gpu) = (model(), model());
    gpu.move_to_gpu(0, 280).unwrap();
    [cpu, gpu]
}

/// Windows that wrap within a prompt, more tokens than go through the layers together, and going on from there.
#[test]
fn long_prompts_pass_windows_and_batches() {
    let name = "cuda::long_prompts_pass_windows_and_batches";
    let Some(()) = gq_stand_in::inside(name, "races=0") else { return };
    let [cpu, gpu] = both_exact("gemma3", KvType::F32);
    let tokens: Vec<u32> = (0..270).map(|i| (i * i * 7 + 3 * i + 5) % cpu.vocab_size() as u32).collect();
    let run = |model: &Model| {
        let (mut cache, mut logits, mut next) = (model.new_cache(280), Vec::new(), Vec::new());
        model.forward(&tokens, &mut cache, LogitRows::Range(253..270), &mut logits).unwrap();
        model.forward(&tokens[..3], &mut cache, LogitRows::All, &mut next).unwrap();
        [logits, next].concat()
    };
    let apart = error(&run(&gpu), &run(&cpu));
    eprintln!("gemma3 as it is, 273 tokens: {apart:.1e}");
    assert!(apart < 1e-5, "{apart:e}");
}

/// One token after the other, since the CPU does not round those of the batch that it is at.
#[test]
fn stored_keys_and_values_are_those_of_the_cpu() {
    let name = "cuda::stored_keys_and_values_are_those_of_the_cpu";
    let Some(()) = gq_stand_in::inside(name, "races=0") else { return };
    // A last bit may round the other way: one step of f16, one of int8.
    for (kind, limit) in [(KvType::F16, 2e-3), (KvType::Q8, 2e-2)] {
        let [cpu, gpu] = both_exact("gemma3", kind);
        let tokens: Vec<u32> = (0..40).map(|i| (i * i * 7 + 3 * i + 5) % cpu.vocab_size() as u32).collect();
        let apart = error(&one_by_one(&gpu, &tokens), &one_by_one(&cpu, &tokens));
        eprintln!("gemma3 as it is, {kind:?}: {apart:.1e}");
        assert!(apart < limit, "{kind:?}: {apart:e}");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_both_figures() {
    let name = "cuda::what_does_not_fit_is_refused_with_both_figures";
    let Some(()) = gq_stand_in::inside(name, "memory=60000000") else { return };
    let dir = tempfile::tempdir().unwrap();
    let recipe = Recipe { encoding: Encoding::from_name("tq4").unwrap(), rotation: RotationKind::Hadamard };
    let container = contained(&tiny("llama"), recipe, &dir.path().join("model.gq"));
    let mut model = Model::from_container(container.clone(), options(KvType::F32)).unwrap();
    let refused = model.move_to_gpu(0, 1 << 20).unwrap_err();
    let DeviceError::Room { needed, free, total, context, .. } = refused else { panic!("{refused:?}") };
    assert_eq!((free, total, context), (60_000_000, 60_000_000, 1 << 20));
    assert!(needed > 60_000_000);
    // The same plan from names, shapes and storages alone, and what is really taken.
    let plan = model.move_to_gpu(0, 64).unwrap();
    let shapes: Vec<_> = container.tensors().iter().map(|t| (&*t.name, &*t.shape, t.storage())).collect();
    assert_eq!(cuda::planned(model.spec(), shapes, 64, KvType::F32), plan);
    let mut logits = Vec::new();
    let mut cache = model.new_cache(64);
    model.forward(&[1, 2, 3], &mut cache, LogitRows::Last, &mut logits).unwrap();
    let (layers, kept) = (model.spec().layers.len() as u64, cache.bytes() as u64);
    assert!((kept..kept + 512 * layers).contains(&plan.cache), "{kept} {plan:?}");
    let free = cuda::gpus().unwrap()[0].as_ref().unwrap().free;
    // All but what is left to the driver, in four allocations, each of whole pages.
    let (taken, planned) = (total - free, plan.total() - (48 << 20));
    assert!((planned..planned + 4 * 512).contains(&taken), "{taken} of {plan:?}");
    // A cache of the CPU's is no cache of this model's.
    model.forward(&[1], &mut cache, LogitRows::Last, &mut logits).unwrap();
    let mut host = gq_model::KvCache::new(model.spec(), 8, KvType::F32);
    assert!(model.forward(&[1], &mut host, LogitRows::Last, &mut logits).is_err());
    assert!(model.forward_deterministic(vec![(&[1], &mut cache)]).is_err());
    // Turns run one after the other, in the order of the device.
    let mut own = model.new_cache(8);
    model.forward(&[4, 5], &mut own, LogitRows::Last, &mut logits).unwrap();
    own.clear();
    let mut run =
        |sums| model.forward_together(sums, vec![Turn { tokens: &[4, 5], cache: &mut own, logits: true }]);
    assert_eq!(run(Sums::Fastest(ActivationMode::Int8)).unwrap().data, logits);
    assert!(run(Sums::Deterministic).is_err());
}
