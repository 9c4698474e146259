//! Rotary embeddings as keys of metadata and divisors of frequencies that make llama.cpp compute ours.

use crate::config::period;
use crate::declared::{ROPE_FACTORS, ROPE_FREQS};
use crate::gguf::{BETA_FAST, BETA_SLOW, GgufError, RopeFactors, STILL, Value as Metadatum, own_factor};
use crate::{ModelSpec, RopeKind, RopeSpec};

/// The rotary embedding of layers without a window (or of the only kind there is).
fn full_rope(spec: &ModelSpec) -> Option<&RopeSpec> {
    let full = spec.layers.iter().find(|layer| layer.attention.window.is_none()).or(spec.layers.first());
    full.and_then(|layer| spec.ropes.get(layer.attention.rope))
}

/// That of layers with a window, if there are any.
fn sliding_rope(spec: &ModelSpec) -> Option<&RopeSpec> {
    let sliding = spec.layers.iter().find(|layer| layer.attention.window.is_some())?;
    spec.ropes.get(sliding.attention.rope)
}

/// Keys below the architecture that make llama.cpp turn as the model does.
///
/// # Errors
/// When none do.
pub(super) fn stored_keys(spec: &ModelSpec) -> Result<Vec<(&'static str, Metadatum)>, GgufError> {
    let Some(rope) = full_rope(spec) else { return Ok(Vec::new()) };
    let mut keys = Vec::new();
    let float = |value: f64| Metadatum::F32(value as f32);
    let listed = !stored_factors(spec)?.is_empty();
    let mut attention = f64::from(rope.attention_factor);
    match rope.kind {
        RopeKind::Linear { factor } if !listed => {
            keys.push(("rope.scaling.type", Metadatum::String("linear".to_owned())));
            keys.push(("rope.scaling.factor", float(factor)));
        }
        RopeKind::Yarn { factor, original_max_positions, beta_fast, beta_slow, .. } if !listed => {
            let original = Metadatum::U32(original_max_positions as u32);
            keys.push(("rope.scaling.type", Metadatum::String("yarn".to_owned())));
            keys.push(("rope.scaling.factor", float(factor)));
            keys.push(("rope.scaling.original_context_length", original));
            match spec.family.file().gguf.yarn_keys {
                true => {
                    // The family's own keys leave no factor but this one.
                    keys.push(("rope.scaling.yarn_beta_fast", float(beta_fast)));
                    keys.push(("rope.scaling.yarn_beta_slow", float(beta_slow)));
                }
                false => attention /= own_factor(factor),
            }
        }
        _ => {}
    }
    let attention = if (attention - 1.0).abs() < 1e-6 { 1.0 } else { attention };
    if attention != 1.0 {
        keys.push(("rope.scaling.attn_factor", float(attention)));
    }
    keys.push(("rope.freq_base", float(rope.theta)));
    if let Some(local) = sliding_rope(spec).filter(|_| spec.family.file().gguf.sliding_rope) {
        if attention != 1.0 {
            let key = "rope_parameters.full_attention.attention_factor";
            let supported =
                "the factor that the engine applies itself: another one would reach sliding layers";
            return Err(unsupported(key, rope.attention_factor, supported));
        }
        if !matches!(local.kind, RopeKind::Default | RopeKind::Dynamic { .. }) {
            let key = "rope_parameters.sliding_attention.rope_type";
            return Err(unsupported(key, name(local.kind), "default on sliding layers"));
        }
        keys.push(("rope.freq_base_swa", float(local.theta)));
    }
    Ok(keys)
}

