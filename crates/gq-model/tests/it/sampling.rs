//! Sampling: limits, frequencies, and the same tokens for the same seed.

use crate::fixtures::testdata;
use gq_model::{Sampler, Sampling, argmax};
use serde::Deserialize;

/// Probabilities 0.5, 0.25, 0.15, 0.1 in another order, and tokens that never come.
fn logits() -> Vec<f32> {
    [0.15f32, 1e-30, 0.5, 0.1, 0.25].iter().map(|p| p.ln() + 3.0).collect()
}

fn draw(sampling: Sampling, count: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(sampling);
    (0..count).map(|_| sampler.sample(&logits())).collect()
}

fn shares(sampling: Sampling) -> [f64; 5] {
    let mut shares = [0.0; 5];
    draw(sampling, 20_000).into_iter().for_each(|token| shares[token as usize] += 1.0 / 20_000.0);
    shares
}

fn check(sampling: Sampling, expected: [f64; 5]) {
    let shares = shares(Sampling { seed: 5, ..sampling });
    let close = shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() < 0.015);
    assert!(close, "{shares:?} for {sampling:?}");
}

const WARM: Sampling =
    Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 };

#[test]
fn limits_cut_where_they_should() {
    check(WARM, [0.15, 0.0, 0.5, 0.1, 0.25]);
    check(Sampling { top_k: 2, ..WARM }, [0.0, 0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    check(Sampling { top_p: 0.76, ..WARM }, [0.15 / 0.9, 0.0, 0.5 / 0.9, 0.0, 0.25 / 0.9]);
    check(Sampling { top_p: 0.0, ..WARM }, [0.0, 0.0, 1.0, 0.0, 0.0]);
    check(Sampling { min_p: 0.4, ..WARM }, [0.0, 0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    let square = [0.0225, 0.0, 0.25, 0.01, 0.0625].map(|p| p / 0.345);
    check(Sampling { temperature: 0.5, ..WARM }, square);
}

#[test]
fn cold_is_greedy_and_ties_take_the_first() {
    assert!(draw(Sampling { top_k: 3, seed: 9, ..Sampling::default() }, 10).iter().all(|&token| token == 2));
    assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
    assert_eq!(argmax(&[f32::NEG_INFINITY, -1e30]), 1);
}

/// The first tokens of a seed are written down: they are the same on every machine.
#[test]
fn a_seed_fixes_the_tokens() {
    let seeded = |seed| draw(Sampling { seed, ..WARM }, 16);
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
    assert_eq!(seeded(0), EXPECTED);
}

const EXPECTED: [u32; 16] = [0, 2, 2, 3, 2, 2, 2, 0, 2, 3, 2, 0, 4, 4, 4, 4];

/// A case of `testdata/sampling/transformers.json`.
#[derive(Deserialize)]
struct Case {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    context: Vec<u32>,
    logits: Vec<f32>,
    /// Probability of each token after transformers' processors, in float64.
    probabilities: Vec<f64>,
}

#[test]
fn distributions_are_those_of_transformers() {
    let text = std::fs::read_to_string(testdata("sampling/transformers.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 20);
    for (index, case) in cases.into_iter().enumerate() {
        let Case { temperature, top_k, top_p, min_p, repetition_penalty, .. } = case;
        let sampling = Sampling { temperature, top_k, top_p, min_p, repetition_penalty, seed: 0 };
        let mut actual = vec![0.0; case.logits.len()];
        for (token, probability) in Sampler::new(sampling).distribution(&case.logits, &case.context) {
            actual[token as usize] = probability;
        }
        // The reference divides in float64, ours in float32.
        let off = actual.iter().zip(&case.probabilities).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(off < 1e-6, "case {index}, {sampling:?}: {off:e}");
    }
}

#[test]
fn the_penalty_counts_where_tokens_are_chosen() {
    let penalty = Sampling { repetition_penalty: 1.5, ..Sampling::default() };
    let logits = [1.0, 2.9, -1.0, 3.0];
    assert_eq!(Sampler::new(penalty).sample_after(&logits, &[3, 3, 9]), 1);
    assert_eq!(Sampler::new(penalty).sample_after(&logits, &[1]), 3);
    assert_eq!(Sampler::new(Sampling::default()).sample_after(&logits, &[3]), 3);
}
