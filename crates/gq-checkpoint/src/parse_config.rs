//! `config.json` to [`ModelSpec`]: which family, and that nothing in the file is left unread.

use crate::config::{Fields, Reading, shown};
use crate::keys::IgnoredKey;
use crate::{ConfigError, ModelSpec, family, json};
use serde_json::Value;

/// Reads a `config.json`; also the one inside a converted file.
///
/// # Errors
/// When it is not JSON, a key is unknown, or a value is missing, out of range or not supported: see [`ConfigError`].
pub fn parse_config(json: &str) -> Result<ModelSpec, ConfigError> {
    parse_config_accepting(json, &[]).map(|(spec, _)| spec)
}

/// The same; unknown keys with one of these names (dotted, or the last part alone) are read over. Also gives the keys
/// that were read over, because nothing reads them or because they were accepted.
///
/// # Errors
/// As [`parse_config`].
pub fn parse_config_accepting(
    json: &str,
    accepted: &[String],
) -> Result<(ModelSpec, Vec<IgnoredKey>), ConfigError> {
    let reading = Reading { accepted: accepted.to_vec(), ..Reading::default() };
    let spec = read(json, &reading)?;
    Ok((spec, reading.ignored.into_inner()))
}

/// The text of a configuration without some keys, by dotted path; the same text when there are none.
pub(crate) fn without_keys(json: &str, paths: &[&str]) -> Result<String, ConfigError> {
    if paths.is_empty() {
        return Ok(json.to_owned());
    }
    let mut value = json::parse(json.as_bytes()).map_err(|source| ConfigError::Json { source })?;
    for path in paths {
        let (front, key) = path
            .rsplit_once('.')
            .map_or((String::new(), *path), |(front, key)| (format!("/{}", front.replace('.', "/")), key));
        if let Some(object) = value.pointer_mut(&front).and_then(Value::as_object_mut) {
            object.remove(key);
        }
    }
    Ok(format!("{value:#}"))
}

/// The text of a configuration that says the head is a matrix of its own.
pub(crate) fn untied(json: &str) -> Result<String, ConfigError> {
    let mut value = json::parse(json.as_bytes()).map_err(|source| ConfigError::Json { source })?;
    if let Some(top) = value.as_object_mut() {
        top.insert("tie_word_embeddings".to_owned(), Value::Bool(false));
    }
    Ok(format!("{value:#}"))
}

