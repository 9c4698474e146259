//! `adapter_config.json`: every option is understood, known to be without effect on a merge, or refused by name.

use super::AdapterError;
use super::targets::Targets;
use super::values::{ends_with, is_off, names, regex};
use regex::Regex;
use serde_json::{Map, Value};
use std::path::Path;

/// Options that matter in training or to loaders only.
const INERT: [&str; 16] = [
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
    "corda_config",
    "lora_ga_config",
    "ensure_weight_tying",
    // Of layers that keep their weights transposed; PEFT passes it over for the linear layers and embeddings of the
    // families that are read.
    "fan_in_fan_out",
];
/// Options that say together what is trained.
const TARGETS: [&str; 5] =
    ["target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern"];
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
    /// Whether biases of the checkpoint were trained and are saved whole.
    pub biases: bool,
    /// Modules saved whole, as ends of names.
    saved: Vec<String>,
    /// What is trained.
    pub targets: Targets,
    /// Rows that were trained by themselves: of the module whose name ends so, of the input embedding when it is empty.
    token_rows: Vec<(String, Vec<usize>)>,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    /// Whether parameters of three dimensions are `[experts, outputs, inputs]` to the factors, as PEFT has it since
    /// 0.19; `None` when the file does not say which PEFT wrote it.
    pub outputs_first: Option<bool>,
    /// Whether names and factors are as MLX saves them.
    pub mlx: bool,
}

/// The options in the text of a configuration.
pub(super) fn options(path: &Path, text: &str) -> Result<Map<String, Value>, AdapterError> {
    let json = |message: String| AdapterError::Json { path: path.to_owned(), message };
    match crate::json::parse(text.as_bytes()).map_err(|e| json(e.to_string()))? {
        Value::Object(options) => Ok(options),
        _ => Err(json("not an object".to_owned())),
    }
}

impl AdapterConfig {
    /// As MLX says it: factors times `scale`, for the targets.
    pub(super) fn of_mlx(scale: f64, targets: Targets) -> AdapterConfig {
        AdapterConfig {
            rank: 1,
            alpha: scale,
            rslora: false,
            dora: false,
            biases: false,
            saved: Vec::new(),
            targets,
            token_rows: Vec::new(),
            ranks: Vec::new(),
            alphas: Vec::new(),
            outputs_first: None,
            mlx: true,
        }
    }

    /// As PEFT says it.
    pub(super) fn parse(path: &Path, options: &Map<String, Value>) -> Result<AdapterConfig, AdapterError> {
        let mut config = AdapterConfig {
            rank: 8,
            alpha: 8.0,
            rslora: false,
            dora: false,
            biases: false,
            saved: Vec::new(),
            targets: Targets::parse(options)?,
            token_rows: Vec::new(),
            ranks: Vec::new(),
            alphas: Vec::new(),
            mlx: false,
            outputs_first: options.get("peft_version").and_then(Value::as_str).and_then(outputs_first),
        };
        if !options.contains_key("peft_type") {
            let message = "there is no peft_type".to_owned();
            return Err(AdapterError::Json { path: path.to_owned(), message });
        }
        for (option, value) in options {
            config.take(option, value)?;
        }
        Ok(config)
    }

