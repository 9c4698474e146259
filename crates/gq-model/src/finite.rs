//! Numbers that are none: what they count as, and the weights that met them first.

use crate::ModelError;
use crate::fixed::{Fixed, Observation};
use crate::matrix::Matrix;
use crate::measure::{LayerRun, State, run_layer};
use crate::model::Model;
use crate::teacher::{HEAD_ROWS, block_rows};
use std::sync::Arc;

/// A sum of `p (ln p - ln q)` as a divergence, in the same unit: rounding can leave a hair below zero, and what is no
/// number is infinitely far. Were it 0, a model that computes nothing would be the closest of all.
pub(crate) fn divergence(sum: f64) -> f64 {
    if sum.is_finite() { sum.max(0.0) } else { f64::INFINITY }
}

/// Whether every element is a finite number.
pub(crate) fn all_finite(values: &[f32]) -> bool {
    // One pass without a branch for each value.
    let exponent = f32::INFINITY.to_bits();
    !values.iter().fold(false, |bad, value| bad | (value.to_bits() & exponent == exponent))
}

impl Matrix {
    /// Whether every element is a finite number.
    pub fn is_finite(&self) -> bool {
        all_finite(&self.data)
    }
}

impl Model {
    /// Runs a sequence from position 0 in fixed arithmetic to see whether all that it computes is finite: inputs of
    /// products, the residual stream and the logits. Takes a forward pass; memory is that of one layer's work.
    ///
    /// # Errors
    /// [`ModelError::Activations`] with the first weights that meet numbers which are not finite, or give such
    /// logits; for an empty sequence or a token beyond the vocabulary.
    pub fn check_activations(&self, tokens: &[u32]) -> Result<(), ModelError> {
        self.check_tokens(tokens)?;
        let mut found: Option<ModelError> = None;
        let mut observe = |seen: Observation<'_>| {
            if found.is_none() {
                found =
                    seen.weights.first().and_then(|weight| ModelError::of_input(weight.name(), seen.input));
            }
        };
        let mut state = State::default();
        for layer in 0..self.graph().layers() {
            let run = LayerRun { observer: Some(&mut observe), start: true, ..LayerRun::default() };
            state = run_layer(self, layer, (0, tokens), state, run);
        }
        if let Some(error) = found {
            return Err(error);
        }
        let (hidden, head) = (state.0, self.graph().head().name());
        // What comes of the last layer goes to the final norm and the head.
        ModelError::of_input(head, &hidden).map_or(Ok(()), Err)?;
        for block in 0..tokens.len().div_ceil(HEAD_ROWS) {
            let mut ops = Fixed::new(self.options().level, &[]);
            let x = ops.leaf(block_rows(&hidden, block));
            let logits = Arc::unwrap_or_clone(self.graph().logits(&mut ops, &x).matrix);
            if let Some(at) = logits.data.iter().position(|logit| !logit.is_finite()) {
                let value = logits.data[at].to_string();
                let (row, index) = (block * HEAD_ROWS + at / logits.width, at % logits.width);
                return Err(ModelError::NotFinite { row, index, value });
            }
        }
        Ok(())
    }
}

impl ModelError {
    /// The first element of `input` that is not finite, as an error about the weights `tensor` that meet it.
    pub fn of_input(tensor: &str, input: &Matrix) -> Option<ModelError> {
        if input.is_finite() {
            return None;
        }
        let at = input.data.iter().position(|x| !x.is_finite())?;
        let (token, value) = (at / input.width.max(1), input.data[at].to_string());
        Some(ModelError::Activations { tensor: tensor.to_owned(), token, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_far() {
        assert_eq!(divergence(f64::NAN), f64::INFINITY);
        assert_eq!(divergence(f64::NEG_INFINITY), f64::INFINITY);
        assert_eq!((divergence(-1e-18), divergence(0.25)), (0.0, 0.25));
    }

    #[test]
    fn all_of_many() {
        let mut values = vec![f32::MAX; 100];
        assert!(all_finite(&values) && all_finite(&[]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            values[77] = bad;
            assert!(!all_finite(&values), "{bad}");
        }
    }
}
