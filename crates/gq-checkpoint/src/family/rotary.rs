//! Rotary keys of a configuration, in their new and old spellings.

use crate::ConfigError;
use crate::config::{Around, Fields, RopeParameters, check_factors};

pub(super) const DEFAULT_THETA: f64 = 10_000.0;

/// `rope_parameters` (newer files) or `rope_theta` with `rope_scaling`; where both stand they must agree.
pub(super) fn read(
    fields: &Fields<'_>,
    max_positions: usize,
    model_type: &str,
) -> Result<RopeParameters, ConfigError> {
    let theta = fields.opt_float("rope_theta", 1.0..=1e12)?;
    let original = fields.opt_float("original_max_position_embeddings", 1.0..=1e9)?;
    let around =
        Around { theta: Some(theta.unwrap_or(DEFAULT_THETA)), max_positions, original, of_phi: None };
    let read = |object: Option<Fields<'_>>| {
        object.map(|object| RopeParameters::read(&object, around, model_type)).transpose()
    };
    let new = read(fields.opt_object("rope_parameters")?)?;
    let old = read(fields.opt_object("rope_scaling")?)?;
    let theta = Theta { key: "rope_theta", said: theta, default: DEFAULT_THETA };
    agreed(fields, theta, "rope_parameters", new, old)
}

/// The same for heads of this width.
pub(super) fn of_heads(
    fields: &Fields<'_>,
    max_positions: usize,
    model_type: &str,
    head_dim: usize,
) -> Result<RopeParameters, ConfigError> {
    let rope = read(fields, max_positions, model_type)?;
    check_factors(fields, &rope, head_dim)?;
    Ok(rope)
}

/// Refuses a configuration that says no base: the class's own is that of no published model, or of one alone.
pub(super) fn must_have_theta(fields: &Fields<'_>) -> Result<(), ConfigError> {
    let said = fields.opt_object("rope_parameters")?.and_then(|rope| rope.value("rope_theta"));
    match said.or(fields.value("rope_theta")) {
        Some(_) => Ok(()),
        None => Err(fields.missing("rope_theta")),
    }
}

/// The base of the frequencies under a key of its own.
pub(super) struct Theta<'a> {
    pub(super) key: &'a str,
    pub(super) said: Option<f64>,
    pub(super) default: f64,
}

/// What the new spelling (at `part`) says, else the old one, else theta alone. They must not differ.
pub(super) fn agreed(
    fields: &Fields<'_>,
    theta: Theta<'_>,
    part: &str,
    new: Option<RopeParameters>,
    old: Option<RopeParameters>,
) -> Result<RopeParameters, ConfigError> {
    let disagree = |field: &str, value: String, other: &str, other_value: String| ConfigError::Disagree {
        field: fields.path(field),
        value,
        other: fields.path(other),
        other_value,
    };
    match (&new, theta.said, &old) {
        (Some(new), Some(said), _) if new.theta != said => {
            let other = format!("{part}.rope_theta");
            Err(disagree(theta.key, said.to_string(), &other, new.theta.to_string()))
        }
        (Some(new), _, Some(old)) if new != old => {
            Err(disagree("rope_scaling", format!("{:?}", old.kind), part, format!("{:?}", new.kind)))
        }
        _ => {
            let theta = theta.said.unwrap_or(theta.default);
            Ok(new.or(old).unwrap_or_else(|| RopeParameters::default(theta)))
        }
    }
}