fn read(json: &str, reading: &Reading) -> Result<ModelSpec, ConfigError> {
    let value = json::parse(json.as_bytes()).map_err(|source| ConfigError::Json { source })?;
    let Value::Object(map) = &value else {
        return Err(ConfigError::WrongType {
            field: "config".to_owned(),
            expected: "an object",
            actual: shown(&value),
        });
    };
    let top = Fields::new("", map, reading);
    let model_type = top.string("model_type")?;
    top.irrelevant(&["model_type"]);
    family::read(model_type, &top)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Family;
    use crate::keys::{BOOKKEEPING, CONFIG_KEYS, GGUF_KEYS, LEFT_BEHIND, OFF};
    use serde_json::json;
    use std::collections::BTreeSet;

    /// As the table spells it: rotary parameters of all spellings are one, layers have no numbers.
    fn row_of(path: &str) -> String {
        let path =
            path.strip_prefix("text_config.").unwrap_or(path).replace("rope_scaling.", "rope_parameters.");
        let path = path.replace("per_layer_config.0", "per_layer_config.N");
        let types = ["sliding_attention", "full_attention"];
        match path.strip_prefix("rope_parameters.") {
            Some(rest) => match types.iter().find_map(|name| rest.strip_prefix(name)) {
                Some("") => "rope_parameters.*".to_owned(),
                Some(rest) => format!("rope_parameters{rest}"),
                None => path,
            },
            None => path,
        }
    }

    /// Every path that reading these configurations asks for.
    fn asked(configs: &[Value]) -> BTreeSet<String> {
        let mut asked = BTreeSet::new();
        for config in configs {
            let reading = Reading::default();
            let result = read(&config.to_string(), &reading);
            assert!(result.is_ok(), "{config}: {result:?}");
            asked.extend(reading.asked.into_inner().iter().map(|path| row_of(path)));
        }
        for switch in OFF {
            asked.remove(*switch);
            for part in ["rope_parameters", "per_layer_config.N"] {
                asked.remove(&format!("{part}.{switch}"));
            }
        }
        asked
    }

    fn rows(family: Family) -> BTreeSet<String> {
        let rows = CONFIG_KEYS.iter().filter(|row| row.families.contains(&family));
        rows.map(|row| row.key.to_owned()).collect()
    }

    fn ropes() -> Vec<Value> {
        vec![
            json!({"rope_type": "default", "rope_theta": 5e3}),
            json!({"rope_type": "linear", "rope_theta": 5e3, "factor": 2.0}),
            json!({"rope_type": "dynamic", "rope_theta": 5e3, "factor": 2.0}),
            json!({"rope_type": "llama3", "rope_theta": 5e3, "factor": 2.0, "low_freq_factor": 1.0,
                   "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
            json!({"rope_type": "yarn", "rope_theta": 5e3, "factor": 2.0}),
            json!({"rope_type": "longrope", "rope_theta": 5e3, "short_factor": vec![1.0; 8], "long_factor": vec![1.0; 8]}),
            json!({"rope_type": "proportional", "rope_theta": 5e3, "partial_rotary_factor": 0.5}),
        ]
    }

    /// The same configuration with codes of GPTQ and of AWQ.
    fn coded(config: &Value) -> [Value; 2] {
        ["gptq", "awq"].map(|method| {
            let mut config = config.clone();
            config["quantization_config"] = json!({"quant_method": method, "bits": 4});
            config
        })
    }

    /// What is asked for has a row, and every row is asked for.
    #[test]
    fn the_table_of_keys_is_what_the_readers_ask_for() {
        let gemma = |family: &Family| family.name().starts_with("gemma");
        for family in Family::ALL.into_iter().filter(|family| !gemma(family)) {
            let own = match family {
                Family::Qwen3 => json!({"head_dim": 16, "max_position_embeddings": 64}),
                Family::Qwen3Moe => json!({"max_position_embeddings": 64, "num_experts": 4,
                    "num_experts_per_tok": 2, "moe_intermediate_size": 32, "norm_topk_prob": true}),
                Family::GptOss => json!({"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2,
                    "sliding_window": 8}),
                Family::Mistral3 => json!({"sliding_window": null}),
                _ => json!({}),
            };
            let text = |rope: Value| {
                let mut text = json!({"model_type": family.file().model_types[0].name, "hidden_size": 32, "intermediate_size": 32,
                       "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                       "vocab_size": 32, "rope_parameters": rope,
                       "quantization_config": {"quant_method": "fp8"}});
                text.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
                text
            };
            let mut configs: Vec<Value> = ropes().into_iter().map(text).collect();
            configs[0]["quantization_config"] =
                json!({"quant_method": "compressed-tensors", "format": "float-quantized"});
            if family == Family::Phi3 {
                let read = ["default", "longrope"];
                configs
                    .retain(|config| read.iter().any(|name| config["rope_parameters"]["rope_type"] == *name));
            }
            if family == Family::Llama {
                let mut mistral = configs[0].clone();
                mistral["model_type"] = "mistral".into();
                configs.push(mistral);
            }
            if family == Family::Mistral3 {
                // Its queries grow, and its rotary parameters are YaRN's.
                let of_mistral = |rope: &Value| {
                    json!({"model_type": "mistral3", "quantization_config": {"quant_method": "fp8"},
                    "text_config": {"model_type": "mistral", "hidden_size": 32, "intermediate_size": 32,
                       "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
                       "vocab_size": 32, "rope_parameters": rope}})
                };
                let others: Vec<Value> = ropes().iter().map(of_mistral).collect();
                configs.retain(|config| config["rope_parameters"]["rope_type"] == "yarn");
                let mut coded = configs[0].clone();
                coded["rope_parameters"]["llama_4_scaling_beta"] = 0.1.into();
                coded["quantization_config"] =
                    json!({"quant_method": "compressed-tensors", "format": "float-quantized"});
                configs = others;
                configs.push(coded);
            }
            configs.extend(coded(&configs[0]));
            let mut asked = asked(&configs);
            asked.retain(|key| !TOWERS.contains(&key.as_str()));
            assert_eq!(asked, rows(family), "{}", family.name());
        }

        let both = |rope: Value| json!({"full_attention": rope, "sliding_attention": {"rope_theta": 10.0}});
        for family in ["gemma3", "gemma4"] {
            let text = |rope: Value| {
                json!({"model_type": format!("{family}_text"), "head_dim": 16, "global_head_dim": 16,
                       "num_hidden_layers": 6, "rope_parameters": both(rope)})
            };
            let mut configs: Vec<Value> = ropes().into_iter().map(text).collect();
            configs.push(json!({"model_type": family, "text_config": configs[0].clone(),
                                "quantization_config": {"quant_method": "fp8"}}));
            let last = configs.len() - 1;
            configs.extend(coded(&configs[last]));
            let inner = &mut configs[last]["text_config"];
            inner["quantization_config"] =
                json!({"quant_method": "compressed-tensors", "format": "float-quantized"});
            if family == "gemma3" {
                configs.iter_mut().for_each(|config| {
                    config.as_object_mut().unwrap().remove("global_head_dim");
                    if let Some(text) = config["text_config"].as_object_mut() {
                        text.remove("global_head_dim");
                    }
                });
            } else {
                inner.as_object_mut().unwrap().remove("global_head_dim");
                inner["per_layer_config"] = json!({"0": {"head_dim": 16}});
            }
            let family = Family::ALL.into_iter().find(|known| known.name() == family).unwrap();
            let mut asked = asked(&configs);
            asked.retain(|key| !TOWERS.contains(&key.as_str()));
            assert_eq!(asked, rows(family), "{}", family.name());
        }
    }

    /// Keys of the wrappers that concern images, video and sound.
    const TOWERS: [&str; 21] = [
        "projector_hidden_act",
        "vision_feature_layer",
        "multimodal_projector_bias",
        "spatial_merge_size",
        "vision_config",
        "mm_tokens_per_image",
        "boi_token_index",
        "eoi_token_index",
        "image_token_index",
        "boi_token_id",
        "eoi_token_id",
        "image_token_id",
        "audio_config",
        "boa_token_id",
        "eoa_token_id",
        "eoa_token_index",
        "video_token_id",
        "audio_token_id",
        "vision_soft_tokens_per_image",
        "audio_soft_tokens_per_image",
        "audio_ms_per_token",
    ];

    #[test]
    fn no_key_has_two_rows() {
        let (mut config, mut gguf) = (BTreeSet::new(), BTreeSet::new());
        for row in CONFIG_KEYS {
            assert!(row.families.iter().all(|family| config.insert((family.name(), row.key))), "{}", row.key);
        }
        for row in GGUF_KEYS {
            assert!(row.families.iter().all(|family| gguf.insert((family.name(), row.key))), "{}", row.key);
        }
        let lists = BOOKKEEPING.iter().chain(OFF).chain(LEFT_BEHIND.iter().map(|(key, _)| key));
        for key in lists {
            assert!(!CONFIG_KEYS.iter().any(|row| row.key == *key), "{key}");
        }
    }

    #[test]
    fn a_key_is_left_out_of_the_text() {
        let text = r#"{"a":1,"rope_scaling":{"ramp":2,"factor":3}}"#;
        let without: Value =
            serde_json::from_str(&without_keys(text, &["rope_scaling.ramp", "a"]).unwrap()).unwrap();
        assert_eq!(without, json!({"rope_scaling": {"factor": 3}}));
        assert_eq!(without_keys(text, &[]).unwrap(), text);
        assert!(untied(text).unwrap().contains("\"tie_word_embeddings\": false"));
    }
}
