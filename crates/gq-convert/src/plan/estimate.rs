//! How long a plan will take on this machine: its kinds of work are tried on a little data.

use super::{Plan, Step};
use crate::round::RowCoder;
use gq_codec::{Code, Coders, code_of};
use gq_tensor::{Encoding, Isa, RotationKind};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a kind of work is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Trials {
    /// Least time of one trial.
    each: Duration,
    /// Trials of which the fastest counts: others may have been interrupted by other programs.
    count: usize,
}

/// Enough to see whether it is worth a closer look.
const QUICK: Trials = Trials { each: Duration::from_millis(2), count: 2 };
const CLOSE: Trials = Trials { each: Duration::from_millis(10), count: 5 };
/// Seconds up to which nobody minds an estimate that is a little off: trying for longer would be felt.
const SHORT: f64 = 10.0;
/// Widest row that is tried: the work per element hardly grows beyond.
const WIDTH: usize = 128;
/// Times that a byte of the output passes through a digest: the tensor's and the file's.
const OUTPUT_DIGESTS: f64 = 2.0;

/// Expected duration of an execution, when the disks keep up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Threads it was tried with.
    pub threads: usize,
}

impl Estimate {
    /// Tries every kind of work in the plan for a few hundredths of a second, on as many threads as it will have.
    ///
    /// `None` for work whose cost depends on measurements or on a dense transform: calibrated rounding, Haar
    /// rotations, product codes; and when threads or coders cannot be made, which the execution will say.
    pub fn new(plan: &Plan, level: Isa) -> Option<Estimate> {
        let dense = |step: &Step| {
            let tables = |code: Arc<dyn Code>| code.tables(step.matrix().cols).kept > 0;
            step.rotation.kind == RotationKind::Haar || code_of(step.storage()).is_ok_and(tables)
        };
        if plan.steps.iter().any(|step| step.calibrated || dense(step)) {
            return None;
        }
        let threads = plan.memory.threads;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().ok()?;
        let mut coders = Coders::default();
        let coding = closely(|trials| {
            let mut rates: HashMap<(Encoding, usize), f64> = HashMap::new();
            let mut coding = 0.0;
            for step in plan.steps.iter().filter(|step| !step.encoding.is_exact()) {
                let cols = step.matrix().cols.min(WIDTH);
                let rate = match rates.get(&(step.encoding, cols)) {
                    Some(&rate) => rate,
                    None => {
                        let rate = pool.install(|| trial(step, cols, level, trials, &mut coders))?;
                        *rates.entry((step.encoding, cols)).or_insert(rate)
                    }
                };
                coding += step.elements() as f64 * rate;
            }
            Some(coding)
        })?;
        let digest = digest_seconds_per_byte();
        let source = digest * plan.source_bytes as f64;
        let digests = source + OUTPUT_DIGESTS * digest * plan.payload_bytes as f64;
        // The digest of the source is one chain: no thread can help with it.
        let seconds = (coding + digests / threads as f64).max(source);
        Some(Estimate { seconds, threads })
    }
}

/// Seconds of coding: as seen at a glance where they are few, else by a closer look.
fn closely(mut seconds: impl FnMut(Trials) -> Option<f64>) -> Option<f64> {
    seconds(QUICK).and_then(|glance| if glance <= SHORT { Some(glance) } else { seconds(CLOSE) })
}

/// Seconds per element with all threads at work: rotation, codes, and decoding to measure the error.
fn trial(step: &Step, cols: usize, level: Isa, trials: Trials, coders: &mut Coders) -> Option<f64> {
    let coder = RowCoder::new(coders, step.storage(), cols).ok()?;
    let rows = step.encoding.strip_rows().max(8);
    let value = |i: usize| match step.encoding.is_grid() {
        true => ((i * 7919) % 7) as f32 - 3.0,
        false => ((i * 7919) % 1009) as f32 / 504.5 - 1.0,
    };
    let values: Vec<f32> = (0..rows * cols).map(value).collect();
    let once = || {
        let start = Instant::now();
        let counts = rayon::broadcast(|_| {
            let mut count = 0_u64;
            while count == 0 || start.elapsed() < trials.each {
                coder.try_rows(level, values.clone());
                count += 1;
            }
            count
        });
        start.elapsed().as_secs_f64() / counts.iter().sum::<u64>() as f64
    };
    Some(fastest(trials.count, once) / (rows * cols) as f64)
}

fn fastest(count: usize, trial: impl Fn() -> f64) -> f64 {
    (0..count).map(|_| trial()).fold(f64::INFINITY, f64::min)
}

fn digest_seconds_per_byte() -> f64 {
    let block = vec![0x5A_u8; 1 << 16];
    let once = || {
        let start = Instant::now();
        std::hint::black_box(Sha256::digest(&block));
        start.elapsed().as_secs_f64()
    };
    fastest(CLOSE.count, once) / block.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_work_that_takes_its_time_is_looked_at_closely() {
        let looks = |glance: Option<f64>, close: f64| {
            let mut looks = Vec::new();
            let seconds = closely(|trials| {
                looks.push(trials);
                if trials == QUICK { glance } else { Some(close) }
            });
            (seconds, looks)
        };
        assert_eq!(looks(Some(2.0), 3.0), (Some(2.0), vec![QUICK]));
        assert_eq!(looks(Some(20.0), 9.0), (Some(9.0), vec![QUICK, CLOSE]));
        assert_eq!(looks(None, 9.0), (None, vec![QUICK]));
        let time = |trials: Trials| trials.each * trials.count as u32;
        assert!(10 * time(QUICK) < time(CLOSE));
    }
}
