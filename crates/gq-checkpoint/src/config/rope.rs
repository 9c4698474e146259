//! Rotary embeddings: both spellings of their parameters, and frequencies in f32 as the reference computes them.

use super::Fields;
use crate::{ConfigError, LongFrequencies, RopeKind, RopeSpec};
use serde_json::Value;
use std::f32::consts::PI;
use std::f64::consts::PI as PI_F64;

/// Keys of scaled frequencies, which the reference does not read without scaling.
const SCALING: &[&str] = &[
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
];

/// The model type whose rotary parameters say how queries grow.
const QUERIES_GROW: &str = "ministral3";
/// What the first files of Phi call LongRoPE.
const OLDER_LONGROPE: &str = "su";
const SUPPORTED: &str = "default, linear, dynamic, llama3, yarn, longrope, proportional";

/// Parameters of one layer type: theta and how frequencies derive from it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RopeParameters {
    pub theta: f64,
    pub kind: RopeKind,
    /// Factor on cosines and sines.
    pub attention_factor: f64,
    /// Divisors of the frequencies, one per pair, where they are listed; else empty.
    pub factors: Vec<f64>,
    /// Those of longer contexts, where they are others.
    pub long: Option<LongFactors>,
    /// Part of a head's dimensions that turn, the first ones; all but with `proportional`, which has a part of its own.
    pub rotary_fraction: f64,
    /// Growth of queries with their position (Ministral 3).
    pub query_beta: Option<f64>,
}

/// Divisors of the frequencies of contexts beyond a length.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LongFactors {
    /// Tokens of the longest context that has the others.
    pub beyond: usize,
    pub factors: Vec<f64>,
}

/// What stands outside of the object with the parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// Theta elsewhere in the configuration, or the family's default.
    pub theta: Option<f64>,
    /// `max_position_embeddings`.
    pub max_positions: usize,
    /// `original_max_position_embeddings` on top, which counts before the one among the parameters.
    pub original: Option<f64>,
    /// What Phi's files may say more.
    pub of_phi: Option<OfPhi>,
}

/// Phi: a part of each head turns, and both lists of LongRoPE count.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OfPhi {
    /// `partial_rotary_factor` on top, if the parameters have none.
    pub rotary_fraction: f64,
}

impl RopeParameters {
    /// Plain frequencies.
    pub(crate) fn default(theta: f64) -> RopeParameters {
        RopeParameters {
            theta,
            kind: RopeKind::Default,
            attention_factor: 1.0,
            factors: Vec::new(),
            long: None,
            rotary_fraction: 1.0,
            query_beta: None,
        }
    }

