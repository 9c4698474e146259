//! How far a model is from its reference, and the gradient of that by factors on rows and norms.

use crate::ModelError;
use crate::family::Stream;
use crate::finite;
use crate::fixed::{FactorGradients, Factors, Fixed, Gradients, add_gradients};
use crate::layerwise::{Layers, turns};
use crate::matrix::Matrix;
use crate::model::Model;
use crate::softmax::softmax;
use rayon::prelude::*;
use std::sync::Arc;

/// Positions whose logits are held at once, twice.
pub(crate) const HEAD_ROWS: usize = 128;

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
        let turns = turns(model, tokens.len());
        let mut ops = Fixed::new(model.options().level, &turns);
        let hidden = model.graph().hidden(&mut ops, &tokens).matrix;
        if !hidden.is_finite() {
            model.check_activations(&tokens)?;
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
        let turns = turns(model, self.tokens.len());
        let mut ops = Fixed::new(model.options().level, &turns);
        ops.factors = Some(factors);
        let hidden = model.graph().hidden(&mut ops, &self.tokens).matrix;
        let mut sum = 0.0;
        for block in 0..self.tokens.len().div_ceil(HEAD_ROWS) {
            let mut ops = Fixed::new(model.options().level, &[]);
            ops.factors = Some(factors);
            let x = ops.leaf(block_rows(&hidden, block));
            let mut logits = Arc::unwrap_or_clone(model.graph().logits(&mut ops, &x).matrix);
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
        let turns = turns(model, self.tokens.len());
        let mut ops = Fixed::new(model.options().level, &turns);
        ops.factors = Some(factors);
        ops.tape = Some(Default::default());
        let Stream { x, per_layer } = model.graph().start(&mut ops, &self.tokens);
        let vectors = per_layer.as_ref().map(|vectors| vectors.matrix.clone());
        let mut layers = Layers::forward(model, &turns, Some(factors), x.matrix.clone(), vectors);
        let hidden = layers.inputs.pop().unwrap_or_default();
        let (divergence, dx) = self.head(model, factors, &hidden, gradients);
        let (dx, by_vectors) = layers.backward(model, &turns, dx, &mut |_, _, _| (), gradients);
        let mut at = Gradients::default();
        at.add(x.id, dx);
        if let (Some(vectors), Some(by_vectors)) = (per_layer, by_vectors) {
            at.add(vectors.id, by_vectors);
        }
        ops.backward(&mut at, &mut |_, _, _| ());
        add_gradients(gradients, std::mem::take(&mut ops.by_factor));
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
            let mut ops = Fixed::new(model.options().level, &[]);
            ops.factors = Some(factors);
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
        let mut ops = Fixed::new(self.model.options().level, &[]);
        let x = ops.leaf(block_rows(&self.hidden, block));
        let mut reference = Arc::unwrap_or_clone(self.model.graph().logits(&mut ops, &x).matrix);
        let width = logits.width;
        let pairs = logits.data.par_chunks_exact_mut(width).zip(reference.data.par_chunks_exact_mut(width));
        let each: Vec<f64> = pairs.map(|(q, p)| row_divergence(p, q)).collect();
        each.iter().sum()
    }
}

/// `sum p (ln p - ln q)` of two rows of logits, infinite where one of them holds what is no finite number; they become p
/// and `q - p`.
pub(crate) fn row_divergence(reference: &mut [f32], logits: &mut [f32]) -> f64 {
    // ln p - ln q = (zp - zq) - (ln sum e^zp - ln sum e^zq): differences of logits need no logarithm of small numbers.
    let difference: Vec<f32> = reference.iter().zip(logits.iter()).map(|(p, q)| p - q).collect();
    let norm = log_sum(reference) - log_sum(logits);
    softmax(reference);
    softmax(logits);
    let mut sum = 0.0f64;
    for ((p, q), &difference) in reference.iter().zip(logits.iter_mut()).zip(&difference) {
        sum += f64::from(*p) * (f64::from(difference) - norm);
        *q -= p;
    }
    finite::divergence(sum)
}

/// `ln sum e^z`.
fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&z| f64::from(gq_tensor::math::exp(z - largest))).sum();
    f64::from(largest) + libm::log(sum)
}

/// The rows of a block of positions.
pub(crate) fn block_rows(hidden: &Matrix, block: usize) -> Matrix {
    let part = hidden.data.chunks(HEAD_ROWS * hidden.width).nth(block).unwrap_or_default();
    Matrix { width: hidden.width, data: part.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ActivationMode, KvType, RunOptions};
    use gq_checkpoint::{Checkpoint, Role};
    use gq_tensor::Isa;
    use std::path::Path;

    fn model(name: &str, level: Isa) -> Model {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny").join(name);
        let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
        Model::from_checkpoint(Arc::new(Checkpoint::open(path).unwrap()), options).unwrap()
    }

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
