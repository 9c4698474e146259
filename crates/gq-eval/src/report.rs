//! What an evaluation found.

use crate::histogram::Histogram;
use crate::sizes::{Bits, Bytes, Sizes};
use crate::statistics::{Estimate, estimate, quantile};
use gq_tensor::divergence::Divergence;
use serde::{Deserialize, Serialize};

/// Perplexities: exp of the mean negative log-likelihood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// The model's.
    pub model: f64,
    /// Its standard error.
    pub model_stderr: f64,
    /// The reference's.
    pub reference: f64,
    /// Its standard error.
    pub reference_stderr: f64,
}

/// `KL(reference || model)` over positions, in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Kld {
    pub mean: f64,
    /// Standard error of the mean.
    pub stderr: f64,
    pub min: f64,
    pub median: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Differences of logits, against a file of reference outputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogitError {
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Root of the mean squared difference.
    pub rms_error: f64,
}

/// Which positions were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scored {
    /// Tokens of a window.
    pub ctx: usize,
    /// First position of each window whose logits were compared.
    pub begin: usize,
    /// One after the last.
    pub end: usize,
}

/// The reference's distance from itself when it computes a little differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NoiseFloor {
    /// What was different.
    pub arithmetic: String,
    /// Windows it was measured on: the first ones.
    pub windows: usize,
    /// Positions scored.
    pub tokens: usize,
    /// KL divergence of the second run from the first.
    pub kld: Kld,
    /// Share of positions with the same likeliest token.
    pub top1: f64,
}

/// Where the reference's logits came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReferenceLogits {
    /// Computed in this run.
    #[default]
    Computed,
    /// Computed in this run and kept for the next.
    Stored,
    /// Kept by an earlier run.
    Cached,
    /// Read from a file of reference outputs.
    Outputs,
}

/// What was compared, as the caller names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// The model.
    pub model: String,
    /// The reference.
    pub reference: String,
    /// The text; empty against a file of reference outputs.
    pub text: String,
}

/// What computed an evaluation, as the caller says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Computed {
    /// Program and version.
    pub program: String,
    /// Arithmetic of the model's activations: `int8` or `f32`.
    pub activations: String,
    /// sha256 of the model's file, in hex; empty for a checkpoint.
    pub model_sha256: String,
    /// The GPU that computed the model; empty on the CPU.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
}

/// An evaluation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// What was compared; empty until the caller fills it in.
    #[serde(default)]
    pub names: Names,
    /// What computed it; empty until the caller fills it in.
    #[serde(default, skip_serializing_if = "Computed::is_empty")]
    pub computed: Computed,
    /// Perplexities; `None` where no position has a next token.
    pub ppl: Option<Perplexity>,
    /// Mean difference of log-likelihoods, `ln(ppl.model / ppl.reference)`, paired.
    pub ln_ratio: Option<Estimate>,
    /// KL divergence.
    pub kld: Kld,
    /// Share of positions with the same likeliest token.
    pub top1: f64,
    /// Its standard error.
    pub top1_stderr: f64,
    /// Root of the mean squared change of the next token's probability; 0 where there is none.
    pub rms_delta_p: f64,
    /// Its standard error.
    pub rms_delta_p_stderr: f64,
    /// Mean change of the next token's probability.
    pub mean_delta_p: f64,
    /// The largest loss.
    pub min_delta_p: f64,
    /// The largest gain.
    pub max_delta_p: f64,
    /// Differences of logits; only against a file of reference outputs.
    pub logits: Option<LogitError>,
    /// Sizes in bytes.
    pub bytes: Bytes,
    /// Sizes in bits per weight.
    pub bpw: Bits,
    /// Windows scored.
    pub windows: usize,
    /// Positions scored.
    pub tokens: usize,
    /// Positions with a next token: those of the perplexities.
    pub targets: usize,
    /// sha256 of the windows' tokens as little-endian u32, in hex; empty where the caller does not fill it in.
    #[serde(default)]
    pub tokens_sha256: String,
    /// Which positions.
    pub scored: Scored,
    /// Mean KL divergence of the reference from itself; `None` against a file.
    pub noise_floor: Option<f64>,
    /// How the noise floor was measured, and more of it.
    pub noise: Option<NoiseFloor>,
    /// Where the reference's logits came from.
    pub reference_logits: ReferenceLogits,
    /// Mean KL divergence by position within the window, from `scored.begin`.
    pub kld_by_position: Vec<f64>,
    /// Mean KL divergence by window.
    pub kld_by_window: Vec<f64>,
    /// Positions by KL divergence.
    pub kld_histogram: Histogram,
}

