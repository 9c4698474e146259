//! Bytes and weights of a model, body and all.

use gq_checkpoint::{Checkpoint, FileKind, ModelSpec, Role};
use gq_container::Container;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Bytes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Of the file, or of a checkpoint's weight files.
    pub file: u64,
    /// Of all weights but embedding and head.
    pub body: u64,
}

/// Bits per weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bits {
    /// File bits over all weights.
    pub file: f64,
    /// Body bits over body weights.
    pub body: f64,
}

/// Bytes and weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the file, or of a checkpoint's weight files.
    pub file_bytes: u64,
    /// Weights in it.
    pub weights: u64,
    /// Bytes of all weights but embedding and head.
    pub body_bytes: u64,
    /// Weights but embedding and head.
    pub body_weights: u64,
}

impl Sizes {
    pub(crate) fn bytes(self) -> Bytes {
        Bytes { file: self.file_bytes, body: self.body_bytes }
    }

    pub(crate) fn bits(self) -> Bits {
        let bits = |bytes: u64, weights: u64| 8.0 * bytes as f64 / weights.max(1) as f64;
        Bits { file: bits(self.file_bytes, self.weights), body: bits(self.body_bytes, self.body_weights) }
    }

    fn add(&mut self, bytes: u64, weights: u64, body: bool) {
        self.weights += weights;
        if body {
            self.body_bytes += bytes;
            self.body_weights += weights;
        }
    }
}

fn is_body(role: Role) -> bool {
    !matches!(role, Role::Embedding | Role::Head | Role::PerLayerTable)
}

/// Sizes of a `.gq` file; towers that ride along are left out of the weights.
pub fn container_sizes(container: &Container, spec: &ModelSpec) -> Sizes {
    let expected = spec.expected_tensors();
    let body: HashMap<&str, bool> = expected.iter().map(|t| (t.name.as_str(), is_body(t.role))).collect();
    let mut sizes = Sizes { file_bytes: container.file_bytes(), ..Sizes::default() };
    for tensor in container.tensors() {
        if let Some(&body) = body.get(tensor.name.as_str()) {
            sizes.add(tensor.bytes, tensor.elements(), body);
        }
    }
    sizes
}

/// Sizes of a checkpoint directory; tensors that the graph does not use are left out of the weights.
pub fn checkpoint_sizes(checkpoint: &Checkpoint) -> Sizes {
    let weights = checkpoint.files().iter().filter(|file| file.kind == FileKind::Weights);
    let mut sizes = Sizes { file_bytes: weights.map(|file| file.bytes).sum(), ..Sizes::default() };
    for tensor in checkpoint.tensors() {
        if !matches!(tensor.role, Role::Unused | Role::Tower | Role::WeightScale) {
            let weights = tensor.shape.iter().map(|&n| n as u64).product();
            sizes.add(tensor.bytes, weights, is_body(tensor.role));
        }
    }
    sizes
}
