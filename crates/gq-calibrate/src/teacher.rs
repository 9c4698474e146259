//! How far a model is from its reference, and the gradient of that by factors on rows and norms.

use crate::deterministic::{Deterministic, FactorGradients, Factors, Gradients, Overlay, add_gradients};
use crate::finite::check_activations;
use crate::pass::{HEAD_ROWS, Seen, back, block_rows, logits, rope_tables};
use gq_model::{Matrix, Model, ModelError};
use gq_tensor::divergence::divergence_and_slopes;
use rayon::prelude::*;
use std::sync::Arc;

/// What the reference makes of one sequence: its last hidden states `[tokens, hidden]`, of which logits are
/// computed a block at a time.
#[derive(Clone, Debug)]
pub struct Teacher<'m> {
    model: &'m Model,
    tokens: Vec<u32>,
    hidden: Arc<Matrix>,
}

impl<'m> Teacher<'m> {
    /// Runs the reference over a sequence from position 0.
    ///
    /// # Errors
    /// For an empty sequence or a token beyond the vocabulary, and with the first weights that meet them when the
    /// reference computes what is no finite number.
    pub fn new(model: &'m Model, tokens: Vec<u32>) -> Result<Teacher<'m>, ModelError> {
        model.check_tokens(&tokens)?;
        let ropes = rope_tables(model, tokens.len());
        let mut ops = Deterministic::new(model.options().level, &ropes);
        let hidden = model.graph().hidden(&mut ops, &tokens).matrix;
        if !hidden.is_finite() {
            check_activations(model, &tokens)?;
        }
        Ok(Teacher { model, tokens, hidden })
    }

    /// The sequence.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Mean divergence `KL(reference || model)` over all positions, in nats per token; infinite where the model
    /// computes what is no finite number.
    ///
    /// # Errors
    /// When the model's vocabulary lacks a token.
    pub fn divergence(&self, model: &Model, factors: &Factors) -> Result<f64, ModelError> {
        model.check_tokens(&self.tokens)?;
        let ropes = rope_tables(model, self.tokens.len());
        let mut ops = Deterministic::new(model.options().level, &ropes);
        ops.overlay = Overlay::factors(factors);
        let hidden = model.graph().hidden(&mut ops, &self.tokens).matrix;
        let mut sum = 0.0;
        for block in 0..self.tokens.len().div_ceil(HEAD_ROWS) {
            let mut logits = logits(model, &hidden, block, Overlay::factors(factors));
            sum += self.compare(block, &mut logits);
        }
        Ok(sum / self.tokens.len() as f64)
    }

    /// The same divergence; its gradient by every factor is added to `gradients`.
    ///
    /// # Errors
    /// When the model's vocabulary lacks a token.
    pub fn gradient(
        &self,
        model: &Model,
        factors: &Factors,
        gradients: &mut FactorGradients,
    ) -> Result<f64, ModelError> {
        model.check_tokens(&self.tokens)?;
        let mut divergence = 0.0;
        let head = &mut |hidden: &Arc<Matrix>, _: Seen<'_>, gradients: &mut FactorGradients| {
            let (mean, dx) = self.head(model, factors, hidden, gradients);
            divergence = mean;
            dx
        };
        back(model, &self.tokens, Some(factors), head, &mut |_, _, _| (), gradients);
        Ok(divergence)
    }

    /// Mean divergence and its gradient at the last hidden states.
    fn head(
        &self,
        model: &Model,
        factors: &Factors,
        hidden: &Matrix,
        gradients: &mut FactorGradients,
    ) -> (f64, Matrix) {
        let mut dx = Matrix { width: hidden.width, data: Vec::with_capacity(hidden.data.len()) };
        let (mut sum, each) = (0.0, 1.0 / self.tokens.len() as f64);
        for block in 0..self.tokens.len().div_ceil(HEAD_ROWS) {
            let mut ops = Deterministic::new(model.options().level, &[]);
            ops.overlay = Overlay::factors(factors);
            ops.tape = Some(Default::default());
            let x = ops.leaf(block_rows(hidden, block));
            let input = x.id;
            let logits = model.graph().logits(&mut ops, &x);
            let mut by_logit = logits.matrix.as_ref().clone();
            sum += self.compare(block, &mut by_logit);
            by_logit.data.iter_mut().for_each(|d| *d *= each as f32);
            let mut at = Gradients::default();
            at.add(logits.id, by_logit);
            ops.backward(&mut at, &mut |_, _, _| ());
            add_gradients(gradients, std::mem::take(&mut ops.by_factor));
            dx.data.extend(at.take(input).unwrap_or_default().data);
        }
        (sum * each, dx)
    }

