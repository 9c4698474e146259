//! The divergence of two rows of logits and its slopes, for calibration: the same bits on every machine.

use super::of_sum;
use crate::softmax;

/// `KL(p || q)` in nats of two rows of logits `[vocab]`, infinite where one of them holds what is no finite number; they
/// become p and the divergence's slope by each logit of q, `q - p`. Probabilities are f32, sums f64, one after the other.
pub fn divergence_and_slopes(reference: &mut [f32], logits: &mut [f32]) -> f64 {
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
    of_sum(sum)
}

/// `ln sum e^z`.
fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&z| f64::from(crate::math::exp(z - largest))).sum();
    f64::from(largest) + libm::log(sum)
}
