//! Logits from a function, and files of reference outputs made by hand.

use gq_eval::{EvalReport, LogitSource, OutputsReader, Sizes, TextOptions, compare_with_outputs};
use gq_model::ModelError;
use serde_json::json;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A source whose logits are a function of position and token; it counts the tokens it has run.
pub struct Made<F> {
    pub vocab: usize,
    pub logit: F,
    pub position: usize,
    pub tokens_run: usize,
}

impl<F: Fn(usize, u32, usize) -> f32> Made<F> {
    pub fn new(vocab: usize, logit: F) -> Made<F> {
        Made { vocab, logit, position: 0, tokens_run: 0 }
    }
}

impl<F: Fn(usize, u32, usize) -> f32> LogitSource for Made<F> {
    fn vocab_size(&self) -> usize {
        self.vocab
    }

    fn begin(&mut self, _: usize) {
        self.position = 0;
    }

    fn forward(&mut self, tokens: &[u32], rows: Range<usize>, out: &mut Vec<f32>) -> Result<(), ModelError> {
        out.clear();
        for row in rows {
            out.extend((0..self.vocab).map(|entry| (self.logit)(self.position + row, tokens[row], entry)));
        }
        self.position += tokens.len();
        self.tokens_run += tokens.len();
        Ok(())
    }
}

/// Numbers in -1 .. 1 that look random.
pub fn noise(a: usize, b: usize, c: usize) -> f32 {
    let mut x = (a as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (b as u64).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
        ^ (c as u64).wrapping_mul(0x1656_67b1_9e37_79f9);
    x = (x ^ x >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^= x >> 29;
    (x >> 40) as f32 / (1 << 23) as f32 - 1.0
}

pub fn reference_logit(position: usize, token: u32, entry: usize) -> f32 {
    6.0 * noise(position, token as usize, entry)
}

pub fn model_logit(position: usize, token: u32, entry: usize) -> f32 {
    reference_logit(position, token, entry) + 0.3 * noise(position + 1000, token as usize, entry)
}

/// A safetensors file of these tensors: name, dtype, shape, bytes.
pub fn safetensors(tensors: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).to_owned(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

pub fn id_bytes(ids: &[i64]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

pub fn f64_bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes bytes to a new file in `dir`.
pub fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// `source` against a file.
pub fn against(source: &mut dyn LogitSource, path: &Path, options: TextOptions<'_>) -> EvalReport {
    let reader = OutputsReader::open(path).unwrap();
    compare_with_outputs(source, &reader, Sizes::default(), options, &mut |_, _| {}).unwrap()
}

pub fn close(actual: f64, expected: f64) {
    assert!((actual - expected).abs() <= 1e-12 + 1e-9 * expected.abs(), "{actual} is not {expected}");
}