    /// Reads `rope_parameters` (or one layer type's part of it) or `rope_scaling`.
    pub(crate) fn read(
        fields: &Fields<'_>,
        around: Around,
        model_type: &str,
    ) -> Result<RopeParameters, ConfigError> {
        let name = match (fields.opt_string("rope_type")?, fields.opt_string("type")?) {
            (Some(new), Some(old)) if new != old => {
                return Err(ConfigError::Disagree {
                    field: fields.path("rope_type"),
                    value: new.to_owned(),
                    other: fields.path("type"),
                    other_value: old.to_owned(),
                });
            }
            (new, old) => new.or(old).unwrap_or("default"),
        };
        let theta = fields.opt_float("rope_theta", 1.0..=1e12)?.or(around.theta);
        let theta = theta.ok_or_else(|| fields.missing("rope_theta"))?;
        let fraction = fields.opt_float("partial_rotary_factor", 0.0..=1.0)?;
        let (mut attention_factor, mut factors, mut long) = (1.0, Vec::new(), None);
        let name = if name == OLDER_LONGROPE && around.of_phi.is_some() { "longrope" } else { name };
        let kind = match name {
            "default" => {
                fields.without_effect(SCALING);
                RopeKind::Default
            }
            "linear" => RopeKind::Linear { factor: factor(fields)? },
            "dynamic" => RopeKind::Dynamic { factor: factor(fields)? },
            "llama3" => RopeKind::Llama3 {
                factor: factor(fields)?,
                low_freq_factor: positive(fields, "low_freq_factor")?,
                high_freq_factor: positive(fields, "high_freq_factor")?,
                original_max_positions: original_positions(fields, around)?,
            },
            "yarn" => {
                let factor = factor(fields)?;
                attention_factor = yarn_attention_factor(fields, factor)?;
                fields.irrelevant(&["finetuned"]); // whether training continued with it: nothing reads that
                RopeKind::Yarn {
                    factor,
                    truncate: truncate(fields)?,
                    beta_fast: fields.opt_float("beta_fast", 1e-6..=1e6)?.unwrap_or(32.0),
                    beta_slow: fields.opt_float("beta_slow", 1e-6..=1e6)?.unwrap_or(1.0),
                    original_max_positions: original_positions(fields, around)?,
                }
            }
            "longrope" => {
                let original = original_positions(fields, around)?;
                attention_factor = longrope_attention_factor(fields, around.max_positions as f64, original)?;
                (factors, long) = longrope_factors(fields, around, original)?;
                RopeKind::Factors
            }
            "proportional" => RopeKind::Proportional {
                rotary_fraction: fraction.unwrap_or(1.0),
                factor: fields.opt_float("factor", 1.0..=1e6)?.unwrap_or(1.0),
            },
            _ => {
                let key = if fields.value("rope_type").is_some() { "rope_type" } else { "type" };
                return Err(fields.unsupported(key, &Value::from(name), SUPPORTED));
            }
        };
        let rotary_fraction = around.of_phi.map(|phi| fraction.unwrap_or(phi.rotary_fraction));
        if let Some(fraction) = fraction.filter(|fraction| *fraction != 1.0)
            && rotary_fraction.is_none()
            && !matches!(kind, RopeKind::Proportional { .. })
        {
            let supported = "1 unless rope_type is proportional";
            return Err(fields.unsupported("partial_rotary_factor", &Value::from(fraction), supported));
        }
        if let RopeKind::Llama3 { low_freq_factor: min, high_freq_factor: high, .. } = kind
            && high <= min
        {
            let (field, actual) = (fields.path("high_freq_factor"), high.to_string());
            return Err(ConfigError::OutOfRange { field, actual, min, max: 1e6 });
        }
        let mut query_beta = None;
        if model_type == QUERIES_GROW {
            query_beta = fields.opt_float("llama_4_scaling_beta", 0.0..=1e3)?;
            fields.irrelevant(&["max_position_embeddings"]); // as on top
        }
        fields.finish(model_type)?;
        let rotary_fraction = rotary_fraction.unwrap_or(1.0);
        Ok(RopeParameters { theta, kind, attention_factor, factors, long, rotary_fraction, query_beta })
    }
}

/// Whether the ends of YaRN's ramp are whole pairs. The reference does not read it in a layer type's own part.
fn truncate(fields: &Fields<'_>) -> Result<bool, ConfigError> {
    let value = fields.bool_or("truncate", true)?;
    match value || !fields.path("").ends_with("_attention.") {
        true => Ok(value),
        false => Err(fields.unsupported("truncate", &Value::Bool(value), "true for one layer type")),
    }
}

/// LongRoPE has two lists, and takes the one or the other by the length of the text. Phi's are both read; elsewhere they
/// are where only one can come into use.
fn longrope_factors(
    fields: &Fields<'_>,
    around: Around,
    original: f64,
) -> Result<(Vec<f64>, Option<LongFactors>), ConfigError> {
    let list = |key: &str| {
        let list = fields.opt_list(key)?.ok_or_else(|| fields.missing(key))?;
        let number = |value: &Value| {
            let number = value.as_f64().filter(|number| (1e-6..=1e38).contains(number));
            number.ok_or_else(|| fields.wrong(key, value, "numbers above 0"))
        };
        list.iter().map(number).collect::<Result<Vec<f64>, _>>()
    };
    let (short, long) = (list("short_factor")?, list("long_factor")?);
    if short == long {
        return Ok((short, None));
    }
    if around.of_phi.is_some() {
        return Ok((short, Some(LongFactors { beyond: original as usize, factors: long })));
    }
    match around.max_positions as f64 <= original {
        true => Ok((short, None)),
        false => {
            let value = Value::from("another list than short_factor");
            let supported = "the same list as short_factor, or an original context that is never exceeded";
            Err(fields.unsupported("long_factor", &value, supported))
        }
    }
}

