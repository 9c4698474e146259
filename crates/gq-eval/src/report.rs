//! What an evaluation found.

use crate::divergence::Divergence;
use crate::sizes::Sizes;
use crate::statistics::{estimate, quantile};
use serde::Serialize;

/// A value and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error.
    pub stderr: f64,
}

/// Perplexities: exp of the mean negative log-likelihood.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Kld {
    pub mean: f64,
    /// Standard error of the mean.
    pub stderr: f64,
    pub median: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// Differences of logits, against a file of reference outputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LogitError {
    /// Largest absolute difference.
    pub max_abs_error: f64,
    /// Root of the mean squared difference.
    pub rms_error: f64,
}

/// Bytes of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Bytes {
    /// Of the file, or of a checkpoint's weight files.
    pub file: u64,
    /// Of all weights but embedding and head.
    pub body: u64,
}

/// Bits per weight.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bits {
    /// File bits over all weights.
    pub file: f64,
    /// Body bits over body weights.
    pub body: f64,
}

/// An evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
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
    /// Root of the mean squared change of the next token's probability.
    pub rms_delta_p: f64,
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
    /// Mean KL divergence of the reference from itself with keys and values rounded to half precision,
    /// on the first windows; `None` against a file.
    pub noise_floor: Option<f64>,
    /// Mean KL divergence by position within the window.
    pub kld_by_position: Vec<f64>,
}

impl EvalReport {
    /// Sums up positions, `windows` windows of equally many; `targets` says whether they have a next token.
    pub(crate) fn new(
        positions: &[Vec<Divergence>],
        has_target: impl Fn(usize) -> bool,
        sizes: Sizes,
        vocab: Option<usize>,
        noise_floor: Option<f64>,
    ) -> EvalReport {
        let all: Vec<&Divergence> = positions.iter().flatten().collect();
        let scored: Vec<&Divergence> = positions
            .iter()
            .flat_map(|window| window.iter().enumerate().filter(|(i, _)| has_target(*i)).map(|(_, d)| d))
            .collect();
        let mut sorted: Vec<f64> = all.iter().map(|d| d.kld).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let kld = estimate(all.iter().map(|d| d.kld));
        let top1 = estimate(all.iter().map(|d| f64::from(u8::from(d.same_top))));
        let model = estimate(scored.iter().map(|d| d.model_nll));
        let reference = estimate(scored.iter().map(|d| d.reference_nll));
        let ppl = Perplexity {
            model: model.value.exp(),
            model_stderr: model.value.exp() * model.stderr,
            reference: reference.value.exp(),
            reference_stderr: reference.value.exp() * reference.stderr,
        };
        let ln_ratio = estimate(scored.iter().map(|d| d.model_nll - d.reference_nll));
        let delta = scored.iter().map(|d| d.delta_p * d.delta_p).sum::<f64>() / scored.len().max(1) as f64;
        let logits = vocab.map(|vocab| LogitError {
            max_abs_error: all.iter().fold(0.0, |m, d| m.max(d.max_logit_error)),
            rms_error: (all.iter().map(|d| d.squared_logit_error).sum::<f64>()
                / (all.len() * vocab).max(1) as f64)
                .sqrt(),
        });
        let width = positions.first().map_or(0, Vec::len);
        let by_position = (0..width).map(|i| {
            let column = positions.iter().filter_map(|window| window.get(i)).map(|d| d.kld);
            column.sum::<f64>() / positions.len() as f64
        });
        EvalReport {
            ppl: (!scored.is_empty()).then_some(ppl),
            ln_ratio: (!scored.is_empty()).then_some(ln_ratio),
            kld: Kld {
                mean: kld.value,
                stderr: kld.stderr,
                median: quantile(&sorted, 0.5),
                p90: quantile(&sorted, 0.9),
                p99: quantile(&sorted, 0.99),
                p999: quantile(&sorted, 0.999),
                max: sorted.last().copied().unwrap_or(0.0),
            },
            top1: top1.value,
            top1_stderr: top1.stderr,
            rms_delta_p: delta.sqrt(),
            logits,
            bytes: sizes.bytes(),
            bpw: sizes.bits(),
            windows: positions.len(),
            tokens: all.len(),
            noise_floor,
            kld_by_position: by_position.collect(),
        }
    }
}
