//! Rotary embeddings across the formats: what llama.cpp computes from a file's keys, and which keys make it compute ours.
//!
//! llama.cpp (b11549) multiplies cosines and sines by `rope.scaling.attn_factor`, with YaRN also by its own
//! `1 + 0.1 ln(factor)`; takes 32 and 1 for YaRN's betas whatever the keys say; scales by a factor without a type; and
//! divides the frequency of each pair by `rope_freqs.weight` (Llama on all layers, Gemma 4 on full ones, Gemma 3 none), Phi's
//! by `rope_factors_long.weight` where it is started with a longer context than the original one, else by
//! `rope_factors_short.weight`.
//! Of Mistral's files it reads the betas, and divides its own factor by `1 + 0.1 m ln(factor)`, m being
//! `rope.scaling.yarn_log_multiplier`.

use super::keys::Keys;
use super::{Gguf, GgufError};
use crate::RopeKind;
use crate::config::{RopeParameters, rope_spec};
use crate::declared::{ROPE_FACTORS, ROPE_FREQS};
use serde_json::{Value, json};

/// What llama.cpp takes for the base of frequencies, if the file does not say.
pub(crate) const FREQ_BASE: f64 = 10_000.0;
pub(crate) const BETA_FAST: f64 = 32.0;
pub(crate) const BETA_SLOW: f64 = 1.0;
/// The divisor of a pair that does not turn; from [`UNTURNED`] on, a file's is taken for one.
pub(crate) const STILL: f32 = 1e30;
const UNTURNED: f64 = 1e20;

/// Whether engines read divisors of rotary frequencies from a tensor of a GGUF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RopeFactors {
    /// They do; it is written where keys alone do not say the frequencies.
    WhereNeeded,
    /// They do, and it is always written.
    Always,
    /// They read two, of short and of long contexts, which are written where keys alone do not say the frequencies (Phi).
    ShortAndLong,
    /// They do not.
    Never,
}

/// Keys of layers without a window.
pub(crate) struct StoredRope {
    theta: f64,
    /// Divisor of all frequencies.
    factor: f64,
    /// Context before the extension, when the type is YaRN.
    yarn: Option<u64>,
    attention: f64,
    /// What stands in the divisor of YaRN's own factor; 0 for no divisor.
    log_multiplier: f64,
    betas: [f64; 2],
    factors: Option<Vec<f64>>,
}

impl StoredRope {
    pub(crate) fn read(gguf: &Gguf, keys: &Keys<'_>) -> Result<StoredRope, GgufError> {
        let theta = keys.opt_float("rope.freq_base")?.unwrap_or(FREQ_BASE);
        let kind = keys.opt_text("rope.scaling.type")?.unwrap_or("linear");
        let (factor, old) = (keys.opt_float("rope.scaling.factor")?, keys.opt_float("rope.scale_linear")?);
        let factor = factor.or(old).filter(|factor| *factor != 0.0).unwrap_or(1.0);
        let original = keys.opt_int("rope.scaling.original_context_length")?.filter(|length| *length > 0);
        let original = original.unwrap_or(keys.int("context_length")?);
        let attention = keys.opt_float("rope.scaling.attn_factor")?.unwrap_or(1.0);
        let factors = factors_in(gguf, ROPE_FREQS)?;
        let (factor, yarn) = match kind {
            "none" => (1.0, None),
            "linear" => (factor, None),
            "yarn" => (factor, Some(original)),
            other => {
                return Err(GgufError::Unsupported {
                    key: keys.name("rope.scaling.type"),
                    actual: other.to_owned(),
                    supported: "none, linear, yarn".to_owned(),
                });
            }
        };
        let betas = [BETA_FAST, BETA_SLOW];
        Ok(StoredRope { theta, factor, yarn, attention, log_multiplier: 0.0, betas, factors })
    }

    /// The same with the keys of YaRN that llama.cpp reads for Mistral alone.
    pub(crate) fn with_yarn_keys(mut self, keys: &Keys<'_>) -> Result<StoredRope, GgufError> {
        let number = |key: &str, absent: f64, least: f64| match keys.opt_float(key)?.unwrap_or(absent) {
            value if (least..=1e3).contains(&value) => Ok(value),
            value => Err(GgufError::Unsupported {
                key: keys.name(key),
                actual: value.to_string(),
                supported: format!("{least} to 1000"),
            }),
        };
        self.log_multiplier = number("rope.scaling.yarn_log_multiplier", 0.0, 0.0)?;
        let [fast, slow] = self.betas;
        let (fast, slow) = (
            number("rope.scaling.yarn_beta_fast", fast, 1e-6)?,
            number("rope.scaling.yarn_beta_slow", slow, 1e-6)?,
        );
        self.betas = [fast, slow];
        Ok(self)
    }

    /// Base of the frequencies.
    pub(crate) fn theta(&self) -> f64 {
        self.theta
    }