    /// Sum of the divergences of a block's positions; its logits become `q - p`, the gradient by them.
    fn compare(&self, block: usize, logits: &mut Matrix) -> f64 {
        let mut reference = self::logits(self.model, &self.hidden, block, Overlay::default());
        let width = logits.width;
        let pairs = logits.data.par_chunks_exact_mut(width).zip(reference.data.par_chunks_exact_mut(width));
        let each: Vec<f64> = pairs.map(|(q, p)| divergence_and_slopes(p, q)).collect();
        each.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_checkpoint::Role;
    use gq_suite::tiny as model;
    use gq_tensor::Isa;

    /// Factors near 1 on every norm and every product of the layers.
    fn factors(model: &Model, spread: f32) -> Factors {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let expected = model.spec().expected_tensors();
        let tuned = expected.iter().filter(|t| {
            t.shape.len() <= 2
                && matches!(
                    t.role,
                    Role::Norm
                        | Role::Query
                        | Role::Key
                        | Role::Value
                        | Role::Output
                        | Role::Gate
                        | Role::Up
                        | Role::Down
                )
        });
        tuned.map(|t| (t.name.clone(), (0..t.shape[0]).map(|_| 1.0 + spread * next()).collect())).collect()
    }

    fn tokens(model: &Model) -> Vec<u32> {
        (0..70).map(|i| (i * i * 7 + 3 * i + 5) as u32 % model.vocab_size() as u32).collect()
    }

    #[test]
    fn gradients_by_factors_equal_finite_differences() {
        for name in ["llama", "qwen2", "qwen3", "gemma3", "gemma4-e2b", "gemma4-dense"] {
            let model = model(name, Isa::detect());
            let teacher = Teacher::new(&model, tokens(&model)).unwrap();
            let center = factors(&model, 0.4);
            let mut gradients = FactorGradients::new();
            let value = teacher.gradient(&model, &center, &mut gradients).unwrap();
            let again = teacher.divergence(&model, &center).unwrap();
            assert!((value - again).abs() < 1e-9 + 1e-6 * value, "{name}: {value} {again}");
            assert!(value > 1e-4, "{name}: {value}");
            assert_eq!(gradients.keys().collect::<Vec<_>>(), center.keys().collect::<Vec<_>>(), "{name}");
            // One step against the gradient of each kind of tensor changes the divergence as it says.
            for kind in ["norm", "proj"] {
                let length: f64 = gradients
                    .iter()
                    .filter(|(n, _)| n.contains(kind))
                    .flat_map(|(_, g)| g)
                    .map(|g| g * g)
                    .sum();
                let at = |step: f64| {
                    let mut moved = center.clone();
                    for (tensor, factors) in moved.iter_mut().filter(|(n, _)| n.contains(kind)) {
                        let gradient = &gradients[tensor];
                        factors
                            .iter_mut()
                            .zip(gradient)
                            .for_each(|(f, g)| *f += (step * g / length.sqrt()) as f32);
                    }
                    teacher.divergence(&model, &moved).unwrap()
                };
                let difference = (at(0.02) - at(-0.02)) / 0.04;
                let expected = length.sqrt();
                assert!(
                    (difference - expected).abs() < 0.03 * expected,
                    "{name} {kind}: {difference} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_model_does_not_diverge_from_itself() {
        let model = model("llama", Isa::detect());
        let teacher = Teacher::new(&model, tokens(&model)).unwrap();
        assert!(teacher.divergence(&model, &Factors::new()).unwrap() < 1e-9);
        assert!(teacher.divergence(&model, &factors(&model, 0.4)).unwrap() > 1e-4);
    }

    #[test]
    fn the_same_bits_on_every_level_and_thread_count() {
        let run = |level: Isa, threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let model = model("gemma3", level);
            pool.install(|| {
                let teacher = Teacher::new(&model, tokens(&model)).unwrap();
                let mut gradients = FactorGradients::new();
                let value = teacher.gradient(&model, &factors(&model, 0.2), &mut gradients).unwrap();
                (value.to_bits(), gradients)
            })
        };
        let first = run(Isa::detect(), 1);
        for level in Isa::available() {
            assert_eq!(first, run(level, 3), "{}", level.name());
        }
    }
}