/// `sqrt(1 + ln(factor) / ln(original))`, the factor being that of the contexts where it is not said.
fn longrope_attention_factor(
    fields: &Fields<'_>,
    max_positions: f64,
    original: f64,
) -> Result<f64, ConfigError> {
    let factor = fields.opt_float("factor", 1e-6..=1e6)?.unwrap_or(max_positions / original);
    let inferred = match factor <= 1.0 {
        true => 1.0,
        false => (1.0 + libm::log(factor) / libm::log(original)).sqrt(),
    };
    Ok(fields.opt_float("attention_factor", 0.0..=1e3)?.unwrap_or(inferred))
}

fn factor(fields: &Fields<'_>) -> Result<f64, ConfigError> {
    fields.opt_float("factor", 1.0..=1e6)?.ok_or_else(|| fields.missing("factor"))
}

fn positive(fields: &Fields<'_>, key: &str) -> Result<f64, ConfigError> {
    fields.opt_float(key, 1e-6..=1e6)?.ok_or_else(|| fields.missing(key))
}

fn original_positions(fields: &Fields<'_>, around: Around) -> Result<f64, ConfigError> {
    let stated = fields.opt_float("original_max_position_embeddings", 1.0..=1e9)?;
    Ok(around.original.or(stated).unwrap_or(around.max_positions as f64))
}

/// `0.1 ln(factor) + 1`, or the ratio of two such terms where both `mscale` are given.
fn yarn_attention_factor(fields: &Fields<'_>, factor: f64) -> Result<f64, ConfigError> {
    let term = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * libm::log(factor) + 1.0 };
    let mscale = fields.opt_float("mscale", 0.0..=1e3)?.filter(|value| *value != 0.0);
    let all_dims = fields.opt_float("mscale_all_dim", 0.0..=1e3)?.filter(|value| *value != 0.0);
    let inferred = match (mscale, all_dims) {
        (Some(mscale), Some(all_dims)) => term(mscale) / term(all_dims),
        _ => term(1.0),
    };
    Ok(fields.opt_float("attention_factor", 0.0..=1e3)?.unwrap_or(inferred))
}

impl RopeParameters {
    /// Pairs of a head that turn, or may.
    fn pairs(&self, head_dim: usize) -> usize {
        (self.rotary_fraction * head_dim as f64) as usize / 2
    }
}

