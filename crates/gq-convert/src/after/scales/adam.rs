//! Adam (arXiv 1412.6980, algorithm 1) in f64 on factors by tensor.

use gq_calibrate::{FactorGradients, Factors};
use std::collections::BTreeMap;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.95;
const EPSILON: f64 = 1e-12;

/// Running means of gradients and of their squares.
pub(super) struct Adam {
    moments: BTreeMap<String, Vec<(f64, f64)>>,
    /// `BETA1^t` and `BETA2^t`.
    powers: (f64, f64),
}

impl Adam {
    pub(super) fn new() -> Adam {
        Adam { moments: BTreeMap::new(), powers: (1.0, 1.0) }
    }

    /// Moves every factor that has a gradient by up to `rate(tensor) * schedule`.
    pub(super) fn step(
        &mut self,
        factors: &mut Factors,
        gradients: &FactorGradients,
        schedule: f64,
        rate: &dyn Fn(&str) -> f64,
    ) {
        self.powers = (self.powers.0 * BETA1, self.powers.1 * BETA2);
        let (first, second) = (1.0 - self.powers.0, 1.0 - self.powers.1);
        for (name, factors) in factors {
            let Some(gradient) = gradients.get(name) else { continue };
            let moments = self.moments.entry(name.clone()).or_insert_with(|| vec![(0.0, 0.0); factors.len()]);
            let rate = rate(name) * schedule;
            for ((factor, &g), (m, v)) in factors.iter_mut().zip(gradient).zip(moments) {
                // What is no number moves nothing, now or in later steps.
                let g = if g.is_finite() { g } else { 0.0 };
                *m = BETA1 * *m + (1.0 - BETA1) * g;
                *v = BETA2 * *v + (1.0 - BETA2) * g * g;
                let change = rate * (*m / first) / ((*v / second).sqrt() + EPSILON);
                if change.is_finite() {
                    *factor = (f64::from(*factor) - change) as f32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quadratic_is_brought_to_its_least() {
        let mut factors = Factors::from([("a".to_owned(), vec![1.0f32, 1.0])]);
        let least = [0.9, 1.2];
        let mut adam = Adam::new();
        for step in 0..400 {
            let gradient = factors["a"].iter().zip(least).map(|(&x, least)| f64::from(x) - least).collect();
            let gradients = FactorGradients::from([("a".to_owned(), gradient)]);
            adam.step(&mut factors, &gradients, 1.0 - f64::from(step) / 400.0, &|_| 5e-3);
        }
        for (x, least) in factors["a"].iter().zip(least) {
            assert!((f64::from(*x) - least).abs() < 2e-3, "{x} {least}");
        }
    }

    #[test]
    fn a_gradient_that_is_no_number_spoils_no_later_step() {
        let mut factors = Factors::from([("a".to_owned(), vec![1.0f32])]);
        let mut adam = Adam::new();
        for gradient in [f64::NAN, f64::INFINITY] {
            adam.step(&mut factors, &FactorGradients::from([("a".to_owned(), vec![gradient])]), 1.0, &|_| {
                1e-2
            });
            assert_eq!(factors["a"], [1.0]);
        }
        adam.step(&mut factors, &FactorGradients::from([("a".to_owned(), vec![1e-3])]), 1.0, &|_| 1e-2);
        assert!(factors["a"][0] < 0.999, "{factors:?}");
    }

    #[test]
    fn the_first_step_is_the_rate() {
        let mut factors = Factors::from([("a".to_owned(), vec![1.0f32])]);
        let gradients = FactorGradients::from([("a".to_owned(), vec![1e-7])]);
        Adam::new().step(&mut factors, &gradients, 1.0, &|_| 1e-2);
        assert!((factors["a"][0] - 0.99).abs() < 1e-5);
    }
}
