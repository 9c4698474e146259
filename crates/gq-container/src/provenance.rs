//! Where a file comes from. Only what decides its bytes: no times, no machines, no paths.

use crate::digest::Digest;
use crate::error::WriteRule;
use crate::text::StoredText;
use crate::text_kind::TextKind;
use gq_files::Escaped;
use serde::{Deserialize, Serialize};

/// What made the file, from what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Program, `gq`.
    pub tool: String,
    /// Its version.
    pub version: String,
    /// What was converted.
    pub source: Source,
    /// How: the conversion's recipe as JSON.
    pub recipe: serde_json::Value,
    /// Digest of the calibration text; `None` when none was used.
    pub calibration_sha256: Option<Digest>,
    /// Seed of rotations and sketches.
    pub seed: u64,
    /// How scales and norms were tuned after rounding; absent when they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scales_tuned: Option<ScalesTuned>,
    /// How weights were rounded again behind rounded layers; absent when they were not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rounded_again: Option<RoundedAgain>,
}

/// A second rounding, layer after layer, each with the inputs that the rounded layers before it give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundedAgain {
    /// Digest of all tensors of the file that it began with.
    pub payload_sha256: Digest,
    /// Digest of the text.
    pub text_sha256: Digest,
    /// Tokens of a sequence.
    pub ctx: u64,
    /// Tokens of all sequences, held-out ones included.
    pub tokens: u64,
    /// Digest of the measurements whose gradients weighed the rows; absent when all counted the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measurements_sha256: Option<Digest>,
}

/// A tuning of scales and norms toward the reference's logits, with codes as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScalesTuned {
    /// Digest of the text.
    pub text_sha256: Digest,
    /// Tokens of a sequence.
    pub ctx: u64,
    /// Sequences per step.
    pub batch: u64,
    /// Steps.
    pub steps: u64,
}

/// A checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Repository on the Hub, `owner/name`; `None` when it is not known.
    pub repo: Option<String>,
    /// Its commit; `None` when it is not known.
    pub revision: Option<String>,
    /// Files that were read.
    pub files: Vec<SourceFile>,
    /// Adapters that were merged into it, in order; absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adapters: Vec<SourceAdapter>,
    /// Tokenizer, chat template and settings that are not the checkpoint's own; absent when all of them are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<SourceTexts>,
    /// Types of the source's weights that were quantized already, with the weights in each, as `Q4_K x 12345`; absent
    /// when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantized: Option<String>,
}

/// A low-rank adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceAdapter {
    /// Name of its folder.
    pub name: String,
    /// What its change was multiplied by.
    pub weight: serde_json::Number,
    /// Its files.
    pub files: Vec<SourceFile>,
}

/// Texts that were taken from elsewhere than the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceTexts {
    /// The adapter or folder that they are of.
    pub from: String,
    /// Their files. What is not among them is the checkpoint's.
    pub files: Vec<SourceFile>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Name relative to the checkpoint, `/` between folders.
    pub name: String,
    /// Length.
    pub bytes: u64,
    /// Digest of its content.
    pub sha256: Digest,
}

/// Provenance that cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    /// A file name that would tell where somebody's files lie.
    #[error("source file {} is not named relative to its checkpoint", Escaped(.name))]
    NotRelative {
        /// The name.
        name: String,
    },
    /// Not representable as JSON.
    #[error("provenance as JSON: {source}")]
    Json {
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too long.
    #[error(transparent)]
    Text(#[from] WriteRule),
}

impl Provenance {
    /// The text to store.
    ///
    /// # Errors
    /// When a file is not named relative to its checkpoint, or the text is too long.
    pub fn to_text(&self) -> Result<StoredText, ProvenanceError> {
        let of_adapters = self.source.adapters.iter().flat_map(|adapter| &adapter.files);
        let of_adapters = of_adapters.chain(self.source.texts.iter().flat_map(|texts| &texts.files));
        if let Some(file) = self.source.files.iter().chain(of_adapters).find(|f| !is_relative(&f.name)) {
            return Err(ProvenanceError::NotRelative { name: file.name.clone() });
        }
        let json = serde_json::to_string(self).map_err(|source| ProvenanceError::Json { source })?;
        Ok(StoredText::new(TextKind::Provenance, &json)?)
    }
}

fn is_relative(name: &str) -> bool {
    !name.contains(['\\', ':']) && name.split('/').all(|part| !["", ".", ".."].contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_relative() {
        assert!(is_relative("model.safetensors") && is_relative("text/model.safetensors"));
        for name in ["", "/a", "a//b", "../a", "a/./b", "C:a", "a\\b"] {
            assert!(!is_relative(name), "{name}");
        }
    }
}
