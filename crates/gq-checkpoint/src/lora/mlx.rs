//! Adapters as MLX saves them: `adapters.safetensors` with `lora_a [inputs, r]` and `lora_b [r, outputs]`.
//!
//! The layer's output gains `scale (x lora_a) lora_b`, of an embedding `scale lora_a[token] lora_b`. Early versions
//! multiplied by `alpha / r` as well, where `lora_parameters` had an `alpha`: such a configuration is refused, since it
//! does not say which version wrote it.

use super::AdapterError;
use super::config::AdapterConfig;
use super::modules::{Module, Modules};
use super::targets::Targets;
use super::values::names;
use crate::safetensors::Header;
use serde_json::{Map, Value};

/// The weights' file.
pub(super) const WEIGHTS: &str = "adapters.safetensors";

/// Whether a configuration is MLX's.
pub(super) fn is_mlx(options: &Map<String, Value>) -> bool {
    !options.contains_key("peft_type")
        && ["lora_parameters", "fine_tune_type", "lora_layers"].iter().any(|key| options.contains_key(*key))
}

/// Understands a configuration; what belongs to the training alone is passed over.
pub(super) fn config(options: &Map<String, Value>) -> Result<AdapterConfig, AdapterError> {
    let refuse = |option: &str, value: &Value, supported| AdapterError::Option {
        option: option.to_owned(),
        value: value.to_string(),
        supported,
    };
    match options.get("fine_tune_type") {
        None => {}
        Some(kind) if kind == "lora" => {}
        Some(kind) => return Err(refuse("fine_tune_type", kind, "lora")),
    }
    let Some(Value::Object(parameters)) = options.get("lora_parameters") else {
        let value = options.get("lora_parameters").unwrap_or(&Value::Null);
        return Err(refuse("lora_parameters", value, "an object with rank and scale"));
    };
    if let Some(alpha) = parameters.get("alpha") {
        let supported = "scale alone: versions of MLX differ in what alpha means";
        return Err(refuse("lora_parameters.alpha", alpha, supported));
    }
    let scale = parameters.get("scale").unwrap_or(&Value::Null);
    let scale = scale.as_f64().ok_or_else(|| refuse("lora_parameters.scale", scale, "a number"))?;
    let keys = match parameters.get("keys") {
        None | Some(Value::Null) => None,
        Some(keys) => {
            let list = names(keys);
            Some(list.ok_or_else(|| refuse("lora_parameters.keys", keys, "a list of names"))?)
        }
    };
    Ok(AdapterConfig::of_mlx(scale, Targets::of_names(keys)))
}

/// Modules by their names.
pub(super) fn modules(header: &Header) -> Result<Modules, AdapterError> {
    let mut modules = Modules::default();
    for entry in &header.entries {
        let name = || entry.name.clone();
        if !entry.dtype.is_float() {
            return Err(AdapterError::NotFloat { name: name(), actual: entry.dtype });
        }
        if entry.shape.contains(&0) {
            return Err(AdapterError::Empty { name: name() });
        }
        let part = entry.name.rsplit_once('.');
        let Some((module, part)) = part.filter(|(module, _)| !module.is_empty()) else {
            return Err(AdapterError::UnknownTensor { name: name() });
        };
        let module: &mut Module = modules.by_name.entry(module.to_owned()).or_default();
        match part {
            "lora_a" => module.a = Some(entry.clone()),
            "lora_b" => module.b = Some(entry.clone()),
            _ => return Err(AdapterError::UnknownTensor { name: name() }),
        }
    }
    Ok(modules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_certain_is_refused_by_name() {
        let of = |text: &str| {
            let Value::Object(options) = serde_json::from_str(text).unwrap() else { panic!() };
            assert!(is_mlx(&options), "{text}");
            config(&options)
        };
        assert!(
            of(r#"{"lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0}, "num_layers": 2}"#).is_ok()
        );
        for (text, option) in [
            (r#"{"fine_tune_type": "dora", "lora_parameters": {"scale": 2.0}}"#, "fine_tune_type"),
            (r#"{"fine_tune_type": "full"}"#, "fine_tune_type"),
            (r#"{"lora_layers": 4}"#, "lora_parameters"),
            (r#"{"lora_parameters": {"rank": 4, "alpha": 16, "scale": 10.0}}"#, "lora_parameters.alpha"),
            (r#"{"lora_parameters": {"rank": 4}}"#, "lora_parameters.scale"),
            (r#"{"lora_parameters": {"scale": 1, "keys": "q_proj"}}"#, "lora_parameters.keys"),
        ] {
            match of(text).map(|_| ()) {
                Err(AdapterError::Option { option: found, .. }) => assert_eq!(found, option),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
