//! The tokens of a GGUF that is about to be written, against the source's.

use super::Weights;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::source;
use crate::units;
use gq_checkpoint::gguf::Value;
use gq_checkpoint::gguf_model::{ExportPlan, TokenizerTexts, ends_of_generation, tokenizer_texts};
use gq_checkpoint::{OpenOptions, SpecialSettings};
use gq_text::{ModelTexts, TokenDifference, Tokenizer, token_difference};

/// What a tokenizer that composes text loses.
const COMPOSED: &str = "the tokenizer composes text first (NFC), which a GGUF has no place for: llama.cpp composes no \
    text, so accents that are characters of their own, such as e and U+0301, get other tokens there; composed text, \
    as nearly all text is, gets the same";

/// Which differences between the source's tokens and the GGUF's are accepted.
#[derive(Clone, Copy, clap::Args, Debug)]
pub struct Accepted {
    /// Write a GGUF without the tokenizer's NFC, which no GGUF can carry (Qwen's tokenizers have it) and which is
    /// refused otherwise: text with accents as characters of their own gets other tokens. Any other difference is
    /// still refused.
    #[arg(long, conflicts_with = "safetensors")]
    pub drop_nfc: bool,
    /// Write a GGUF although text falls into other tokens in it than in SRC, which is refused otherwise.
    #[arg(long, conflicts_with = "safetensors")]
    pub allow_other_tokens: bool,
}

/// The source's tokenizer, tried; `None` where it has none.
pub fn own(weights: &Weights) -> Result<Option<Tokenizer>, Failure> {
    let texts = &weights.texts;
    let texts = ModelTexts {
        tokenizer: texts.tokenizer.clone(),
        tokenizer_config: texts.tokenizer_config.clone(),
        special_tokens_map: texts.special_tokens_map.clone(),
        generation_config: texts.generation_config.clone(),
        ..ModelTexts::default()
    };
    source::try_tokenizer(&texts, &weights.spec)
}

/// Reads the tokenizer out of the planned metadata as llama.cpp does, and compares tokens of texts made for it with
/// those of the source's [`own`].
///
/// A difference is an error, or a warning where it is accepted, or where llama.cpp takes a token for another kind than
/// the file says.
pub fn compare(
    own: Option<&Tokenizer>,
    weights: &Weights,
    plan: &ExportPlan,
    accepted: Accepted,
    output: Output,
) -> Result<(), Failure> {
    let Some(own) = own else { return Ok(()) };
    let allowed = accepted.allow_other_tokens;
    match own.composes() {
        true if accepted.drop_nfc || allowed => output.warn(COMPOSED),
        true => {
            return Err(Failure::new(Exit::Input, "export.nfc", COMPOSED).at("tokenizer.json: normalizer"));
        }
        false => {}
    }
    special(own, weights, plan, output)?;
    let template = weights.texts.chat_template.as_deref();
    let difference = match read(plan, true) {
        Ok(Some(written)) => token_difference(own, &tried(&written, weights)?, template)?,
        Ok(None) => return Ok(()),
        Err(error) if allowed => {
            output.warn(&error.message);
            return Ok(());
        }
        Err(error) => return Err(error.code("export.tokens")),
    };
    match difference {
        Some(found) if allowed => {
            output.warn(&sentence(&found));
            Ok(())
        }
        Some(found) => Err(Failure::new(Exit::Input, "export.tokens", sentence(&found))
            .at("tokenizer.json")
            .limit(format!("{:?}", found.first))
            .actual(format!("{:?}", found.second))),
        None => warn_of_spellings(own, weights, plan, output),
    }
}

/// Says which special tokens the GGUF does not name as the source does: it has room for few ends of an answer.
fn special(own: &Tokenizer, weights: &Weights, plan: &ExportPlan, output: Output) -> Result<(), Failure> {
    let ends = ends_of_generation(plan.metadata());
    let missing: Vec<u32> = own.eos().iter().copied().filter(|id| !ends.contains(id)).collect();
    if !missing.is_empty() {
        output.warn(&format!(
            "answers end at tokens {:?} here; a GGUF has no place for {missing:?}, and llama.cpp goes on there",
            own.eos()
        ));
    }
    let texts = &weights.texts;
    let settings =
        SpecialSettings::read(texts.tokenizer_config.as_deref(), texts.special_tokens_map.as_deref());
    // The export was refused where one is no JSON.
    let settings = settings.map_err(|(file, error)| Failure::internal(file, &error))?;
    for (name, key) in
        [("bos_token", "bos_token_id"), ("eos_token", "eos_token_id"), ("pad_token", "padding_token_id")]
    {
        let token = &settings.settings[name];
        let named = token.as_str().or_else(|| token["content"].as_str()).and_then(|token| own.token(token));
        let written = plan.metadata().get(&format!("tokenizer.ggml.{key}")).and_then(Value::as_u64);
        if let Some(named) = named.filter(|&named| written != Some(u64::from(named))) {
            let written = written.map_or_else(|| "none".to_owned(), |id| id.to_string());
            let file = settings.file_of(name);
            output.warn(&format!("{name} is {named} by {file}, and {written} in the GGUF"));
        }
    }
    Ok(())
}

/// Says where llama.cpp takes tokens for special ones whatever the file says, which no file can keep it from.
fn warn_of_spellings(
    own: &Tokenizer,
    weights: &Weights,
    plan: &ExportPlan,
    output: Output,
) -> Result<(), Failure> {
    let written = read(plan, true)?;
    let Some(spelled) = read(plan, false)?.filter(|spelled| written.as_ref() != Some(spelled)) else {
        return Ok(());
    };
    let template = weights.texts.chat_template.as_deref();
    if let Some(found) = token_difference(own, &tried(&spelled, weights)?, template)? {
        let text = sentence(&found);
        output.warn(&format!("llama.cpp takes some tokens for special ones by their spelling: {text}"));
    }
    Ok(())
}

/// The tokenizer of the planned metadata, with types as they are written or as llama.cpp takes them by spelling.
fn read(plan: &ExportPlan, types_as_written: bool) -> Result<Option<TokenizerTexts>, Failure> {
    let mut options = OpenOptions::default();
    options.types_as_written = types_as_written;
    Ok(tokenizer_texts(plan.metadata(), &options)?)
}

fn tried(written: &TokenizerTexts, weights: &Weights) -> Result<Tokenizer, Failure> {
    let texts = ModelTexts {
        tokenizer: Some(written.tokenizer.clone()),
        tokenizer_config: Some(written.tokenizer_config.clone()),
        ..ModelTexts::default()
    };
    Ok(Tokenizer::new(&texts, &weights.spec)?)
}

fn sentence(found: &TokenDifference) -> String {
    let (differ, of) = found.count;
    let text = units::printable(&found.text);
    format!(
        "text would have other tokens in the GGUF than here, by {}: {text:?} has {:?} here and {:?} as llama.cpp \
         reads the GGUF; {differ} of {of} texts differ",
        found.kind, found.first, found.second
    )
}