    /// Refuses a factor on cosines and sines: llama.cpp applies it to layers with a window as well.
    pub(crate) fn without_attention(self, keys: &Keys<'_>) -> Result<StoredRope, GgufError> {
        match self.attention == 1.0 {
            true => Ok(self),
            false => Err(GgufError::Unsupported {
                key: keys.name("rope.scaling.attn_factor"),
                actual: self.attention.to_string(),
                supported: "1 where layers have windows".to_owned(),
            }),
        }
    }

    /// Refuses factors on frequencies, which llama.cpp does not load for the family.
    pub(crate) fn without_factors(self, architecture: &'static str) -> Result<StoredRope, GgufError> {
        match self.factors {
            None => Ok(self),
            Some(_) => Err(GgufError::UnknownTensor { name: ROPE_FREQS.to_owned(), architecture }),
        }
    }

    /// The same as the Hub's tools would say it, for heads of `dim`.
    pub(crate) fn parameters(&self, dim: u64) -> Result<Value, GgufError> {
        let StoredRope { theta, factor, attention, .. } = *self;
        let Some(factors) = self.factors_for(dim)? else {
            return Ok(match self.yarn {
                Some(original) => self.yarn_parameters(original),
                None if attention != 1.0 => self.listed(dim, None),
                None if factor != 1.0 => {
                    json!({"rope_type": "linear", "rope_theta": theta, "factor": factor})
                }
                None => json!({"rope_type": "default", "rope_theta": theta}),
            });
        };
        let plain = self.yarn.is_none() && factor == 1.0 && attention == 1.0;
        let known = || match factors.iter().all(|factor| *factor == 1.0) {
            true => Some(json!({"rope_type": "default", "rope_theta": theta})),
            false => llama3(theta, dim as usize, &factors),
        };
        let known = if plain { known() } else { None };
        Ok(known.unwrap_or_else(|| self.listed(dim, Some(&factors))))
    }

    /// The same for Phi, whose files have divisors for long and for short contexts in two tensors.
    pub(crate) fn parameters_of_both(&self, gguf: &Gguf, dim: u64) -> Result<Value, GgufError> {
        let [long, short] = ROPE_FACTORS;
        let (long, short) = (factors_in(gguf, long)?, factors_in(gguf, short)?);
        let plain = long.is_none() && short.is_none() && self.yarn.is_none();
        if plain && self.factor == 1.0 && self.attention == 1.0 {
            return Ok(json!({"rope_type": "default", "rope_theta": self.theta}));
        }
        let [long, short] = [(long, ROPE_FACTORS[0]), (short, ROPE_FACTORS[1])].map(|(factors, name)| {
            let factors = check_divisors(factors, name, dim)?;
            Ok(self.listed(dim, factors.as_deref())["short_factor"].clone())
        });
        Ok(
            json!({"rope_type": "longrope", "rope_theta": self.theta, "short_factor": short?, "long_factor": long?,
                  "attention_factor": self.own() * self.attention}),
        )
    }

    /// The same for Gemma 4, whose full layers turn a part of their pairs.
    pub(crate) fn partial_parameters(&self, dim: u64) -> Result<Value, GgufError> {
        let factors = self.factors_for(dim)?;
        let ones = || vec![1.0; dim as usize / 2];
        let factors = factors.unwrap_or_else(ones);
        let turning = factors.iter().take_while(|factor| **factor < UNTURNED).count();
        let first = factors.first().copied().unwrap_or(1.0);
        let alike = factors.iter().take(turning).all(|factor| *factor == first);
        let still = factors.iter().skip(turning).all(|factor| *factor >= UNTURNED);
        let factor = first * self.factor;
        if self.yarn.is_some() || self.attention != 1.0 || !alike || !still || factor < 1.0 || turning == 0 {
            return Ok(self.listed(dim, Some(&factors)));
        }
        let fraction = turning as f64 / factors.len() as f64;
        let mut rope = json!({
            "rope_type": "proportional", "rope_theta": self.theta, "partial_rotary_factor": fraction
        });
        if factor != 1.0 {
            rope["factor"] = json!(factor);
        }
        Ok(rope)
    }

    fn yarn_parameters(&self, original: u64) -> Value {
        let mut rope = json!({
            "rope_type": "yarn", "rope_theta": self.theta, "factor": self.factor,
            "original_max_position_embeddings": original,
        });
        if self.betas != [BETA_FAST, BETA_SLOW] {
            (rope["beta_fast"], rope["beta_slow"]) = (json!(self.betas[0]), json!(self.betas[1]));
        }
        if self.attention != 1.0 {
            rope["attention_factor"] = json!(self.own() * self.attention);
        } else if self.log_multiplier != 0.0 {
            (rope["mscale"], rope["mscale_all_dim"]) = (json!(1.0), json!(self.log_multiplier));
        }
        rope
    }

