//! Special tokens that a model's files do not agree on.

use crate::special_token::special_token;
use crate::texts::ModelTexts;
use crate::tokenizer::{Tokenizer, token_ids};
use gq_checkpoint::ModelSpec;
use serde_json::Value;

/// One kind of special token, and what each file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdDisagreement {
    /// `bos`, `eos` or `pad`.
    pub name: &'static str,
    /// By `config.json`.
    pub config: Vec<u32>,
    /// By `generation_config.json`, which is what transformers generates by.
    pub generation: Vec<u32>,
    /// By `tokenizer_config.json` or `special_tokens_map.json`, which is what transformers encodes by.
    pub tokenizer: Vec<u32>,
    /// Which of the two.
    pub tokenizer_file: &'static str,
}

/// Special tokens that the files of a model name differently, so that programs that read different files differ.
///
/// A token that ends generation in transformers and is missing elsewhere is no disagreement: `config.json` often
/// names fewer. One that is named elsewhere and does not end generation there is.
pub fn id_disagreements(texts: &ModelTexts, spec: &ModelSpec, tokenizer: &Tokenizer) -> Vec<IdDisagreement> {
    let parsed =
        |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let (generation, settings) = (parsed(&texts.generation_config), texts.special_settings().ok());
    let config = |name: &str| match name {
        "bos" => spec.bos.into_iter().collect(),
        "pad" => spec.pad.into_iter().collect(),
        _ => spec.eos.clone(),
    };
    let found = ["bos", "eos", "pad"].into_iter().map(|name| IdDisagreement {
        name,
        config: config(name),
        generation: token_ids(generation.as_ref().and_then(|file| file.get(format!("{name}_token_id")))),
        tokenizer: settings
            .as_ref()
            .and_then(|settings| {
                tokenizer.token(&special_token(&settings.settings, &format!("{name}_token"))?)
            })
            .into_iter()
            .collect(),
        tokenizer_file: settings
            .as_ref()
            .map_or("tokenizer_config.json", |settings| settings.file_of(&format!("{name}_token"))),
    });
    found.filter(IdDisagreement::is_one).collect()
}

impl IdDisagreement {
    fn is_one(&self) -> bool {
        let first = if self.generation.is_empty() { &self.config } else { &self.generation };
        let others = [&self.config, &self.tokenizer].into_iter().flatten();
        !first.is_empty() && others.into_iter().any(|id| !first.contains(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disagree(config: &[u32], generation: &[u32], tokenizer: &[u32]) -> bool {
        let (config, generation, tokenizer) = (config.to_vec(), generation.to_vec(), tokenizer.to_vec());
        IdDisagreement { name: "eos", config, generation, tokenizer, tokenizer_file: "" }.is_one()
    }

    #[test]
    fn what_transformers_would_not_stop_at_is_told() {
        assert!(!disagree(&[1], &[1, 106], &[1]) && !disagree(&[], &[1], &[]) && !disagree(&[2], &[], &[2]));
        assert!(disagree(&[7], &[1, 106], &[1]), "config.json alone names 7");
        assert!(disagree(&[1], &[1], &[4]) && disagree(&[2], &[], &[4]), "the tokenizer names another");
        assert!(!disagree(&[], &[], &[3]), "only one file says something");
    }
}
