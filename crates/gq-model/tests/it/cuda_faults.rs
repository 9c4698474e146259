//! Failures of a GPU in the middle of a run, on the stand-in of the driver.

use crate::cuda::{both_exact, error};
use gq_model::cuda::GpuError;
use gq_model::{DeviceError, KvType, LogitRows, Model, ModelError};

fn tokens(model: &Model, count: u32) -> Vec<u32> {
    (0..count).map(|i| (i * i * 7 + 3 * i + 5) % model.vocab_size() as u32).collect()
}

/// Ten tokens, one after the other, are those of the CPU, and why they were not captured.
fn uncaptured() -> Option<DeviceError> {
    let [cpu, gpu] = both_exact("llama", KvType::F32);
    let run = |model: &Model| {
        let (mut cache, mut all, mut logits) = (model.new_cache(10), Vec::new(), Vec::new());
        for token in tokens(model, 10) {
            model.forward(&[token], &mut cache, LogitRows::Last, &mut logits).unwrap();
            all.extend_from_slice(&logits);
        }
        all
    };
    assert!(error(&run(&gpu), &run(&cpu)) < 1e-5);
    assert_eq!(cpu.gpu_uncaptured(), None);
    gpu.gpu_uncaptured()
}

fn is_refused(test: &str, at: u32) {
    let Some(()) = gq_stand_in::inside(test, &format!("races=0,capture={at}")) else { return };
    let name = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED";
    let why = uncaptured();
    let refused = matches!(&why, Some(DeviceError::Gpu(GpuError::Failed { name: n, .. })) if n == name);
    assert!(refused, "{why:?}");
}

#[test]
fn a_capture_that_does_not_begin_costs_time_alone() {
    is_refused("cuda_faults::a_capture_that_does_not_begin_costs_time_alone", 1);
}

#[test]
fn a_capture_that_does_not_end_costs_time_alone() {
    is_refused("cuda_faults::a_capture_that_does_not_end_costs_time_alone", 2);
}

#[test]
fn a_capture_that_is_not_made_ready_costs_time_alone() {
    is_refused("cuda_faults::a_capture_that_is_not_made_ready_costs_time_alone", 3);
}

#[test]
fn a_capture_that_is_not_launched_costs_time_alone() {
    is_refused("cuda_faults::a_capture_that_is_not_launched_costs_time_alone", 4);
}

#[test]
fn captures_that_are_taken_are_no_finding() {
    let name = "cuda_faults::captures_that_are_taken_are_no_finding";
    let Some(()) = gq_stand_in::inside(name, "races=0") else { return };
    assert_eq!(uncaptured(), None);
}

/// A launch, of about 535, is refused in the second batch of a prompt: the cache has the tokens that it had, and goes on from there.
#[test]
fn a_failure_in_a_second_batch_leaves_the_cache_as_it_was() {
    let name = "cuda_faults::a_failure_in_a_second_batch_leaves_the_cache_as_it_was";
    let Some(()) = gq_stand_in::inside(name, "races=0,room=515") else { return };
    let [cpu, gpu] = both_exact("llama", KvType::F32);
    let tokens = tokens(&cpu, 273);
    let (mut cache, mut logits) = (gpu.new_cache(280), Vec::new());
    gpu.forward(&tokens[..3], &mut cache, LogitRows::Last, &mut logits).unwrap();
    let refused = gpu.forward(&tokens[3..], &mut cache, LogitRows::Last, &mut logits).unwrap_err();
    let no_room = matches!(&refused, ModelError::Device(DeviceError::Gpu(GpuError::NoRoom { .. })));
    assert!(no_room && logits.is_empty(), "{refused:?}");
    assert_eq!(cache.len(), 3);
    gpu.forward(&tokens[3..20], &mut cache, LogitRows::Last, &mut logits).unwrap();
    let (mut on_cpu, mut expected) = (cpu.new_cache(280), Vec::new());
    cpu.forward(&tokens[..20], &mut on_cpu, LogitRows::Last, &mut expected).unwrap();
    assert!(error(&logits, &expected) < 1e-5);
}

/// The same where a window's ring has lost what the first tokens need: the cache says so until it is cleared.
#[test]
fn a_failure_that_spoils_a_window_is_told_until_the_cache_is_cleared() {
    let name = "cuda_faults::a_failure_that_spoils_a_window_is_told_until_the_cache_is_cleared";
    let Some(()) = gq_stand_in::inside(name, "races=0,room=830") else { return };
    let [cpu, gpu] = both_exact("gemma3", KvType::F32);
    let tokens = tokens(&cpu, 277);
    let (mut cache, mut logits) = (gpu.new_cache(280), Vec::new());
    gpu.forward(&tokens[..4], &mut cache, LogitRows::Last, &mut logits).unwrap();
    gpu.forward(&tokens[4..], &mut cache, LogitRows::Last, &mut logits).unwrap_err();
    let again = gpu.forward(&tokens[4..5], &mut cache, LogitRows::Last, &mut logits);
    assert_eq!((cache.len(), again), (4, Err(ModelError::SpoiltCache)));
    cache.clear();
    gpu.forward(&tokens[..9], &mut cache, LogitRows::Last, &mut logits).unwrap();
    let (mut on_cpu, mut expected) = (cpu.new_cache(280), Vec::new());
    cpu.forward(&tokens[..9], &mut on_cpu, LogitRows::Last, &mut expected).unwrap();
    assert!(error(&logits, &expected) < 1e-5);
}
