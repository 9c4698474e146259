//! `adapter_config.json`: every option is understood, known to be without effect on a merge, or refused by name.

use super::AdapterError;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};
use std::path::Path;

/// Options that matter in training or to loaders only.
const INERT: [&str; 15] = [
    "task_type",
    "auto_mapping",
    "peft_version",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "runtime_config",
    "eva_config",
    "loftq_config",
    "layers_pattern",
    "exclude_modules",
    "ensure_weight_tying",
];
/// Ways to begin that leave the base weights as they are; the others change them (PiSSA, OLoRA, CorDA, LoftQ, …).
const INITS: [&str; 3] = ["gaussian", "eva", "orthogonal"];
/// Longest rank that is believed: real ones have up to 1024.
const MAX_RANK: u64 = 1 << 16;

/// What a merge needs to know.
#[derive(Debug)]
pub(super) struct AdapterConfig {
    rank: u64,
    alpha: f64,
    rslora: bool,
    /// Weight-decomposed.
    pub dora: bool,
    /// Modules saved whole, as ends of names.
    saved: Vec<String>,
    targets: Vec<String>,
    excluded: Vec<String>,
    some_layers: bool,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
}

impl AdapterConfig {
    pub(super) fn parse(path: &Path, text: &str) -> Result<AdapterConfig, AdapterError> {
        let json = |message: String| AdapterError::Json { path: path.to_owned(), message };
        let value = crate::json::parse(text.as_bytes()).map_err(|e| json(e.to_string()))?;
        let Value::Object(options) = value else { return Err(json("not an object".to_owned())) };
        let mut config = AdapterConfig {
            rank: 8,
            alpha: 8.0,
            rslora: false,
            dora: false,
            saved: Vec::new(),
            targets: Vec::new(),
            excluded: Vec::new(),
            some_layers: false,
            ranks: Vec::new(),
            alphas: Vec::new(),
        };
        if !options.contains_key("peft_type") {
            return Err(json("there is no peft_type".to_owned()));
        }
        for (option, value) in &options {
            config.take(option, value)?;
        }
        config.excluded = names(&options, "exclude_modules");
        Ok(config)
    }

    fn take(&mut self, option: &str, value: &Value) -> Result<(), AdapterError> {
        let refuse = |supported| AdapterError::Option {
            option: option.to_owned(),
            value: value.to_string(),
            supported,
        };
        match option {
            "peft_type" if value != "LORA" => Err(refuse("LORA")),
            "peft_type" => Ok(()),
            "r" => {
                let rank = value.as_u64().filter(|rank| (1..=MAX_RANK).contains(rank));
                self.rank = rank.ok_or_else(|| refuse("1 to 65536"))?;
                Ok(())
            }
            "lora_alpha" => {
                self.alpha = value.as_f64().ok_or_else(|| refuse("a number"))?;
                Ok(())
            }
            "use_rslora" => {
                self.rslora = value.as_bool().ok_or_else(|| refuse("true or false"))?;
                Ok(())
            }
            "use_dora" => {
                self.dora = value.as_bool().ok_or_else(|| refuse("true or false"))?;
                Ok(())
            }
            "bias" if value != "none" => Err(refuse("none")),
            "bias" => Ok(()),
            "init_lora_weights" => match value {
                Value::Null | Value::Bool(_) => Ok(()),
                Value::String(init) if INITS.contains(&init.as_str()) => Ok(()),
                _ => Err(refuse(
                    "true, false, gaussian, eva or orthogonal: the others change the base weights",
                )),
            },
            "modules_to_save" | "target_modules" => {
                let list = match value {
                    Value::Null => Vec::new(),
                    Value::Array(list) => {
                        let names = list.iter().map(|name| name.as_str().map(str::to_owned));
                        names.collect::<Option<_>>().ok_or_else(|| refuse("a list of names"))?
                    }
                    // A pattern, which is PEFT's business: the file says what was trained.
                    Value::String(_) if option == "target_modules" => Vec::new(),
                    _ => return Err(refuse("a list of names")),
                };
                *(if option == "target_modules" { &mut self.targets } else { &mut self.saved }) = list;
                Ok(())
            }
            "layers_to_transform" => {
                self.some_layers = !is_off(value);
                Ok(())
            }
            "rank_pattern" => {
                self.ranks = patterns("rank_pattern", value, refuse)?;
                Ok(())
            }
            "alpha_pattern" => {
                self.alphas = patterns("alpha_pattern", value, refuse)?;
                Ok(())
            }
            _ if INERT.contains(&option) || is_off(value) => Ok(()),
            _ => Err(refuse("null or false")),
        }
    }

    /// Rank and scale of a module: the first pattern that fits its name decides.
    pub(super) fn rank_and_scale(&self, module: &str) -> (u64, f64) {
        let first = |patterns: &[(Regex, f64)]| patterns.iter().find(|p| p.0.is_match(module)).map(|p| p.1);
        let rank = first(&self.ranks).map_or(self.rank, |rank| rank as u64);
        let alpha = first(&self.alphas).unwrap_or(self.alpha);
        let over = if self.rslora { (rank as f64).sqrt() } else { rank as f64 };
        (rank, alpha / over)
    }

