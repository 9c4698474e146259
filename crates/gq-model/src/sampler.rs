//! Choosing the next token.

use gq_tensor::SplitMix64;

/// How tokens are chosen. The default is greedy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides logits; 0: the likeliest token, whatever else is set.
    pub temperature: f32,
    /// The likeliest tokens that are kept; 0: all.
    pub top_k: usize,
    /// Of those, the likeliest that together hold this share of the probability; 1: all.
    pub top_p: f32,
    /// Of those, tokens at least this share as likely as the likeliest; 0: all.
    pub min_p: f32,
    /// Divides positive logits of tokens that were there already, and multiplies negative ones (Keskar et al. 2019,
    /// section 4.1); 1: none.
    pub repetition_penalty: f32,
    /// Source of randomness: the same seed chooses the same tokens.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Sampling {
        Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// A sampler with its random numbers.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    words: SplitMix64,
    /// (token, probability), reused.
    candidates: Vec<(u32, f64)>,
    /// Logits after the penalty, reused.
    penalized: Vec<f32>,
}

/// Logits this far below the largest, after the temperature, have a probability below 1e-19 and are not looked at.
const NEGLIGIBLE: f32 = 45.0;

impl Sampler {
    /// A sampler at the beginning of its random numbers.
    pub fn new(sampling: Sampling) -> Sampler {
        Sampler {
            sampling,
            words: SplitMix64::new(sampling.seed),
            candidates: Vec::new(),
            penalized: Vec::new(),
        }
    }

    /// Chooses a token; of equally likely ones the first. 0 for no logits.
    pub fn sample(&mut self, logits: &[f32]) -> u32 {
        let best = argmax(logits);
        if self.sampling.temperature <= 0.0 {
            return best;
        }
        self.limit(logits, best);
        let target = SplitMix64::unit(self.words.next_word()) * total(&self.candidates);
        let mut sum = 0.0;
        let chosen = self.candidates.iter().find(|(_, weight)| {
            sum += weight;
            target < sum
        });
        chosen.or(self.candidates.first()).map_or(best, |(token, _)| *token)
    }

    /// The same after the tokens of `context`, for which the repetition penalty counts.
    pub fn sample_after(&mut self, logits: &[f32], context: &[u32]) -> u32 {
        if self.sampling.repetition_penalty == 1.0 {
            return self.sample(logits);
        }
        let penalized = self.penalize(logits, context);
        let token = self.sample(&penalized);
        self.penalized = penalized;
        token
    }

    /// Tokens that can be chosen after `context` and their probabilities, the likeliest first.
    pub fn distribution(&mut self, logits: &[f32], context: &[u32]) -> Vec<(u32, f64)> {
        let logits = self.penalize(logits, context);
        let best = argmax(&logits);
        if self.sampling.temperature <= 0.0 {
            return vec![(best, 1.0)];
        }
        self.limit(&logits, best);
        let total = total(&self.candidates);
        self.candidates.iter().map(|(token, weight)| (*token, weight / total)).collect()
    }

    fn penalize(&mut self, logits: &[f32], context: &[u32]) -> Vec<f32> {
        let penalty = self.sampling.repetition_penalty;
        let mut penalized = std::mem::take(&mut self.penalized);
        penalized.clear();
        penalized.extend_from_slice(logits);
        // Once per token, however often it was there: the change is made to what the model said.
        for &token in context {
            let at = token as usize;
            if let (Some(changed), Some(&logit)) = (penalized.get_mut(at), logits.get(at)) {
                *changed = if logit < 0.0 { logit * penalty } else { logit / penalty };
            }
        }
        penalized
    }

    /// Fills `candidates` with the tokens that the limits leave and their weights.
    fn limit(&mut self, logits: &[f32], best: u32) {
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let largest = logits.get(best as usize).copied().unwrap_or(0.0);
        let floor = largest - NEGLIGIBLE * temperature;
        // Not the platform's: what a model writes may be what it is calibrated on.
        let weight = |logit: f32| libm::exp(f64::from((logit - largest) / temperature));
        let all = (0u32..).zip(logits).filter(|(_, logit)| **logit >= floor);
        self.candidates.clear();
        self.candidates.extend(all.map(|(token, &logit)| (token, weight(logit))));
        let candidates = &mut self.candidates;
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if top_k > 0 {
            candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            let limit = f64::from(top_p) * total(candidates);
            let mut sum = 0.0;
            let kept = candidates.iter().take_while(|(_, weight)| {
                let before = sum;
                sum += weight;
                before < limit
            });
            let kept = kept.count().max(1);
            candidates.truncate(kept);
        }
        candidates.retain(|(_, weight)| *weight >= f64::from(min_p));
    }
}

/// The largest logit's token; of equals the first.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0u32..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}

fn total(candidates: &[(u32, f64)]) -> f64 {
    candidates.iter().map(|(_, weight)| weight).sum()
}
