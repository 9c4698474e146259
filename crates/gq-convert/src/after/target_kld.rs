//! Finds the smallest file that stays as close as asked for, by what finished files measure.

use super::finite::{NotFinite, check_reference, teacher};
use gq_calibrate::{Factors, MeasurementsDir, MeasurementsError};
use gq_container::Container;
use gq_model::{LoadError, Model, ModelError};
use std::path::Path;
use std::sync::Arc;

/// What is measured may lie so far below the limit, as a part of it: nearer costs conversions and saves next to nothing.
const NEAR: f64 = 0.03;

/// Part of what was allowed that is tried after a file that computed no numbers.
const BROKEN: f64 = 0.25;

/// What divergence to plan for next, so that the one that is measured meets a limit: expectations come from sums over
/// tensors, which know little of how their errors act together.
#[derive(Clone, Debug)]
pub struct TargetKld {
    limit: f64,
    /// What the next file is planned for.
    allowed: f64,
    /// The largest that was kept to and the smallest that was not, as planned for.
    kept: Option<f64>,
    missed: Option<f64>,
    rounds: usize,
}

impl TargetKld {
    /// Most files that are made.
    pub const MOST_FILES: usize = 6;

    /// Divergence in nats per token that files are to keep to when they are measured.
    pub fn new(limit: f64) -> TargetKld {
        TargetKld { limit, allowed: limit, kept: None, missed: None, rounds: 0 }
    }

    /// What to plan for.
    pub fn allowed(&self) -> f64 {
        self.allowed
    }

    /// Plans for so much next, where what was to be planned for cannot be had.
    pub fn plan_for(&mut self, allowed: f64) {
        self.allowed = allowed;
    }

    /// Takes in what was measured of a file planned for [`allowed`](Self::allowed); whether to make another one.
    pub fn measured(&mut self, divergence: f64) -> bool {
        self.rounds += 1;
        if divergence <= self.limit {
            self.kept = Some(self.kept.unwrap_or(0.0).max(self.allowed));
            if divergence >= self.limit * (1.0 - NEAR) {
                return false;
            }
        } else {
            self.missed = Some(self.missed.unwrap_or(f64::INFINITY).min(self.allowed));
        }
        // In proportion, toward the middle of what is near enough; between what is known where that leads out of it.
        let proportion = match divergence.is_finite() {
            true => self.limit * (1.0 - NEAR / 2.0) / divergence,
            // How much nearer a file must be that computes at all, nothing says.
            false => BROKEN,
        };
        let (low, high) = (self.kept.unwrap_or(0.0), self.missed.unwrap_or(f64::INFINITY));
        let next = self.allowed * proportion;
        self.allowed = match next > low && next < high {
            true => next,
            false if low > 0.0 && high.is_finite() => (low * high).sqrt(),
            false => return false,
        };
        self.rounds < TargetKld::MOST_FILES && self.allowed.is_finite()
    }
}

/// A file's mean divergence that could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum TargetKldError {
    /// The file cannot be opened.
    #[error(transparent)]
    Container(#[from] gq_container::ContainerError),
    /// The file cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The reference computes what is no finite number.
    #[error(transparent)]
    NotFinite(#[from] NotFinite),
    /// Held-out tokens that the model does not have.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Measurements that cannot be read.
    #[error(transparent)]
    Measurements(#[from] MeasurementsError),
}

/// Mean divergence of the file at `path` from `reference` on the sequences that `measurements` held out, in nats per token, and
/// their tokens; `None` where it kept none. Infinite where the file computes what is no finite number. The same on every
/// instruction set and thread count.
///
/// # Errors
/// [`TargetKldError`].
pub fn held_out_divergence(
    measurements: &MeasurementsDir,
    reference: &Model,
    path: &Path,
) -> Result<Option<(f64, usize)>, TargetKldError> {
    let sequences = measurements.held_out()?;
    if sequences.is_empty() {
        return Ok(None);
    }
    let model = Model::from_container(Arc::new(Container::open(path)?), reference.options())?;
    let (mut sum, mut tokens) = (0.0, 0);
    for sequence in sequences {
        let length = sequence.len();
        let teacher = teacher::<TargetKldError>(reference, sequence)?;
        let divergence = teacher.divergence(&model, &Factors::new())?;
        if !divergence.is_finite() {
            check_reference::<TargetKldError>(reference, teacher.tokens())?;
        }
        sum += length as f64 * divergence;
        tokens += length;
    }
    Ok(Some((sum / tokens.max(1) as f64, tokens)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plans until it stops; what was measured of the files, in order.
    fn search(limit: f64, measure: impl Fn(f64) -> f64) -> Vec<f64> {
        let (mut target, mut seen) = (TargetKld::new(limit), Vec::new());
        loop {
            seen.push(measure(target.allowed()));
            if !target.measured(seen[seen.len() - 1]) {
                return seen;
            }
        }
    }

    fn best(seen: &[f64], limit: f64) -> f64 {
        seen.iter().copied().filter(|&x| x <= limit).fold(0.0, f64::max)
    }

    #[test]
    fn measured_divergences_come_near_the_limit_from_below() {
        let measures: [fn(f64) -> f64; 5] = [
            |x| x,
            |x| 1.7 * x,
            |x| 0.4 * x,
            |x| 3.0 * x + 20.0 * x * x,
            // In steps, as encodings are.
            |x| 1.3 * (x * 400.0).round() / 400.0,
        ];
        for measure in measures {
            for limit in [0.01, 0.05, 0.3] {
                let seen = search(limit, measure);
                assert!(seen.len() <= TargetKld::MOST_FILES, "{seen:?}");
                let best = best(&seen, limit);
                assert!(best >= 0.75 * limit && best <= limit, "{limit} {seen:?}");
            }
        }
    }

    #[test]
    fn what_never_meets_the_limit_ends() {
        let seen = search(0.01, |_| 0.5);
        assert!(seen.len() <= TargetKld::MOST_FILES && best(&seen, 0.01) == 0.0, "{seen:?}");
        // A file that computes no numbers keeps to no limit; nearer ones may.
        for broken in [f64::INFINITY, f64::NAN] {
            let seen = search(0.1, |allowed| if allowed > 0.02 { broken } else { allowed });
            assert!(seen.len() > 1 && seen.iter().any(|&x| x <= 0.02), "{seen:?}");
            assert!(search(0.1, |_| broken).iter().all(|x| !x.is_finite()));
        }
        // Nothing that could be given up.
        assert_eq!(search(0.01, |_| 0.0).len(), 1);
    }
}
