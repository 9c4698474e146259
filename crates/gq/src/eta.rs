//! How long work will still take: stages with rates of their own, and a clock that the caller reads.

/// What evidence of a stage's own rate must weigh to count as much as what was expected of it, as a part of the stage.
const TRUST: f64 = 0.05;

/// What evidence of this machine's speed must weigh to count as much as having none, as a part of all the work.
const DOUBT: f64 = 0.005;

/// Least time that a stage without an estimate must have run before its own rate says anything, in seconds.
const SETTLED: f64 = 1.0;

/// One stage.
#[derive(Clone, Debug)]
struct Stage {
    /// Seconds that it was expected to take; `None`: nothing is known.
    expected: Option<f64>,
    /// The part of it that is done, 0 to 1.
    done: f64,
    /// When it began and when `done` was last seen to move, in seconds.
    began: Option<f64>,
    seen: f64,
    /// Seconds that it took.
    took: Option<f64>,
}

/// Time left of work in stages, from what was expected of each and what was seen so far.
///
/// Every stage has a rate of its own. What finished stages took beyond what was expected of them slows down what is
/// expected of the others: a loaded machine is slow at everything.
#[derive(Clone, Debug)]
pub struct Eta {
    stages: Vec<Stage>,
    current: usize,
    start: f64,
    /// When the last stage that is over ended.
    since: f64,
}

impl Eta {
    /// Stages in order with the seconds that each is expected to take, and what the clock says now.
    pub fn new(expected: &[Option<f64>], now: f64) -> Eta {
        let stage = |&expected: &Option<f64>| Stage {
            expected: expected.filter(|seconds| seconds.is_finite() && *seconds >= 0.0),
            done: 0.0,
            began: None,
            seen: now,
            took: None,
        };
        Eta { stages: expected.iter().map(stage).collect(), current: 0, start: now, since: now }
    }

    /// Of stage `stage` the part `done` is done at `now`; stages before it are over.
    pub fn set(&mut self, stage: usize, done: f64, now: f64) {
        let stage = stage.min(self.stages.len().saturating_sub(1));
        for index in self.current..stage {
            self.end(index, now);
        }
        self.current = self.current.max(stage);
        let since = self.since;
        if let Some(at) = self.stages.get_mut(stage).filter(|at| at.took.is_none()) {
            // It began when the one before it ended, whenever it is first heard of.
            at.began = at.began.or(Some(since));
            if done > at.done {
                (at.done, at.seen) = (done.min(1.0), now);
            } else if at.done == 0.0 {
                at.seen = at.seen.max(since);
            }
        }
    }

    /// Changes what is expected of a stage that has not begun.
    pub fn expect(&mut self, stage: usize, seconds: Option<f64>) {
        if let Some(stage) = self.stages.get_mut(stage).filter(|stage| stage.began.is_none()) {
            stage.expected = seconds;
        }
    }

    fn end(&mut self, index: usize, now: f64) {
        if let Some(stage) = self.stages.get_mut(index).filter(|stage| stage.took.is_none()) {
            // One that never began was not needed; one that was seen to be done ended then.
            let end = match stage.began {
                Some(_) if stage.done >= 1.0 => stage.seen,
                Some(_) => now,
                None => self.since,
            };
            stage.took = Some(stage.began.map_or(0.0, |began| end - began));
            (stage.done, stage.seen) = (1.0, end);
            self.since = end;
        }
    }

    /// Seconds left at `now`; `None` while nothing is known.
    pub fn left(&self, now: f64) -> Option<f64> {
        let slow = self.slowdown();
        let mut left = 0.0;
        for (index, stage) in self.stages.iter().enumerate().skip(self.current) {
            let seconds =
                if index == self.current { stage.left(slow) } else { stage.expected.map(|e| e * slow) };
            left += seconds?;
        }
        let seen = self.stages.get(self.current).map_or(now, |stage| stage.seen);
        // Between two sights the clock runs; what is left of the step at hand does not fall below a part of it.
        Some((left - (now - seen).max(0.0)).max(0.05 * left))
    }

    /// The part of the time that is over at `now`, 0 to 1; of work that nothing is known of, the part of the stage.
    pub fn share(&self, now: f64) -> f64 {
        let over = (now - self.start).max(0.0);
        match self.left(now) {
            Some(left) if over + left > 0.0 => over / (over + left),
            _ => self.stages.get(self.current).map_or(0.0, |stage| stage.done),
        }
    }

    /// Seconds that what is done took by seconds that were expected of it.
    fn slowdown(&self) -> f64 {
        let all: f64 = self.stages.iter().filter_map(|stage| stage.expected).sum();
        let (mut took, mut expected) = (DOUBT * all, DOUBT * all);
        for stage in &self.stages {
            let Some(seconds) = stage.expected else { continue };
            let so_far = stage.took.or(stage.began.map(|began| stage.seen - began));
            // A stage that was not needed says nothing of the machine.
            if let (Some(so_far), Some(_)) = (so_far, stage.began) {
                took += so_far;
                expected += seconds * stage.done;
            }
        }
        if expected > 0.0 { took / expected } else { 1.0 }
    }
}

