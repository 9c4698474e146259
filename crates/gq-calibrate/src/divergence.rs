//! How far two rows of logits are from each other.

use gq_model::arithmetic::softmax;

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
    of_sum(sum)
}

/// `ln sum e^z`.
fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&z| f64::from(gq_tensor::math::exp(z - largest))).sum();
    f64::from(largest) + libm::log(sum)
}

/// A sum of `p (ln p - ln q)` as a divergence, in the same unit: rounding can leave a hair below zero, and what is no
/// number is infinitely far. Were it 0, a model that computes nothing would be the closest of all.
fn of_sum(sum: f64) -> f64 {
    if sum.is_finite() { sum.max(0.0) } else { f64::INFINITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_far() {
        assert_eq!(of_sum(f64::NAN), f64::INFINITY);
        assert_eq!(of_sum(f64::NEG_INFINITY), f64::INFINITY);
        assert_eq!((of_sum(-1e-18), of_sum(0.25)), (0.0, 0.25));
    }
}
