//! The tiny checkpoints against their reference outputs, and against themselves.

use gq_checkpoint::Checkpoint;
use gq_eval::{
    EvalReport, OutputsReader, TextOptions, Windows, checkpoint_sizes, evaluate_outputs, evaluate_text,
};
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_tensor::Isa;
use std::path::PathBuf;
use std::sync::Arc;

fn tiny(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name)
}

fn model(name: &str, kv: KvType) -> (Model, Arc<Checkpoint>) {
    let checkpoint = Arc::new(Checkpoint::open(tiny(name)).unwrap());
    let options = RunOptions { level: Isa::detect(), activations: ActivationMode::F32, kv };
    (Model::from_checkpoint(checkpoint.clone(), options).unwrap(), checkpoint)
}

fn with_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

#[test]
fn reference_outputs_are_met_to_the_floor_of_f32() {
    for name in ["llama", "gemma3", "gemma4-e2b"] {
        let (model, checkpoint) = model(name, KvType::F32);
        let reference = OutputsReader::open(&tiny(name).join("reference.safetensors")).unwrap();
        let sizes = checkpoint_sizes(&checkpoint);
        let run = || evaluate_outputs(&model, &reference, sizes, TextOptions::default(), &mut |_, _| {});
        let report = run().unwrap();
        let logits = report.logits.unwrap();
        assert!(logits.max_abs_error > 0.0 && logits.max_abs_error < 2e-4, "{name}: {logits:?}");
        assert!(logits.rms_error < logits.max_abs_error / 3.0);
        assert!(report.kld.max < 1e-8 && report.top1 == 1.0 && report.ln_ratio.unwrap().value.abs() < 1e-5);
        assert_eq!((report.windows, report.tokens, report.targets), (2, 112, 110));
        // bf16 weights and little else.
        assert!(report.bpw.file > 16.0 && (16.0..16.01).contains(&report.bpw.body), "{:?}", report.bpw);
        assert!(report.bytes.body < report.bytes.file);
    }
}

fn on_text(threads: usize) -> EvalReport {
    let (model, checkpoint) = model("gemma3", KvType::F16);
    let (reference, _) = self::model("gemma3", KvType::F32);
    let tokens: Vec<u32> = (0..400).map(|i| (i * i * 7 + i * 3) % 288).collect();
    let windows = Windows::new(&tokens, 64, None, Some(2)).unwrap();
    let sizes = checkpoint_sizes(&checkpoint);
    with_threads(threads, || {
        evaluate_text(&model, &reference, &windows, sizes, TextOptions::default(), &mut |_, _| {}).unwrap()
    })
}

#[test]
fn threads_change_no_bit() {
    let one = on_text(1);
    assert!(one.kld.mean > 0.0);
    assert_eq!(on_text(2), one);
    assert_eq!(on_text(3), one);
}

#[test]
fn the_noise_floor_is_the_reference_against_itself() {
    // The model is the reference with rounded keys and values, so on the floor's windows both figures are one.
    let report = on_text(2);
    let noise = report.noise.unwrap();
    assert_eq!((report.windows, noise.windows, noise.tokens), (6, 4, 4 * 31));
    assert_eq!(noise.arithmetic, "keys and values rounded to f16");
    let mean = report.kld_by_window[..4].iter().sum::<f64>() / 4.0;
    assert!((noise.kld.mean / mean - 1.0).abs() < 1e-9 && report.noise_floor == Some(noise.kld.mean));
}
