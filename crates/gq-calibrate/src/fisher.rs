//! The diagonal of the Fisher information at every product's output.

use crate::deterministic::{Deterministic, FactorGradients, Gradients, Place};
use crate::pass::{Seen, back};
use gq_model::arithmetic::softmax;
use gq_model::{Linear, Matrix, Model, ModelError};
use gq_tensor::SplitMix64;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Positions whose logits are held at once.
const HEAD_ROWS: usize = 64;

/// Sums over positions of squared gradients at the outputs of products.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FisherDiagonal {
    /// By weight: one sum per row of the weight matrix, in nats^2 per squared unit of the output, or, where an RMS norm
    /// of all outputs comes right after, of the output over the token's root mean square.
    pub rows: BTreeMap<String, Vec<f64>>,
    /// By table: the same at looked-up rows, summed over their columns.
    pub lookups: BTreeMap<String, f64>,
    /// Positions summed over.
    pub positions: usize,
}

/// Squared gradients of `-log p(label)` with labels drawn from the model's own distribution: the diagonal of the
/// Fisher information in the products' outputs (K-FAC, arXiv 1503.05671, section 2.3).
///
/// Memory: the residual stream of one sequence at every layer, and one layer's tape.
/// `progress` is called after each sequence.
///
/// # Errors
/// For an empty sequence or a token beyond the vocabulary.
pub fn fisher_diagonal(
    model: &Model,
    sequences: &[Vec<u32>],
    seed: u64,
    progress: &mut dyn FnMut(usize),
) -> Result<FisherDiagonal, ModelError> {
    let mut diagonal = FisherDiagonal::default();
    for (index, tokens) in sequences.iter().enumerate() {
        model.check_tokens(tokens)?;
        add_sequence(model, tokens, seed.wrapping_add(index as u64), &mut diagonal);
        progress(index + 1);
    }
    Ok(diagonal)
}

fn add_sequence(model: &Model, tokens: &[u32], seed: u64, diagonal: &mut FisherDiagonal) {
    let FisherDiagonal { rows, lookups, positions } = diagonal;
    let mut seen = |weight: &Linear, place: Place, dy: &Matrix| {
        let first = match place {
            Place::Lookup => {
                *lookups.entry(weight.name().to_owned()).or_default() += squares(dy);
                return;
            }
            Place::Product => 0,
            Place::Expert(expert) => expert * dy.width,
        };
        let sums = rows.entry(weight.name().to_owned()).or_insert_with(|| vec![0.0; weight.shape().rows]);
        for row in dy.data.chunks_exact(dy.width) {
            let sums = sums.iter_mut().skip(first);
            sums.zip(row).for_each(|(sum, &d)| *sum += f64::from(d) * f64::from(d));
        }
    };
    let head =
        &mut |hidden: &Arc<Matrix>, seen: Seen<'_>, _: &mut FactorGradients| head(model, hidden, seed, seen);
    back(model, tokens, None, head, &mut seen, &mut Default::default());
    *positions += tokens.len();
}

fn squares(x: &Matrix) -> f64 {
    x.data.iter().map(|&x| f64::from(x) * f64::from(x)).sum()
}

/// Draws labels and returns the gradient at the residual stream `hidden`.
pub(crate) fn head(model: &Model, hidden: &Arc<Matrix>, seed: u64, seen: Seen<'_>) -> Matrix {
    let mut dx = Matrix { width: hidden.width, data: Vec::with_capacity(hidden.data.len()) };
    for (block, rows) in hidden.data.chunks(HEAD_ROWS * hidden.width).enumerate() {
        let mut ops = Deterministic::new(model.options().level, &[]);
        ops.tape = Some(Default::default());
        let x = ops.leaf(Matrix { width: hidden.width, data: rows.to_vec() });
        let input = x.id;
        let logits = model.graph().logits(&mut ops, &x);
        let mut by_logit = logits.matrix.as_ref().clone();
        let width = by_logit.width;
        by_logit.data.par_chunks_exact_mut(width).enumerate().for_each(|(row, logits)| {
            let position = (block * HEAD_ROWS + row) as u64;
            softmax(logits);
            let label = draw(logits, uniform(seed, position));
            logits[label] -= 1.0;
        });
        let mut gradients = Gradients::default();
        gradients.add(logits.id, by_logit);
        ops.backward(&mut gradients, seen);
        dx.data.extend(gradients.take(input).unwrap_or_default().data);
    }
    dx
}

/// The first index at which the running sum passes `u` times the sum.
pub(crate) fn draw(probabilities: &[f32], u: f64) -> usize {
    let total: f64 = probabilities.iter().map(|&p| f64::from(p)).sum();
    let mut left = u * total;
    for (index, &p) in probabilities.iter().enumerate() {
        left -= f64::from(p);
        if left < 0.0 {
            return index;
        }
    }
    probabilities.len() - 1
}

/// In [0, 1), from SplitMix64 of seed and position.
pub(crate) fn uniform(seed: u64, position: u64) -> f64 {
    let state = seed.wrapping_mul(SplitMix64::STEP) ^ position.wrapping_mul(0xD1B5_4A32_D192_ED03);
    SplitMix64::unit(SplitMix64::mix(state))
}
