//! Texts that ride along with weights.

use crate::LoadError;
use gq_checkpoint::Checkpoint;
use gq_container::{Container, TextKind};
use serde_json::{Map, Value};

/// A model's texts; whatever is not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelTexts {
    /// `config.json`.
    pub config: Option<String>,
    /// `tokenizer.json`.
    pub tokenizer: Option<String>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<String>,
    /// The chat template.
    pub chat_template: Option<String>,
    /// `generation_config.json`.
    pub generation_config: Option<String>,
    /// `special_tokens_map.json`.
    pub special_tokens_map: Option<String>,
}

impl ModelTexts {
    /// Reads a checkpoint's texts.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<ModelTexts, LoadError> {
        let texts = checkpoint.texts().map_err(LoadError::CheckpointText)?;
        Ok(ModelTexts {
            config: Some(texts.config),
            tokenizer: texts.tokenizer,
            tokenizer_config: texts.tokenizer_config,
            chat_template: texts.chat_template,
            generation_config: texts.generation_config,
            special_tokens_map: texts.special_tokens_map,
        })
    }

    /// Reads a container's texts.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn from_container(container: &Container) -> Result<ModelTexts, LoadError> {
        let text = |kind: TextKind| container.text(kind).map_err(LoadError::Text);
        Ok(ModelTexts {
            config: text(TextKind::Config)?,
            tokenizer: text(TextKind::Tokenizer)?,
            tokenizer_config: text(TextKind::TokenizerConfig)?,
            chat_template: text(TextKind::ChatTemplate)?,
            generation_config: text(TextKind::GenerationConfig)?,
            special_tokens_map: text(TextKind::SpecialTokensMap)?,
        })
    }
}

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";

/// `tokenizer_config.json` with the special tokens that transformers takes: where it lists no `added_tokens_decoder`,
/// those of `special_tokens_map.json`, which come first then.
///
/// # Errors
/// The file that is no JSON.
pub(crate) fn special_settings(texts: &ModelTexts) -> Result<Value, (&'static str, serde_json::Error)> {
    let parse = |file: &'static str, text: &Option<String>| match text {
        Some(text) => serde_json::from_str(text).map_err(|source| (file, source)),
        None => Ok(Value::Object(Map::new())),
    };
    let mut settings: Value = parse(CONFIG, &texts.tokenizer_config)?;
    if let (Some(settings), Some(map)) = (settings.as_object_mut(), &texts.special_tokens_map)
        && !settings.contains_key("added_tokens_decoder")
        && let Value::Object(map) = parse(MAP, &Some(map.clone()))?
    {
        settings.extend(map);
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings(config: Option<Value>, map: Value) -> Value {
        let texts = ModelTexts {
            tokenizer_config: config.map(|config| config.to_string()),
            special_tokens_map: Some(map.to_string()),
            ..ModelTexts::default()
        };
        special_settings(&texts).unwrap()
    }

    /// As `_from_pretrained` of transformers does it.
    #[test]
    fn the_map_of_special_tokens_is_for_settings_without_added_tokens() {
        let map = json!({"bos_token": "<m>", "unk_token": {"content": "<u>"}});
        assert_eq!(settings(None, map.clone())["bos_token"], "<m>");
        let merged = settings(Some(json!({"bos_token": "<c>", "eos_token": "</c>"})), map.clone());
        assert_eq!(merged, json!({"bos_token": "<m>", "eos_token": "</c>", "unk_token": {"content": "<u>"}}));
        let listed = json!({"bos_token": "<c>", "added_tokens_decoder": {}});
        assert_eq!(settings(Some(listed.clone()), map), listed);
    }

    #[test]
    fn the_file_that_is_no_json_is_named() {
        let mut texts = ModelTexts { special_tokens_map: Some("[".to_owned()), ..ModelTexts::default() };
        assert_eq!(special_settings(&texts).unwrap_err().0, "special_tokens_map.json");
        texts.tokenizer_config = Some("{".to_owned());
        assert_eq!(special_settings(&texts).unwrap_err().0, "tokenizer_config.json");
    }
}
