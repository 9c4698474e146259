//! Texts that ride along with weights.

use gq_checkpoint::{Checkpoint, CheckpointError, SpecialSettings};
use gq_container::{Container, FormatError, TextKind};

/// Texts that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TextsError {
    /// A text of a container.
    #[error("a text of the file cannot be read")]
    Container(#[source] FormatError),
    /// A text of a checkpoint.
    #[error("a text of the checkpoint cannot be read")]
    Checkpoint(#[source] CheckpointError),
}

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
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<ModelTexts, TextsError> {
        let texts = checkpoint.texts().map_err(TextsError::Checkpoint)?;
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
    pub fn from_container(container: &Container) -> Result<ModelTexts, TextsError> {
        let text = |kind: TextKind| container.text(kind).map_err(TextsError::Container);
        Ok(ModelTexts {
            config: text(TextKind::Config)?,
            tokenizer: text(TextKind::Tokenizer)?,
            tokenizer_config: text(TextKind::TokenizerConfig)?,
            chat_template: text(TextKind::ChatTemplate)?,
            generation_config: text(TextKind::GenerationConfig)?,
            special_tokens_map: text(TextKind::SpecialTokensMap)?,
        })
    }

    /// What names the special tokens.
    ///
    /// # Errors
    /// The file that is no JSON.
    pub(crate) fn special_settings(&self) -> Result<SpecialSettings, (&'static str, serde_json::Error)> {
        SpecialSettings::read(self.tokenizer_config.as_deref(), self.special_tokens_map.as_deref())
    }
}
