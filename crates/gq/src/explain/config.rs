//! Failures of configurations.

use crate::failure::{Exit, Failure};
use gq_checkpoint::ConfigError;

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Failure {
        config(Failure::new(Exit::Input, "config", format!("config: {error}")).at("config"), &error)
    }
}

pub(super) fn config(failure: Failure, error: &ConfigError) -> Failure {
    use ConfigError as E;
    let file = failure.place.clone().unwrap_or_default();
    let at = |failure: Failure, code, field: &str| failure.code(code).at(format!("{file}: {field}"));
    match error {
        E::Json { source } => failure.code("config.json").limit("JSON").actual(source),
        E::UnknownKey { key, model_type } => {
            at(failure, "config.unknown_key", key).limit(format!("keys of {model_type}")).actual(key)
        }
        E::Missing { field } => at(failure, "config.missing", field).limit(field).actual("missing"),
        E::WrongType { field, expected, actual } => {
            at(failure, "config.wrong_type", field).limit(expected).actual(actual)
        }
        E::OutOfRange { field, actual, min, max } => {
            at(failure, "config.out_of_range", field).limit(format!("{min} to {max}")).actual(actual)
        }
        E::Unsupported { field, value, supported } => {
            let code = match field.starts_with("quantization_config") {
                true => "config.quantization",
                false => "config.unsupported",
            };
            at(failure, code, field).limit(supported).actual(value)
        }
        E::Disagree { field, value, other, other_value } => {
            at(failure, "config.disagree", field).limit(format!("{other} says {other_value}")).actual(value)
        }
        E::LayerCount { field, actual, layers } => {
            at(failure, "config.layer_count", field).limit(layers).actual(actual)
        }
        E::FactorCount { field, actual, pairs } => {
            at(failure, "config.factor_count", field).limit(pairs).actual(actual)
        }
        E::Null { field, absent } => at(failure, "config.null", field).limit(absent).actual("null"),
        E::HeadGroups { layer, heads, kv_heads } => {
            at(failure, "config.head_groups", &format!("layer {layer}"))
                .limit(format!("a multiple of {kv_heads}"))
                .actual(heads)
        }
        E::NoSharedCache { layer, layer_type } => {
            at(failure, "config.no_shared_cache", &format!("layer {layer}"))
                .limit(format!("an earlier {layer_type} layer"))
                .actual("none")
        }
    }
}