    fn take(&mut self, option: &str, value: &Value) -> Result<(), AdapterError> {
        let refuse = |supported| AdapterError::Option {
            option: option.to_owned(),
            value: value.to_string(),
            supported,
        };
        let invalid = |expected| AdapterError::Invalid {
            option: option.to_owned(),
            value: value.to_string(),
            expected,
        };
        match option {
            "peft_type" if value != "LORA" => Err(refuse("LORA")),
            "peft_type" => Ok(()),
            "r" => {
                let rank = value.as_u64().filter(|rank| (1..=MAX_RANK).contains(rank));
                self.rank = rank.ok_or_else(|| invalid("1 to 65536"))?;
                Ok(())
            }
            "lora_alpha" => {
                self.alpha = value.as_f64().ok_or_else(|| invalid("a number"))?;
                Ok(())
            }
            "use_rslora" => {
                self.rslora = value.as_bool().ok_or_else(|| invalid("true or false"))?;
                Ok(())
            }
            "use_dora" => {
                self.dora = value.as_bool().ok_or_else(|| invalid("true or false"))?;
                Ok(())
            }
            "bias" => {
                self.biases = match value.as_str() {
                    Some("none") => false,
                    Some("all" | "lora_only") => true,
                    _ => return Err(invalid("none, all or lora_only")),
                };
                Ok(())
            }
            // Whether the factors have biases of their own, which the file shows.
            "lora_bias" => value.as_bool().map(|_| ()).ok_or_else(|| invalid("true or false")),
            "init_lora_weights" => match value {
                Value::Null | Value::Bool(_) => Ok(()),
                Value::String(init) if INITS.contains(&init.as_str()) => Ok(()),
                _ => Err(refuse(
                    "true, false, gaussian, eva or orthogonal: the others change the base weights",
                )),
            },
            "modules_to_save" => {
                self.saved = match value {
                    Value::Null => Vec::new(),
                    _ => names(value).ok_or_else(|| invalid("a list of names"))?,
                };
                Ok(())
            }
            "trainable_token_indices" => {
                let expected = "a list of token numbers, or an object of such lists";
                self.token_rows = token_rows(value).ok_or_else(|| invalid(expected))?;
                Ok(())
            }
            _ if TARGETS.contains(&option) => Ok(()),
            "rank_pattern" => {
                self.ranks = patterns("rank_pattern", value, invalid)?;
                Ok(())
            }
            "alpha_pattern" => {
                self.alphas = patterns("alpha_pattern", value, invalid)?;
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
    pub(super) fn demands(&self, module: &str, canonical: &str) -> bool {
        self.targets.demands(module, canonical) && !self.saves(module)
    }

    /// Rows of a module that were trained by themselves, in the file's order.
    pub(super) fn token_rows(&self, module: &str, is_embedding: bool) -> Option<&[usize]> {
        let of = |name: &str| if name.is_empty() { is_embedding } else { ends_with(module, name) };
        self.token_rows.iter().find(|(name, _)| of(name)).map(|(_, rows)| rows.as_slice())
    }
}

/// Whether the version of PEFT takes the second dimension of three for outputs.
fn outputs_first(version: &str) -> Option<bool> {
    let mut numbers = version.split(['.', '+']).map(str::parse::<u64>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((major, minor) >= (0, 19))
}

fn token_rows(value: &Value) -> Option<Vec<(String, Vec<usize>)>> {
    let rows = |value: &Value| -> Option<Vec<usize>> {
        let numbers = value.as_array()?.iter();
        numbers.map(|number| usize::try_from(number.as_u64()?).ok()).collect()
    };
    match value {
        Value::Null => Some(Vec::new()),
        Value::Object(map) => map
            .iter()
            .map(|(name, value)| Some((name.clone(), rows(value)?)).filter(|_| !name.is_empty()))
            .collect(),
        _ => Some(vec![(String::new(), rows(value)?)]),
    }
}

/// Patterns with their values, in the file's order. They match the end of a name, after a dot or from the beginning.
fn patterns(
    option: &'static str,
    value: &Value,
    invalid: impl Fn(&'static str) -> AdapterError,
) -> Result<Vec<(Regex, f64)>, AdapterError> {
    let map = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(map) => map,
        _ => return Err(invalid("an object of names and numbers")),
    };
    let pattern = |(key, value): (&String, &Value)| {
        let number = value.as_f64().filter(|n| match option {
            "rank_pattern" => (1.0..=MAX_RANK as f64).contains(n) && n.fract() == 0.0,
            _ => true,
        });
        let number = number.ok_or_else(|| invalid("an object of names and numbers"))?;
        Ok((regex(option, key, &format!(r"^(?:.*\.)?(?:{key})$"))?, number))
    };
    map.iter().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &str) -> Result<AdapterConfig, AdapterError> {
        parse_whole(&format!(r#"{{"peft_type": "LORA", "r": 4, {options}}}"#))
    }

    fn parse_whole(text: &str) -> Result<AdapterConfig, AdapterError> {
        let path = Path::new("c");
        AdapterConfig::parse(path, &options(path, text)?)
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
        let demands = |name: &str| config.demands(name, name);
        assert!(demands("model.layers.0.self_attn.q_proj") && !demands("model.q_projx"));
        assert!(!demands("model.layers.0.mlp.down_proj") && config.saves("lm_head"));
        assert!(!parse(r#""target_modules": "all-linear""#).unwrap().demands("all-linear", "all-linear"));
    }

    #[test]
    fn token_rows_and_versions() {
        let list = parse(r#""trainable_token_indices": [5, 9]"#).unwrap();
        assert_eq!(list.token_rows("model.embed_tokens", true), Some(&[5, 9][..]));
        assert_eq!(list.token_rows("lm_head", false), None);
        let named = parse(r#""trainable_token_indices": {"lm_head": [3], "embed_tokens": [1, 2]}"#).unwrap();
        assert_eq!(named.token_rows("lm_head", false), Some(&[3][..]));
        assert_eq!(named.token_rows("model.embed_tokens", true), Some(&[1, 2][..]));
        let first = |version| parse(&format!(r#""peft_version": "{version}""#)).unwrap().outputs_first;
        assert_eq!(first("0.18.1"), Some(false));
        assert_eq!(
            (first("0.19.0"), first("0.21.2.dev0+gabc"), first("1.0")),
            (Some(true), Some(true), Some(true))
        );
        assert_eq!(first("unknown"), None);
    }

    #[test]
    fn options_are_refused_by_name_unless_they_are_off() {
        for refused in [
            r#""init_lora_weights": "pissa_niter_4""#,
            r#""layer_replication": [[0, 4]]"#,
            r#""init_lora_weights": "olora""#,
            r#""bias": "some""#,
            r#""trainable_token_indices": ["a"]"#,
            r#""target_parameters": "mlp.experts.gate_up_proj""#,
            r#""layers_to_transform": "a""#,
            r#""use_qalora": true"#,
            r#""alora_invocation_tokens": [1]"#,
            r#""something_new": 1"#,
            r#""r": 0"#,
            r#""lora_alpha": "x""#,
            r#""rank_pattern": {"q": 1.5}"#,
        ] {
            let name = refused.split('"').nth(1).unwrap();
            match parse(refused).map(|_| ()) {
                Err(AdapterError::Option { option, .. } | AdapterError::Invalid { option, .. }) => {
                    assert_eq!(option, name);
                }
                // The first "r" of a repeated key is refused as JSON.
                Err(AdapterError::Json { .. }) => assert_eq!(name, "r"),
                other => panic!("{refused}: {other:?}"),
            }
        }
        assert!(parse(r#""something_new": null, "eva_config": {"rho": 2}, "loftq_config": {}"#).is_ok());
        assert!(matches!(parse(r#""alpha_pattern": {"(": 1}"#), Err(AdapterError::Pattern { .. })));
        assert!(parse_whole(r#"{"peft_type": "IA3"}"#).is_err());
        assert!(parse_whole("{}").is_err());
    }
}