    /// Whether a module is one of those saved whole.
    pub(super) fn saves(&self, module: &str) -> bool {
        self.saved.iter().any(|name| ends_with(module, name))
    }

    /// Whether the file must have factors for a module: it is named as a target, and nothing takes it out again.
    pub(super) fn demands(&self, module: &str) -> bool {
        !self.some_layers
            && self.targets.iter().any(|name| ends_with(module, name))
            && !self.excluded.iter().any(|name| ends_with(module, name))
            && !self.saves(module)
    }
}

/// Whether a module is `name` or is called so in something.
fn ends_with(module: &str, name: &str) -> bool {
    module.strip_suffix(name).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

fn names(options: &Map<String, Value>, option: &str) -> Vec<String> {
    let list = options.get(option).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Patterns with their values, in the file's order. They match the end of a name, after a dot or from the beginning.
fn patterns(
    option: &'static str,
    value: &Value,
    refuse: impl Fn(&'static str) -> AdapterError,
) -> Result<Vec<(Regex, f64)>, AdapterError> {
    let map = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(map) => map,
        _ => return Err(refuse("an object of names and numbers")),
    };
    let pattern = |(key, value): (&String, &Value)| {
        let number = value.as_f64().filter(|n| match option {
            "rank_pattern" => (1.0..=MAX_RANK as f64).contains(n) && n.fract() == 0.0,
            _ => true,
        });
        let number = number.ok_or_else(|| refuse("an object of names and numbers"))?;
        let regex = RegexBuilder::new(&format!(r"^(?:.*\.)?(?:{key})$")).size_limit(1 << 20).build();
        let regex = regex.map_err(|error| {
            // The last line says what is wrong, those before it draw the pattern.
            let message = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            AdapterError::Pattern { option, pattern: key.clone(), message }
        })?;
        Ok((regex, number))
    };
    map.iter().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Result<AdapterConfig, AdapterError> {
        AdapterConfig::parse(Path::new("c"), &format!(r#"{{"peft_type": "LORA", "r": 4, {options}}}"#))
    }

    #[test]
    fn ranks_and_scales() {
        let config = parse(
            r#""lora_alpha": 8, "rank_pattern": {"q_proj": 2, "layers\\.1\\.mlp\\.down_proj": 16}, "alpha_pattern": {"down_proj": 32}"#,
        )
        .unwrap();
        assert_eq!(config.rank_and_scale("model.layers.0.self_attn.q_proj"), (2, 4.0));
        assert_eq!(config.rank_and_scale("model.layers.0.self_attn.xq_proj"), (4, 2.0));
        assert_eq!(config.rank_and_scale("model.layers.1.mlp.down_proj"), (16, 2.0));
        assert_eq!(config.rank_and_scale("model.layers.11.mlp.down_proj"), (4, 8.0));
        let rslora = parse(r#""lora_alpha": 8, "use_rslora": true"#).unwrap();
        assert_eq!(rslora.rank_and_scale("x"), (4, 4.0));
    }

    #[test]
    fn targets() {
        let config = parse(
            r#""target_modules": ["q_proj", "down_proj"], "exclude_modules": ["mlp.down_proj"], "modules_to_save": ["lm_head"]"#,
        )
        .unwrap();
        assert!(config.demands("model.layers.0.self_attn.q_proj") && !config.demands("model.q_projx"));
        assert!(!config.demands("model.layers.0.mlp.down_proj") && config.saves("lm_head"));
        assert!(!parse(r#""target_modules": "all-linear""#).unwrap().demands("all-linear"));
    }

    #[test]
    fn options_are_refused_by_name_unless_they_are_off() {
        for refused in [
            r#""bias": "all""#,
            r#""lora_bias": true"#,
            r#""fan_in_fan_out": true"#,
            r#""init_lora_weights": "pissa_niter_4""#,
            r#""layer_replication": [[0, 4]]"#,
            r#""trainable_token_indices": [1]"#,
            r#""target_parameters": ["mlp.experts.gate_up_proj"]"#,
            r#""use_qalora": true"#,
            r#""alora_invocation_tokens": [1]"#,
            r#""something_new": 1"#,
            r#""r": 0"#,
            r#""lora_alpha": "x""#,
            r#""rank_pattern": {"q": 1.5}"#,
        ] {
            let name = refused.split('"').nth(1).unwrap();
            match parse(refused).map(|_| ()) {
                Err(AdapterError::Option { option, .. }) => assert_eq!(option, name),
                // The first "r" of a repeated key is refused as JSON.
                Err(AdapterError::Json { .. }) => assert_eq!(name, "r"),
                other => panic!("{refused}: {other:?}"),
            }
        }
        assert!(parse(r#""something_new": null, "eva_config": {"rho": 2}, "loftq_config": {}"#).is_ok());
        assert!(matches!(parse(r#""alpha_pattern": {"(": 1}"#), Err(AdapterError::Pattern { .. })));
        assert!(AdapterConfig::parse(Path::new("c"), r#"{"peft_type": "IA3"}"#).is_err());
        assert!(AdapterConfig::parse(Path::new("c"), "{}").is_err());
    }
}
