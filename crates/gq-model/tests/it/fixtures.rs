//! Tiny checkpoints and their reference outputs.

use gq_checkpoint::Checkpoint;
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_tensor::CpuLevel;
use safetensors::SafeTensors;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// Every tiny checkpoint; a missing one fails its tests.
pub const TINY: [&str; 8] =
    ["llama", "llama3", "gemma3", "gemma4-e2b", "gemma4-e4b", "gemma4-moe", "gemma4-dense", "gemma4-vision"];

/// f32 everywhere, on the given level.
pub fn exact(level: CpuLevel) -> RunOptions {
    RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 }
}

pub fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

pub fn tiny(name: &str) -> Arc<Checkpoint> {
    Arc::new(Checkpoint::open(testdata("tiny").join(name)).unwrap())
}

pub fn tiny_model(name: &str, options: RunOptions) -> Model {
    Model::from_checkpoint(tiny(name), options).unwrap()
}

/// `reference.safetensors` and `reference.json` beside a checkpoint.
pub struct Reference {
    /// Windows of tokens.
    pub rows: Vec<Vec<u32>>,
    /// Logits of each window, `[tokens, vocab]`.
    pub logits: Vec<Vec<f64>>,
    pub facts: Facts,
}

#[derive(Deserialize)]
pub struct Facts {
    pub floor_max_abs: f64,
    pub greedy: Vec<Greedy>,
}

#[derive(Deserialize)]
pub struct Greedy {
    pub prompt: Vec<u32>,
    pub tokens: Vec<u32>,
}

impl Reference {
    pub fn read(name: &str) -> Reference {
        let dir = testdata("tiny").join(name);
        let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let (ids, logits) = (tensors.tensor("input_ids").unwrap(), tensors.tensor("logits").unwrap());
        let (n, tokens) = (ids.shape()[0], ids.shape()[1]);
        let ids = ids.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b) as u32);
        let ids: Vec<_> = ids.collect();
        let logits: Vec<_> =
            logits.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
        let facts = std::fs::read_to_string(dir.join("reference.json")).unwrap();
        Reference {
            rows: ids.chunks(tokens).map(<[u32]>::to_vec).collect(),
            logits: logits.chunks(logits.len() / n).map(<[f64]>::to_vec).collect(),
            facts: serde_json::from_str(&facts).unwrap(),
        }
    }
}

/// Largest difference, NaN counting as infinite.
pub fn max_error(actual: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(actual.len(), expected.len());
    let errors = actual.iter().zip(expected).map(|(a, e)| (f64::from(*a) - e).abs());
    errors.fold(0.0, |max, error| {
        if error <= max {
            max
        } else if error.is_nan() {
            f64::INFINITY
        } else {
            error
        }
    })
}
