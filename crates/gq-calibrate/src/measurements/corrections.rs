//! What trials say of the predictions: a factor for each group of tensors, and a level for the whole.

use serde::{Deserialize, Serialize};

/// Version of the rules below.
const FORMAT: u32 = 1;

/// How far a factor may lie from the mean.
const FARTHEST: f64 = 16.0;

/// Predictions compared with measured divergences on text that the moments hold out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Corrections {
    /// Version of the rules.
    pub format: u32,
    /// Tokens that were asked for.
    pub asked_tokens: usize,
    /// Tokens that divergences were measured on.
    pub tokens: usize,
    /// Encoding that the groups were rounded to.
    pub encoding: String,
    /// Measured by predicted divergence, over all groups.
    pub mean_factor: f64,
    /// Groups of tensors, each rounded alone.
    pub groups: Vec<GroupTrial>,
    /// Everything rounded together, the smallest error first.
    pub whole: Vec<WholeTrial>,
}

/// A group of tensors that was rounded alone. Divergences are in nats per token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupTrial {
    /// Role, and which part of the layers.
    pub name: String,
    /// Names of the tensors.
    pub tensors: Vec<String>,
    /// Sum of the predictions.
    pub predicted: f64,
    /// Measured divergence.
    pub measured: f64,
    /// Standard error of that, from sequence to sequence.
    pub standard_error: f64,
    /// What predictions are multiplied by.
    pub factor: f64,
}

/// All groups rounded together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WholeTrial {
    /// Part of the rounding error that was applied.
    pub share: f64,
    /// Sum of the predictions, corrected group by group.
    pub predicted: f64,
    /// Measured divergence.
    pub measured: f64,
    /// Standard error of that.
    pub standard_error: f64,
}

/// What trials were made with.
pub(crate) struct TrialConditions {
    /// Tokens asked for.
    pub asked_tokens: usize,
    /// Tokens that they were measured on.
    pub tokens: usize,
    /// What weights were rounded to.
    pub encoding: String,
}

impl Corrections {
    /// From divergences by trial and sequence: the groups in order, then the wholes with the shares given.
    /// Groups have names, tensors and predictions; those are `comparable` from group to group where gradients made them.
    pub(crate) fn new(
        of: TrialConditions,
        mut groups: Vec<GroupTrial>,
        comparable: bool,
        shares: &[f64],
        divergences: &[Vec<f64>],
    ) -> Corrections {
        for (group, measured) in groups.iter_mut().zip(divergences) {
            (group.measured, group.standard_error) = mean_and_error(measured);
        }
        let mean_factor = if comparable { weigh(&mut groups) } else { replace(&mut groups) };
        let corrected: f64 = groups.iter().map(|group| group.factor * group.predicted).sum();
        let wholes = shares.iter().zip(divergences.iter().skip(groups.len()));
        let mut whole: Vec<WholeTrial> = wholes
            .map(|(&share, measured)| {
                let (measured, standard_error) = mean_and_error(measured);
                WholeTrial { share, predicted: share * share * corrected, measured, standard_error }
            })
            .collect();
        whole.sort_by(|a, b| a.predicted.total_cmp(&b.predicted));
        let TrialConditions { asked_tokens, tokens, encoding } = of;
        Corrections { format: FORMAT, asked_tokens, tokens, encoding, mean_factor, groups, whole }
    }

    /// Whether this version of the program knows the rules that it was made by.
    pub(crate) fn is_known(&self) -> bool {
        self.format == FORMAT
    }

    /// What a tensor's prediction is multiplied by; one that was in no trial has the mean.
    pub fn factor(&self, tensor: &str) -> f64 {
        let group = self.groups.iter().find(|group| group.tensors.iter().any(|name| name == tensor));
        group.map_or(self.mean_factor, |group| group.factor)
    }

    /// Divergence of a model whose tensors' corrected predictions sum to `sum`: on straight lines through nothing
    /// and what was measured with everything rounded, and on in the last one's proportion.
    pub(crate) fn level(&self, sum: f64) -> f64 {
        self.map(sum, |x, y| (x, y))
    }

    /// The sum at which the level is `divergence`.
    pub(crate) fn sum_at(&self, divergence: f64) -> f64 {
        self.map(divergence, |x, y| (y, x))
    }

    fn map(&self, at: f64, order: impl Fn(f64, f64) -> (f64, f64)) -> f64 {
        let mut last = (0.0, 0.0);
        let mut slope = 1.0;
        for point in &self.whole {
            let (x, y) = order(point.predicted, point.measured);
            // Points that do not rise say nothing.
            if x <= last.0 || y <= last.1 {
                continue;
            }
            if at <= x {
                return last.1 + (at - last.0) * ((y - last.1) / (x - last.0));
            }
            (last, slope) = ((x, y), y / x);
        }
        at * slope
    }
}

/// Gives every group its factor; returns the mean.
///
/// With `f = measured / predicted` and its standard error `e`, the mean is `c = sum measured / sum predicted` and the
/// variance of true factors `t = mean((f - c)^2 - e^2)`, at least 0, weighed by `predicted / (1 + (e / c)^2)`. A factor is
/// `c + (f - c) t / (t + e^2)`: what lies within its noise goes to the mean, what lies far beyond it stays.
fn weigh(groups: &mut [GroupTrial]) -> f64 {
    let known = |group: &&GroupTrial| group.predicted > 0.0 && group.measured.is_finite();
    let predicted: f64 = groups.iter().filter(known).map(|group| group.predicted).sum();
    let measured: f64 = groups.iter().filter(known).map(|group| group.measured).sum();
    let mean = if predicted > 0.0 && measured > 0.0 { measured / predicted } else { 1.0 };
    let parts = |group: &GroupTrial| {
        let (f, e) = (group.measured / group.predicted, group.standard_error / group.predicted);
        (f - mean, e * e)
    };
    let (mut spread, mut weights) = (0.0, 0.0);
    for group in groups.iter().filter(known) {
        let (off, noise) = parts(group);
        let weight = group.predicted / (1.0 + noise / (mean * mean));
        spread += weight * (off * off - noise);
        weights += weight;
    }
    let spread = if weights > 0.0 { f64::max(spread / weights, 0.0) } else { 0.0 };
    for group in groups {
        group.factor = mean;
        if known(&&*group) {
            let (off, noise) = parts(group);
            let kept = if spread > 0.0 { spread / (spread + noise) } else { 0.0 };
            group.factor = (mean + off * kept).clamp(mean / FARTHEST, mean * FARTHEST);
        }
    }
    mean
}