/// Everything that was seen, before it is summed up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observations {
    /// Positions of each window, all of one length.
    pub(crate) windows: Vec<Vec<Divergence>>,
    /// Positions of a window that have a next token: the first ones.
    pub(crate) targets: usize,
    pub(crate) scored: Scored,
    /// Entries of the vocabulary.
    pub(crate) vocab: usize,
}

impl Kld {
    /// Of positions in any order.
    pub(crate) fn new(values: &[f64]) -> Kld {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let mean = estimate(values.iter().copied());
        Kld {
            mean: mean.value,
            stderr: mean.stderr,
            min: sorted.first().copied().unwrap_or(0.0),
            median: quantile(&sorted, 0.5),
            p90: quantile(&sorted, 0.9),
            p99: quantile(&sorted, 0.99),
            p999: quantile(&sorted, 0.999),
            max: sorted.last().copied().unwrap_or(0.0),
        }
    }
}

/// Share of positions with the same likeliest token.
pub(crate) fn top1(positions: &[&Divergence]) -> Estimate {
    estimate(positions.iter().map(|d| f64::from(u8::from(d.same_top))))
}

impl EvalReport {
    /// Sums up, in the order of the positions.
    pub(crate) fn new(seen: &Observations, sizes: Sizes, noise: Option<NoiseFloor>) -> EvalReport {
        let all: Vec<&Divergence> = seen.windows.iter().flatten().collect();
        let target = |window: &Vec<Divergence>| window.len().min(seen.targets);
        let with_target = seen.windows.iter().flat_map(|window| window.iter().take(target(window)));
        let with_target: Vec<&Divergence> = with_target.collect();
        let klds: Vec<f64> = all.iter().map(|d| d.kld).collect();
        let top1 = top1(&all);
        let mean_of = |value: fn(&Divergence) -> f64| estimate(with_target.iter().map(|d| value(d)));
        let (model, reference) = (mean_of(|d| d.model_nll), mean_of(|d| d.reference_nll));
        let ppl = Perplexity {
            model: model.value.exp(),
            model_stderr: model.value.exp() * model.stderr,
            reference: reference.value.exp(),
            reference_stderr: reference.value.exp() * reference.stderr,
        };
        let squared_delta = mean_of(|d| d.delta_p * d.delta_p);
        let rms_delta_p = squared_delta.value.sqrt();
        let delta = || with_target.iter().map(|d| d.delta_p);
        let width = seen.windows.first().map_or(0, Vec::len);
        let by_position = (0..width).map(|i| {
            let column = seen.windows.iter().filter_map(|window| window.get(i)).map(|d| d.kld);
            column.sum::<f64>() / seen.windows.len() as f64
        });
        let by_window = seen.windows.iter().map(|window| estimate(window.iter().map(|d| d.kld)).value);
        let some = !with_target.is_empty();
        EvalReport {
            names: Names::default(),
            computed: Computed::default(),
            ppl: some.then_some(ppl),
            ln_ratio: some.then(|| mean_of(|d| d.model_nll - d.reference_nll)),
            kld: Kld::new(&klds),
            top1: top1.value,
            top1_stderr: top1.stderr,
            rms_delta_p,
            // The derivative of the root, as llama-perplexity has it.
            rms_delta_p_stderr: if rms_delta_p == 0.0 {
                0.0
            } else {
                0.5 * squared_delta.stderr / rms_delta_p
            },
            mean_delta_p: mean_of(|d| d.delta_p).value,
            min_delta_p: delta().reduce(f64::min).unwrap_or(0.0),
            max_delta_p: delta().reduce(f64::max).unwrap_or(0.0),
            logits: None,
            bytes: sizes.bytes(),
            bpw: sizes.bits(),
            windows: seen.windows.len(),
            tokens: all.len(),
            targets: with_target.len(),
            tokens_sha256: String::new(),
            scored: seen.scored,
            noise_floor: noise.as_ref().map(|noise| noise.kld.mean),
            noise,
            reference_logits: ReferenceLogits::default(),
            kld_by_position: by_position.collect(),
            kld_by_window: by_window.collect(),
            kld_histogram: Histogram::new(&klds),
        }
    }
}

impl Computed {
    fn is_empty(&self) -> bool {
        *self == Computed::default()
    }
}

impl LogitError {
    pub(crate) fn new(seen: &Observations) -> LogitError {
        let all = || seen.windows.iter().flatten();
        let squared: f64 = all().map(|d| d.squared_logit_error).sum();
        LogitError {
            max_abs_error: all().fold(0.0, |most, d| most.max(d.max_logit_error)),
            rms_error: (squared / (all().count() * seen.vocab).max(1) as f64).sqrt(),
        }
    }
}