/// Frequencies for heads of `head_dim`; listed factors must be as many as pairs, see [`check_factors`].
///
/// Every step is rounded to f32, as in the reference; only the power is taken in f64 and then rounded,
/// which is within one unit in the last place of any f32 power function.
pub(crate) fn rope_spec(parameters: &RopeParameters, head_dim: usize) -> RopeSpec {
    let RopeParameters { theta, kind, attention_factor, ref factors, .. } = *parameters;
    let pairs = parameters.pairs(head_dim);
    let period = |pair: usize| period(theta, pair, pairs);
    let plain = (0..pairs).map(|pair| 1.0 / period(pair));
    let divided = |factors: &[f64]| -> Vec<f32> {
        let stretched = |(pair, factor): (usize, &f64)| 1.0 / (*factor as f32 * period(pair));
        factors.iter().enumerate().map(stretched).collect()
    };
    let inv_freq: Vec<f32> = match kind {
        // NTK scaling begins beyond the longest sequence that the model was made for.
        RopeKind::Default | RopeKind::Dynamic { .. } => plain.collect(),
        RopeKind::Factors => divided(factors),
        RopeKind::Linear { factor } => plain.map(|freq| freq / factor as f32).collect(),
        RopeKind::Llama3 { .. } => plain.map(|freq| llama3(freq, kind)).collect(),
        RopeKind::Yarn { factor, .. } => {
            let (low, high) = yarn_range(theta, head_dim, kind);
            let ramp = |pair: usize| ((pair as f32 - low) / (high - low)).clamp(0.0, 1.0);
            let freq = |pair: usize| {
                let keep = 1.0 - ramp(pair);
                1.0 / (factor as f32 * period(pair)) * (1.0 - keep) + 1.0 / period(pair) * keep
            };
            (0..pairs).map(freq).collect()
        }
        RopeKind::Proportional { rotary_fraction, factor } => {
            let turning = (rotary_fraction * head_dim as f64 / 2.0).floor() as usize;
            let freq = |(pair, freq)| if pair < turning { freq / factor as f32 } else { 0.0 };
            plain.enumerate().map(freq).collect()
        }
    };
    let long = parameters
        .long
        .as_ref()
        .map(|long| LongFrequencies { beyond: long.beyond, inv_freq: divided(&long.factors) });
    RopeSpec { head_dim, theta, inv_freq, long, attention_factor: attention_factor as f32, kind }
}

/// Positions in which a pair of so many turns by one radian.
pub(crate) fn period(theta: f64, pair: usize, pairs: usize) -> f32 {
    power(theta, (2 * pair) as f32 / (2 * pairs) as f32)
}

fn power(theta: f64, exponent: f32) -> f32 {
    libm::pow(f64::from(theta as f32), f64::from(exponent)) as f32
}

/// Llama 3.1's rule for one frequency.
fn llama3(freq: f32, kind: RopeKind) -> f32 {
    let RopeKind::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_positions } = kind else {
        return freq;
    };
    let wavelength = 1.0 / freq * (2.0 * PI);
    let scaled = freq / factor as f32;
    if wavelength > (original_max_positions / low_freq_factor) as f32 {
        return scaled;
    }
    if wavelength < (original_max_positions / high_freq_factor) as f32 {
        return freq;
    }
    let turns = 1.0 / wavelength * original_max_positions as f32;
    let smooth = (turns - low_freq_factor as f32) / (high_freq_factor - low_freq_factor) as f32;
    (1.0 - smooth) * freq / factor as f32 + smooth * freq
}

/// First and last pair of YaRN's ramp.
fn yarn_range(theta: f64, head_dim: usize, kind: RopeKind) -> (f32, f32) {
    let RopeKind::Yarn { beta_fast, beta_slow, original_max_positions, truncate, .. } = kind else {
        return (0.0, 1.0);
    };
    let dim = head_dim as f64;
    let at = |turns: f64| {
        dim * libm::log(original_max_positions / (turns * 2.0 * PI_F64)) / (2.0 * libm::log(theta))
    };
    let (low, high) = (at(beta_fast), at(beta_slow));
    let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
    let (low, high) = (low.max(0.0), high.min(dim - 1.0));
    (low as f32, if low == high { high + 0.001 } else { high } as f32)
}

/// Refuses listed factors that are not one per pair.
pub(crate) fn check_factors(
    fields: &Fields<'_>,
    parameters: &RopeParameters,
    head_dim: usize,
) -> Result<(), ConfigError> {
    let pairs = parameters.pairs(head_dim);
    let long = parameters.long.as_ref().map(|long| ("long_factor", &long.factors));
    let short = (parameters.kind == RopeKind::Factors).then_some(("short_factor", &parameters.factors));
    match short.into_iter().chain(long).find(|(_, list)| list.len() != pairs) {
        None => Ok(()),
        Some((key, list)) => Err(ConfigError::FactorCount {
            field: fields.path(&format!("rope_parameters.{key}")),
            actual: list.len(),
            pairs,
        }),
    }
}