/// Divisors of the frequencies, one per pair, by the name of the tensor that the format keeps them in.
///
/// # Errors
/// When the family's layers do not read that tensor, but need it.
pub(super) fn stored_factors(spec: &ModelSpec) -> Result<Vec<(&'static str, Vec<f32>)>, GgufError> {
    let Some(rope) = full_rope(spec) else { return Ok(Vec::new()) };
    let by_keys = match rope.kind {
        RopeKind::Default | RopeKind::Dynamic { .. } | RopeKind::Linear { .. } => true,
        RopeKind::Yarn { beta_fast, beta_slow, original_max_positions, truncate, .. } => {
            let whole =
                original_max_positions.fract() == 0.0 && original_max_positions <= f64::from(u32::MAX);
            let rules = &spec.family.file().gguf;
            let betas = rules.yarn_keys || (beta_fast == BETA_FAST && beta_slow == BETA_SLOW);
            betas && truncate == rules.yarn_truncates && whole
        }
        RopeKind::Llama3 { .. } | RopeKind::Factors | RopeKind::Proportional { .. } => false,
    };
    let rules = &spec.family.file().gguf;
    let key = if rules.sliding_rope { "rope_parameters.full_attention" } else { "rope_parameters" };
    match rules.rope_factors {
        RopeFactors::WhereNeeded | RopeFactors::ShortAndLong | RopeFactors::Never if by_keys => {
            Ok(Vec::new())
        }
        RopeFactors::Never => Err(unsupported(
            key,
            format!("{} that rope.scaling.* cannot say", name(rope.kind)),
            &format!(
                "default, linear, yarn with the usual betas: no {ROPE_FREQS} is written for {}",
                spec.family.name()
            ),
        )),
        RopeFactors::WhereNeeded | RopeFactors::Always => {
            Ok(vec![(ROPE_FREQS, divisors(rope, &rope.inv_freq))])
        }
        RopeFactors::ShortAndLong => {
            let frequencies = [rope.frequencies(usize::MAX), rope.frequencies(0)];
            Ok(ROPE_FACTORS.into_iter().zip(frequencies.map(|list| listed_divisors(rope, list))).collect())
        }
    }
}

/// Divisors of listed frequencies: those of which the same arithmetic makes the same bits.
fn listed_divisors(rope: &RopeSpec, frequencies: &[f32]) -> Vec<f32> {
    let divisor = |(pair, &frequency): (usize, &f32)| {
        let period = period(rope.theta, pair, frequencies.len());
        let near = (1.0 / (f64::from(frequency) * f64::from(period))) as f32;
        let again = |factor: f32| 1.0 / (factor * period) == frequency;
        let (up, down) =
            (|n: u32| f32::from_bits(near.to_bits() + n), |n: u32| f32::from_bits(near.to_bits() - n));
        let others = (1..=4).flat_map(|n| [up(n), down(n)]);
        [snap(near), near].into_iter().chain(others).find(|factor| again(*factor)).unwrap_or(near)
    };
    frequencies.iter().enumerate().map(divisor).collect()
}

fn divisors(rope: &RopeSpec, frequencies: &[f32]) -> Vec<f32> {
    let plain = |pair: usize| rope.theta.powf(-2.0 * pair as f64 / rope.head_dim as f64);
    let divisor = |(pair, &frequency): (usize, &f32)| match frequency == 0.0 {
        true => STILL,
        false => snap((plain(pair) / f64::from(frequency)) as f32),
    };
    frequencies.iter().enumerate().map(divisor).collect()
}

/// Factors that are whole but for rounding.
fn snap(factor: f32) -> f32 {
    if (factor - factor.round()).abs() < 1e-5 { factor.round() } else { factor }
}

fn name(kind: RopeKind) -> &'static str {
    match kind {
        RopeKind::Default => "default",
        RopeKind::Linear { .. } => "linear",
        RopeKind::Llama3 { .. } => "llama3",
        RopeKind::Dynamic { .. } => "dynamic",
        RopeKind::Factors => "longrope",
        RopeKind::Yarn { .. } => "yarn",
        RopeKind::Proportional { .. } => "proportional",
    }
}

fn unsupported(key: &str, actual: impl ToString, supported: &str) -> GgufError {
    GgufError::Unsupported {
        key: key.to_owned(),
        actual: actual.to_string(),
        supported: supported.to_owned(),
    }
}