    /// llama.cpp's own factor on cosines and sines.
    fn own(&self) -> f64 {
        let divisor = match self.factor > 1.0 {
            true => 1.0 + 0.1 * self.log_multiplier * libm::log(self.factor),
            false => 1.0,
        };
        if self.yarn.is_some() { own_factor(self.factor) / divisor } else { 1.0 }
    }

    /// Every frequency's divisor, listed, and the factor on cosines and sines.
    fn listed(&self, dim: u64, factors: Option<&[f64]>) -> Value {
        let pairs = dim as usize / 2;
        let list: Vec<f64> = (0..pairs)
            .map(|pair| {
                let stored = factors.and_then(|factors| factors.get(pair)).copied().unwrap_or(1.0);
                stored * self.stretch(pair, dim as usize)
            })
            .collect();
        json!({"rope_type": "longrope", "rope_theta": self.theta, "short_factor": list, "long_factor": list,
               "attention_factor": self.own() * self.attention})
    }

    /// What scaling divides one frequency by.
    fn stretch(&self, pair: usize, dim: usize) -> f64 {
        let Some(original) = self.yarn else { return self.factor };
        let kind = RopeKind::Yarn {
            factor: self.factor,
            beta_fast: self.betas[0],
            beta_slow: self.betas[1],
            original_max_positions: original as f64,
            truncate: true,
        };
        let plain = RopeParameters::default(self.theta);
        let scaled = RopeParameters { kind, ..plain.clone() };
        let of = |parameters: &RopeParameters| rope_spec(parameters, dim).inv_freq.get(pair).copied();
        match (of(&plain), of(&scaled)) {
            (Some(plain), Some(scaled)) if scaled > 0.0 => f64::from(plain) / f64::from(scaled),
            _ => 1.0,
        }
    }

    fn factors_for(&self, dim: u64) -> Result<Option<Vec<f64>>, GgufError> {
        check_divisors(self.factors.clone(), ROPE_FREQS, dim)
    }
}

/// Refuses divisors that are not one number above 0 for each pair of `dim` dimensions.
fn check_divisors(factors: Option<Vec<f64>>, tensor: &str, dim: u64) -> Result<Option<Vec<f64>>, GgufError> {
    let Some(factors) = factors else { return Ok(None) };
    let finite = factors.iter().all(|factor| factor.is_finite() && *factor > 0.0);
    match finite && factors.len() as u64 * 2 == dim {
        true => Ok(Some(factors)),
        false => Err(GgufError::Unsupported {
            key: tensor.to_owned(),
            actual: format!("{} factors", factors.len()),
            supported: format!("{} numbers above 0", dim / 2),
        }),
    }
}

/// YaRN's own factor on cosines and sines.
pub(crate) fn own_factor(factor: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 1.0 + 0.1 * libm::log(factor) }
}

/// Divisors of frequencies in a tensor of a file.
fn factors_in(gguf: &Gguf, name: &str) -> Result<Option<Vec<f64>>, GgufError> {
    let Some(tensor) = gguf.tensor(name) else { return Ok(None) };
    if tensor.info.rows() != 1 || tensor.info.cols() > crate::limits::HEAD_DIM as usize {
        let dims = tensor.info.shape.iter().map(|&dim| dim as u64).collect();
        return Err(GgufError::Dims { name: name.to_owned(), dims });
    }
    let mut factors = vec![0.0; tensor.info.cols()];
    gguf.read_rows_f32(tensor, 0..1, &mut factors)?;
    Ok(Some(factors.into_iter().map(f64::from).collect()))
}

/// Llama 3.1 scales each frequency by a rule; the configuration says what the factors were made from.
fn llama3(theta: f64, dim: usize, factors: &[f64]) -> Option<Value> {
    let factor = factors.iter().copied().fold(1.0f64, f64::max);
    // The original context is a power of two, the low and high factors are 1 and 4.
    let original = (4..=24).map(|n| 1u64 << n).find(|&original| {
        let made = (0..dim / 2).map(|i| llama3_factor(theta, dim, i, factor, original as f64));
        made.zip(factors).all(|(made, &stored)| (made / stored - 1.0).abs() < 2e-4)
    })?;
    Some(json!({"rope_type": "llama3", "rope_theta": theta, "factor": factor, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": original}))
}

/// The divisor of frequency i.
fn llama3_factor(theta: f64, dim: usize, i: usize, factor: f64, original: f64) -> f64 {
    let wavelength = 2.0 * std::f64::consts::PI * theta.powf(2.0 * i as f64 / dim as f64);
    if wavelength < original / 4.0 {
        1.0
    } else if wavelength > original {
        factor
    } else {
        let smooth = (original / wavelength - 1.0) / 3.0;
        1.0 / ((1.0 - smooth) / factor + smooth)
    }
}