/// Gives every group the factor that makes its prediction what was measured, or the standard error of that where it is
/// larger; returns the mean. Without gradients a prediction is a layer's own error: within a group it tells tensors apart,
/// between groups it says nothing.
fn replace(groups: &mut [GroupTrial]) -> f64 {
    let known = |group: &&mut GroupTrial| group.predicted > 0.0 && group.measured.is_finite();
    let (mut predicted, mut measured) = (0.0, 0.0);
    for group in groups.iter_mut().filter(known) {
        let found = group.measured.max(group.standard_error);
        group.factor = found / group.predicted;
        predicted += group.predicted;
        measured += found;
    }
    let mean = if predicted > 0.0 && measured > 0.0 { measured / predicted } else { 1.0 };
    groups.iter_mut().filter(|group| group.factor <= 0.0).for_each(|group| group.factor = mean);
    mean
}

/// Mean over sequences and its standard error; of one sequence, as much as the mean itself.
fn mean_and_error(each: &[f64]) -> (f64, f64) {
    let n = each.len().max(1) as f64;
    let mean = each.iter().sum::<f64>() / n;
    let squares: f64 = each.iter().map(|x| (x - mean) * (x - mean)).sum();
    match each.len() {
        0 | 1 => (mean, mean),
        _ => (mean, (squares / (n - 1.0) / n).sqrt()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(tokens: usize, encoding: &str) -> TrialConditions {
        TrialConditions { asked_tokens: tokens, tokens, encoding: encoding.to_owned() }
    }

    fn group(predicted: f64) -> GroupTrial {
        GroupTrial {
            name: String::new(),
            tensors: vec![format!("t{predicted}")],
            predicted,
            measured: 0.0,
            standard_error: 0.0,
            factor: 1.0,
        }
    }

    #[test]
    fn factors_follow_what_is_beyond_the_noise() {
        let groups = vec![group(0.01), group(0.02), group(0.04), group(0.005)];
        let measured = [
            vec![0.030, 0.031, 0.029],
            vec![0.020, 0.0205, 0.0195],
            vec![0.040, 0.042, 0.038],
            vec![0.001, 0.060, 0.002], // noise
            vec![0.03, 0.03, 0.03],
            vec![0.2, 0.2, 0.2],
        ];
        let made = Corrections::new(conditions(12, "tt3"), groups, true, &[0.5, 1.0], &measured);
        let mean = made.mean_factor;
        assert!((mean - 0.111 / 0.075).abs() < 1e-9, "{mean}");
        assert!((made.factor("t0.01") - 3.0).abs() < 0.1, "{made:?}");
        assert!((made.factor("t0.02") - 1.0).abs() < 0.1);
        let noisy = made.factor("t0.005");
        assert!((noisy - mean).abs() < 0.3 * (4.2 - mean), "{noisy}");
        assert_eq!(made.factor("another"), mean);
        // Two points and what is beyond them; there and back.
        let sum = made.whole[1].predicted;
        assert!((made.whole[0].predicted - sum / 4.0).abs() < 1e-12);
        assert!((made.level(sum / 4.0) - 0.03).abs() < 1e-12);
        assert!((made.level(2.0 * sum) - 0.4).abs() < 1e-12);
        for x in [0.0, 0.01 * sum, 0.25 * sum, 0.6 * sum, sum, 3.0 * sum] {
            assert!((made.sum_at(made.level(x)) - x).abs() < 1e-12 + 1e-9 * x, "{x}");
        }
    }

    #[test]
    fn without_gradients_a_group_costs_what_was_measured() {
        // Errors of layers' outputs are thousands apart, and so are what they are measured to cost.
        let groups = vec![group(100.0), group(0.02), group(5.0)];
        let measured = [vec![0.010, 0.011, 0.009], vec![0.020, 0.021, 0.019], vec![-1e-4, 2e-4, 0.0]];
        let made = Corrections::new(conditions(12, "tt3"), groups, false, &[], &measured);
        assert!((made.factor("t100") * 100.0 - 0.010).abs() < 1e-12, "{made:?}");
        assert!((made.factor("t0.02") * 0.02 - 0.020).abs() < 1e-12);
        // What was measured is within its noise: as much as that.
        let error = made.groups[2].standard_error;
        assert!((made.factor("t5") * 5.0 - error).abs() < 1e-12 && error > 5e-5);
    }

    #[test]
    fn one_sequence_and_nothing_measured_leave_the_mean() {
        let made = Corrections::new(
            conditions(1, ""),
            vec![group(0.01), group(0.03)],
            true,
            &[1.0],
            &[vec![0.02], vec![0.03], vec![0.05]],
        );
        assert!(made.groups.iter().all(|group| group.factor == made.mean_factor), "{made:?}");
        let made = Corrections::new(conditions(0, ""), vec![], true, &[], &[]);
        assert_eq!((made.mean_factor, made.level(0.3), made.sum_at(0.3)), (1.0, 0.3, 0.3));
    }
}
