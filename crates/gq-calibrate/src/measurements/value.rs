//! What was measured, as a plain value: sensitivities of tensors, dampings of inputs, and what trials corrected.

use super::corrections::Corrections;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Version of the layout and of what is measured: 2 weighs tokens alike before a norm, 3 takes gradients on no held-out
/// sequence and chooses dampings at every width, 4 has moments of their own for experts' gates.
pub(super) const FORMAT: u32 = 4;

/// What was measured on a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// Layout.
    pub format: u32,
    /// Version of the program that measured.
    pub version: String,
    /// Weight files of the source: name and size.
    pub files: Vec<(String, u64)>,
    /// sha256 of the calibration texts.
    pub text_sha256: String,
    /// Tokens of a sequence.
    pub ctx: usize,
    /// Tokens that moments were measured on.
    pub tokens: usize,
    /// Tokens held out.
    pub held_out_tokens: usize,
    /// Tokens that gradients were measured on; 0: none were.
    pub gradient_tokens: usize,
    /// Seed of the labels that gradients were drawn for.
    pub seed: u64,
    /// What was asked for.
    #[serde(default)]
    pub asked: String,
    /// Inputs by name: that of the first tensor they meet, `#` and the expert where each has its own.
    pub inputs: BTreeMap<String, InputMeasured>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorMeasured>,
    /// sha256 of each file of moments and gradients.
    pub digests: BTreeMap<String, String>,
    /// What trials said of the predictions; none were made where it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corrections: Option<Corrections>,
}

/// Inputs of one or more products.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputMeasured {
    /// File with its moments.
    pub file: String,
    /// Width.
    pub cols: usize,
    /// Tokens seen.
    pub tokens: usize,
    /// Tokens held out.
    pub held_out_tokens: usize,
    /// Damping that was best on the held-out tokens, in units of the mean diagonal.
    pub damping: f64,
    /// `tr(U^-1 H U^-T) / n` on the held-out tokens: expected output error per unit variance of rounding errors.
    pub cost: f64,
    /// `tr(H) / n` on the held-out tokens: the same when rounding to nearest.
    pub nearest_cost: f64,
}

/// A weight matrix.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorMeasured {
    /// Its inputs: one, or one per expert.
    pub inputs: Vec<String>,
    /// Divergence in nats per token for each unit of relative squared rounding error, rounded with feedback.
    pub sensitivity: f64,
    /// The same when rounding to nearest.
    pub nearest_sensitivity: f64,
}

impl Measurements {
    /// Nothing measured.
    pub fn empty() -> Measurements {
        Measurements {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            files: Vec::new(),
            text_sha256: String::new(),
            ctx: 0,
            tokens: 0,
            held_out_tokens: 0,
            gradient_tokens: 0,
            seed: 0,
            asked: String::new(),
            inputs: BTreeMap::new(),
            tensors: BTreeMap::new(),
            digests: BTreeMap::new(),
            corrections: None,
        }
    }

    /// The same without corrections: predictions count as they are.
    #[must_use]
    pub fn without_corrections(self) -> Measurements {
        Measurements { corrections: None, ..self }
    }

    /// Divergence in nats per token that a sum of (corrected) predictions leads to expect.
    pub fn expected(&self, sum: f64) -> f64 {
        self.corrections.as_ref().map_or(sum, |corrections| corrections.level(sum))
    }

    /// The sum of predictions at which so much is expected.
    pub fn sum_at(&self, divergence: f64) -> f64 {
        self.corrections.as_ref().map_or(divergence, |corrections| corrections.sum_at(divergence))
    }

    /// Digest of everything measured.
    pub fn sha256(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        hex::encode(Sha256::digest(json))
    }

    /// Tokens that each expert of this tensor saw, from the least; nothing where all rows see the same.
    pub fn expert_tokens(&self, tensor: &str) -> Option<Vec<usize>> {
        let inputs = self.tensors.get(tensor).map(|measured| &measured.inputs)?;
        let mut tokens: Vec<usize> =
            inputs.iter().filter_map(|input| self.inputs.get(input)).map(|input| input.tokens).collect();
        tokens.sort_unstable();
        (tokens.len() > 1).then_some(tokens)
    }
}