impl Stage {
    /// Seconds left of a stage in progress.
    fn left(&self, slow: f64) -> Option<f64> {
        let rest = 1.0 - self.done;
        let so_far = self.began.map_or(0.0, |began| self.seen - began);
        let own = (self.done > 0.0).then(|| so_far / self.done * rest);
        match (own, self.expected) {
            (Some(own), Some(expected)) => {
                let trust = self.done / (self.done + TRUST);
                Some(trust * own + (1.0 - trust) * expected * slow * rest)
            }
            (None, Some(expected)) => Some(expected * slow * rest),
            (Some(own), None) => (so_far >= SETTLED || self.done >= 1.0).then_some(own),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs stages that take `actual` seconds in so many steps on a clock of their own, and gives the largest error of
    /// the time left, as a part of it, from the first tenth of all the time to the last two hundredths.
    fn worst(expected: &[Option<f64>], actual: &[(f64, usize)], jitter: f64) -> f64 {
        let total: f64 = actual.iter().map(|(seconds, _)| seconds).sum();
        let (mut eta, mut now, mut worst) = (Eta::new(expected, 0.0), 0.0, 0.0_f64);
        for (stage, &(seconds, steps)) in actual.iter().enumerate() {
            for step in 1..=steps {
                // Steps are of unequal length: every second one longer.
                let uneven = if steps.is_multiple_of(2) {
                    jitter * if step % 2 == 0 { 1.0 } else { -1.0 }
                } else {
                    0.0
                };
                now += seconds / steps as f64 * (1.0 + uneven);
                eta.set(stage, step as f64 / steps as f64, now);
                let left = total - now;
                if now >= 0.1 * total && left > 0.02 * total {
                    let said = eta.left(now).unwrap();
                    worst = worst.max((said / left - 1.0).abs());
                }
            }
        }
        worst
    }

    /// Grids, gradients, layers, trials and coding of a small model.
    const STAGES: [f64; 5] = [6.0, 40.0, 120.0, 90.0, 45.0];
    const STEPS: [usize; 5] = [100, 8, 31, 31, 300];

    #[test]
    fn after_the_first_tenth_the_time_left_is_within_thirty_percent() {
        // Machines from four times faster to six times slower than the trial runs said, with stages off by an eighth
        // of each other: where they are off by more, no clock can know before it has seen them.
        for speed in [0.25, 0.7, 1.0, 1.6, 6.0] {
            for off in [
                [1.0; 5],
                [1.12, 0.88, 1.12, 0.88, 1.12],
                [0.88, 1.12, 1.12, 0.88, 0.88],
                [1.0, 1.0, 0.85, 1.1, 1.1],
            ] {
                let expected: Vec<Option<f64>> = STAGES.iter().map(|&e| Some(e)).collect();
                let actual: Vec<(f64, usize)> =
                    (0..5).map(|i| (STAGES[i] * speed * off[i], STEPS[i])).collect();
                let worst = worst(&expected, &actual, 0.2);
                assert!(worst < 0.3, "speed {speed}, {off:?}: off by {worst}");
            }
        }
    }

    #[test]
    fn one_rate_for_all_stages_would_not_do() {
        // The same work counted in steps of one kind, as a bar without stages sees it.
        let total: f64 = STAGES.iter().sum();
        let steps: usize = STEPS[1..4].iter().sum();
        let (mut eta, mut now, mut done, mut worst) = (Eta::new(&[None], 0.0), 0.0, 0, 0.0_f64);
        for (stage, &seconds) in STAGES.iter().enumerate() {
            let counted = (1..4).contains(&stage);
            for _ in 0..STEPS[stage] {
                now += seconds / STEPS[stage] as f64;
                done += usize::from(counted);
                eta.set(0, done as f64 / steps as f64, now);
                if let Some(said) = eta.left(now).filter(|_| now > 0.1 * total && now < 0.8 * total) {
                    worst = worst.max((said / (total - now) - 1.0).abs());
                }
            }
        }
        assert!(worst > 0.3, "{worst}");
    }

    #[test]
    fn nothing_is_said_before_something_is_known() {
        let mut eta = Eta::new(&[None], 10.0);
        assert_eq!(eta.left(10.0), None);
        eta.set(0, 0.0, 10.0);
        assert_eq!(eta.left(15.0), None);
        eta.set(0, 0.25, 20.0);
        assert!((eta.left(20.0).unwrap() - 30.0).abs() < 1e-9);
        // The clock runs between sights, and never says that nothing is left of what has not ended.
        assert!((eta.left(30.0).unwrap() - 20.0).abs() < 1e-9);
        assert!(eta.left(1000.0).unwrap() > 1.0);
        assert!((eta.share(20.0) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn an_estimate_is_there_at_once_and_stages_may_fall_away() {
        let mut eta = Eta::new(&[Some(10.0), Some(20.0), Some(30.0)], 0.0);
        assert_eq!(eta.left(0.0), Some(60.0));
        assert_eq!(eta.share(0.0), 0.0);
        eta.expect(1, Some(5.0));
        assert_eq!(eta.left(0.0), Some(45.0));
        // The second is not needed, and says nothing of the machine.
        eta.set(0, 1.0, 10.0);
        eta.set(2, 0.0, 10.0);
        assert!((eta.left(10.0).unwrap() - 30.0).abs() < 1e-9);
    }
}
