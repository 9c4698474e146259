//! The Kullback-Leibler divergence of two rows of logits, for calibration and evaluation alike:
//! `KL(p || q) = sum p (ln p - ln q)` in nats, `p = softmax(reference)`, `q = softmax(model)`.
//!
//! With z the logits, `ln p - ln q = (zp - zq) - (ln sum e^zp - ln sum e^zq)`: nobody takes the logarithm of a small
//! probability. Both arithmetics are here: [`compare`] gives every figure of an evaluation in one pass of f64, and
//! [`divergence_and_slopes`] what calibration stores, in the order of operations that stored measurements were made in.
//! Why there are two is in `docs/decisions/two-arithmetics-of-the-divergence.md`.

mod exponential;
mod figures;
mod slopes;

pub use figures::{Divergence, compare};
pub use slopes::divergence_and_slopes;

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

    /// Rows of logits, and others at a distance of about `far` from them.
    fn rows(far: f32) -> impl Iterator<Item = (Vec<f32>, Vec<f32>)> {
        (0..40).map(move |row| {
            let wave = |i: usize, step: f32| ((i * 7 + row * 13) as f32 * step).sin();
            let reference: Vec<f32> = (0..1000).map(|i| 9.0 * wave(i, 0.7)).collect();
            let model = reference.iter().enumerate().map(|(i, z)| z + far * wave(i, 1.3)).collect();
            (reference, model)
        })
    }

    fn both(reference: &[f32], model: &[f32]) -> (f64, f64) {
        let stored = divergence_and_slopes(&mut reference.to_vec(), &mut model.to_vec());
        (compare(model, reference, None).kld, stored)
    }

    /// The reasons for two: they are the same number, and not the same bits, which measurements are made of.
    #[test]
    fn two_arithmetics_of_one_divergence_differ_in_bits_alone() {
        for far in [0.01, 0.1, 1.0] {
            let mut differ = 0;
            for (reference, model) in rows(far) {
                let (evaluated, stored) = both(&reference, &model);
                assert!(evaluated > 1e-6, "{evaluated}");
                // Probabilities of f32 have a relative error of 2^-22; that of the sum is some times that of `sum p |d|`,
                // which is about the square root of the divergence.
                let allowed = 1e-6 * evaluated.sqrt();
                assert!((evaluated - stored).abs() < allowed, "{far}: {evaluated} {stored}");
                differ += usize::from(evaluated.to_bits() != stored.to_bits());
            }
            assert!(differ > 30, "{far}: only {differ} of 40 differ: one of the two can go");
        }
    }

    #[test]
    fn slopes_are_those_of_the_divergence() {
        for (reference, model) in rows(1.0).take(3) {
            let (mut p, mut slopes) = (reference.clone(), model.clone());
            divergence_and_slopes(&mut p, &mut slopes);
            assert!((p.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            for at in [0, 17, 400, 999] {
                let step = 1.0 / 64.0;
                let moved = |by: f32| {
                    let mut model = model.clone();
                    model[at] += by;
                    compare(&model, &reference, None).kld
                };
                let numeric = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                assert!((numeric - f64::from(slopes[at])).abs() < 1e-6, "{at}: {numeric} {}", slopes[at]);
            }
        }
    }

    #[test]
    fn both_call_what_is_no_number_infinitely_far() {
        let fine = vec![1.0f32; 40];
        for bad in [f32::NAN, f32::INFINITY] {
            let broken: Vec<f32> =
                fine.iter().enumerate().map(|(i, z)| if i == 5 { bad } else { *z }).collect();
            for (reference, model) in [(&fine, &broken), (&broken, &fine)] {
                assert_eq!(both(reference, model), (f64::INFINITY, f64::INFINITY), "{bad}");
            }
        }
    }
}
