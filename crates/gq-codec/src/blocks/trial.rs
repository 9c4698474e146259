//! One sub-block of several rows, rounded at given scales with feedback among its columns.

use super::levels::Levels;
use gq_tensor::ggml::IQ4_LEVELS;

/// Rows side by side.
pub(super) const LANES: usize = 16;

/// A number for each of these rows.
pub(super) type Lanes = [f32; LANES];

/// Most columns of a sub-block: a group of integer codes.
pub(super) const WIDEST: usize = 128;

/// Adding it to a number below 2^22 rounds that to an integer, halves to even.
const TO_INTEGER: f32 = 12_582_912.0;

/// What is to be rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct SubBlock<'a> {
    /// Weights of each column.
    pub(super) weights: &'a [Lanes],
    /// The same with what errors of earlier columns feed back to them.
    pub(super) targets: &'a [Lanes],
    /// Feedback among these columns: row j has U[k][j] of every k, zeros from k = j on. Empty where there is none.
    pub(super) feedback: &'a [f32],
    /// What a squared residual of each column costs.
    pub(super) costs: &'a [f32],
}

/// A scale and a minimum for each row: a level is worth `level * step - min`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub(super) step: Lanes,
    pub(super) min: Lanes,
}

/// A rounded sub-block.
#[derive(Clone, Debug)]
pub(super) struct Rounded {
    /// Levels of each column.
    pub(super) levels: [Lanes; WIDEST],
    /// Weights less what they became.
    pub(super) errors: [Lanes; WIDEST],
    /// Targets, with feedback from within, less what they became.
    pub(super) residuals: [Lanes; WIDEST],
    /// Sum of squared residuals times what they cost.
    pub(super) cost: Lanes,
}

impl Rounded {
    pub(super) fn new() -> Rounded {
        let zeros = [[0.0; LANES]; WIDEST];
        Rounded { levels: zeros, errors: zeros, residuals: zeros, cost: [0.0; LANES] }
    }
}

impl SubBlock<'_> {
    /// `U` of these columns times weights, added to the targets: what targets would be if every level were 0.
    pub(super) fn unrounded(&self) -> Vec<Lanes> {
        let mut sums = self.targets.to_vec();
        let width = self.targets.len();
        for (j, sum) in sums.iter_mut().enumerate() {
            if !self.feedback.is_empty() {
                add_products(sum, &self.feedback[j * width..][..j], self.weights);
            }
        }
        sums
    }

    /// What a minimum of one moves each target by.
    pub(super) fn of_ones(&self) -> Vec<f32> {
        let width = self.targets.len();
        let sum = |j: usize| self.feedback[j * width..][..j].iter().sum::<f32>();
        (0..width).map(|j| if self.feedback.is_empty() { 1.0 } else { 1.0 + sum(j) }).collect()
    }

    /// Rounds every column at these scales.
    pub(super) fn round(&self, levels: Levels, scale: &Scale, out: &mut Rounded) {
        let inverse = scale.step.map(|step| if step == 0.0 { 0.0 } else { 1.0 / step });
        let width = self.targets.len();
        out.cost = [0.0; LANES];
        for j in 0..width {
            let mut target = self.targets[j];
            if !self.feedback.is_empty() {
                add_products(&mut target, &self.feedback[j * width..][..j], &out.errors);
            }
            let mut level = [0.0; LANES];
            for lane in 0..LANES {
                level[lane] = (target[lane] + scale.min[lane]) * inverse[lane];
            }
            match levels {
                Levels::Integers { low, high } => to_integers(&mut level, low, high),
                Levels::Iq4 => to_iq4(&mut level),
            }
            let (weights, cost) = (&self.weights[j], self.costs[j]);
            for lane in 0..LANES {
                let value = scale.step[lane] * level[lane] - scale.min[lane];
                let residual = target[lane] - value;
                out.errors[j][lane] = weights[lane] - value;
                out.residuals[j][lane] = residual;
                out.cost[lane] += cost * residual * residual;
            }
            out.levels[j] = level;
        }
    }
}

/// Adds `factors[k] * columns[k]`, one after the other.
fn add_products(sum: &mut Lanes, factors: &[f32], columns: &[Lanes]) {
    for (factor, column) in factors.iter().zip(columns) {
        for lane in 0..LANES {
            sum[lane] += factor * column[lane];
        }
    }
}

/// The nearest integers of a range; what is no number becomes the lowest.
fn to_integers(values: &mut Lanes, low: f32, high: f32) {
    for value in values {
        let bounded = if *value > low { *value } else { low };
        let bounded = if bounded < high { bounded } else { high };
        *value = (bounded + TO_INTEGER) - TO_INTEGER;
    }
}

/// The nearest levels of the IQ4 types.
fn to_iq4(values: &mut Lanes) {
    let mut nearest = [f32::from(IQ4_LEVELS[0]); LANES];
    for pair in IQ4_LEVELS.windows(2) {
        let (low, high) = (f32::from(pair[0]), f32::from(pair[1]));
        let middle = (low + high) / 2.0;
        for lane in 0..LANES {
            nearest[lane] += if values[lane] > middle { high - low } else { 0.0 };
        }
    }
    *values = nearest;
}
