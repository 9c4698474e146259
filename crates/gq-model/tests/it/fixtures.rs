//! Tiny checkpoints and their reference outputs.

use gq_checkpoint::{Checkpoint, Role};
use gq_codec::{EncodeScratch, Encoder, Rotation};
use gq_container::{Container, StoredText, TensorSpec, TextKind, Writer};
use gq_model::{ActivationMode, KvType, LogitRows, Model, RunOptions};
use gq_tensor::{Encoding, Isa, RotationKind, RotationSpec, Storage};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Every tiny checkpoint; a missing one fails its tests.
pub const TINY: [&str; 18] = [
    "llama",
    "llama3",
    "qwen2",
    "qwen3",
    "qwen3-moe",
    "qwen3-moe-mixed",
    "gpt-oss",
    "gpt-oss-resaved",
    "mistral",
    "ministral3",
    "phi3",
    "phi3-long",
    "gemma3",
    "gemma4-e2b",
    "gemma4-e4b",
    "gemma4-moe",
    "gemma4-dense",
    "gemma4-vision",
];

/// f32 everywhere, on the given level.
pub fn exact(level: Isa) -> RunOptions {
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

/// `reference.safetensors` and `reference.json` next to a checkpoint.
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

/// Largest difference of two rows of logits.
pub fn difference(a: &[f32], b: &[f32]) -> f64 {
    let b: Vec<_> = b.iter().map(|&b| f64::from(b)).collect();
    max_error(a, &b)
}

/// All logits of `tokens`, in one batch.
pub fn prefill(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let (mut cache, mut logits) = (model.new_cache(tokens.len()), Vec::new());
    model.forward(tokens, &mut cache, LogitRows::All, &mut logits).unwrap();
    logits
}

/// What becomes of a matrix in a test's container.
#[derive(Clone, Copy)]
pub struct Recipe {
    pub encoding: Encoding,
    pub rotation: RotationKind,
}

/// Encodes a checkpoint: matrices by the recipe where their width allows, everything else as it is.
pub fn contained(checkpoint: &Checkpoint, recipe: Recipe, path: &Path) -> Arc<Container> {
    let mut writer = Writer::create(path).unwrap();
    for expected in checkpoint.spec().expected_tensors() {
        let tensor = checkpoint.tensor(&expected.name).unwrap();
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let vector = tensor.shape.len() < 2 || tensor.role == Role::Bias;
        let exact = vector || !recipe.encoding.supports_cols(cols);
        let encoding = if exact { Encoding::Exact(tensor.dtype) } else { recipe.encoding };
        let rotation = match encoding.is_exact() {
            true => RotationSpec::NONE,
            false => RotationSpec { kind: recipe.rotation, seed: 7 },
        };
        let payload = match encoding.is_exact() {
            true => {
                let mut bytes = vec![0; tensor.bytes as usize];
                checkpoint.read_bytes(tensor, 0..tensor.bytes, &mut bytes).unwrap();
                bytes
            }
            false => {
                let mut values = vec![0.0; rows * cols];
                checkpoint.read_rows_f32(tensor, 0..rows, &mut values).unwrap();
                encode(&values, tensor.shape[tensor.shape.len() - 2], cols, encoding, rotation)
            }
        };
        let shape = tensor.shape.iter().map(|&n| n as u64).collect();
        let (name, source_dtype) = (expected.name, tensor.dtype);
        writer.write_tensor(TensorSpec { name, shape, encoding, rotation, source_dtype }, &payload).unwrap();
    }
    let config = StoredText::new(TextKind::Config, &checkpoint.texts().unwrap().config).unwrap();
    writer.finish(vec![config]).unwrap();
    Arc::new(Container::open(path).unwrap())
}

fn encode(values: &[f32], height: usize, cols: usize, encoding: Encoding, rotation: RotationSpec) -> Vec<u8> {
    let level = Isa::Scalar;
    let encoder = Encoder::new(Storage::new(encoding, rotation), cols).unwrap();
    let transform = Rotation::new(rotation, cols).unwrap();
    let mut rotated = values.to_vec();
    rotated.chunks_mut(cols).for_each(|row| transform.forward(level, row, &mut Vec::new()));
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for matrix in rotated.chunks(height * cols) {
        let mut part = vec![0; encoding.codes_bytes(height, cols).unwrap()];
        let mut part_scales = vec![0; height * encoding.scales_row_bytes(cols)];
        encoder.encode_rows(level, matrix, &mut part, &mut part_scales, &mut EncodeScratch::default());
        codes.extend(part);
        scales.extend(part_scales);
    }
    codes.extend(scales);
    codes
}

/// Writes a checkpoint in f32 whose matrices are `change`d; vectors are copied.
pub fn rewritten(
    checkpoint: &Checkpoint,
    dir: &Path,
    change: impl Fn(&str, usize, &mut Vec<f32>),
) -> Arc<Checkpoint> {
    let tensors = checkpoint.spec().expected_tensors().into_iter().map(|expected| {
        let tensor = checkpoint.tensor(&expected.name).unwrap();
        let mut values = vec![0.0; tensor.rows() * tensor.cols()];
        checkpoint.read_rows_f32(tensor, 0..tensor.rows(), &mut values).unwrap();
        if tensor.shape.len() > 1 {
            change(&expected.name, tensor.cols(), &mut values);
        }
        let mut shape = expected.shape;
        let stored = checkpoint.spec().on_the_hub(&expected.name, &shape).pop().unwrap();
        if let Some(assembly) = stored.assembly {
            let matrices = values.chunks(values.len() / shape[0]);
            let height = tensor.rows() / shape[0];
            values = matrices.flat_map(|matrix| assembly.as_stored(matrix, height)).collect();
            shape = stored.shape;
        }
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        (expected.name, shape, bytes)
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
    std::fs::write(dir.join("config.json"), checkpoint.texts().unwrap().config).unwrap();
    Arc::new(Checkpoint::open(dir).unwrap())
}
