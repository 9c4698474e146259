//! The tokens of a GGUF that is about to be written, against the source's.

use super::Weights;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::source;
use crate::units;
use gq_checkpoint::OpenOptions;
use gq_checkpoint::gguf::{ExportPlan, tokenizer_texts};
use gq_model::{ModelTexts, TokenDifference, Tokenizer, token_difference};

/// The source's tokenizer, tried; `None` where it has none.
pub fn own(weights: &Weights) -> Result<Option<Tokenizer>, Failure> {
    let texts = &weights.texts;
    let texts = ModelTexts {
        tokenizer: texts.tokenizer.clone(),
        tokenizer_config: texts.tokenizer_config.clone(),
        ..ModelTexts::default()
    };
    source::try_tokenizer(&texts, &weights.spec)
}

/// Reads the tokenizer out of the planned metadata as llama.cpp does, and compares tokens of texts made for it with
/// those of the source's [`own`].
///
/// A difference is an error, or a warning where `allowed`.
pub fn compare(
    own: Option<&Tokenizer>,
    weights: &Weights,
    plan: &ExportPlan,
    allowed: bool,
    output: Output,
) -> Result<(), Failure> {
    let Some(own) = own else { return Ok(()) };
    let written = match tokenizer_texts(plan.metadata(), &OpenOptions::default()) {
        Ok(Some(written)) => written,
        Ok(None) => return Ok(()),
        Err(error) if allowed => {
            output.warn(&error.to_string());
            return Ok(());
        }
        Err(error) => return Err(Failure::from(error).code("export.tokens")),
    };
    let written = ModelTexts {
        tokenizer: Some(written.tokenizer),
        tokenizer_config: Some(written.tokenizer_config),
        ..ModelTexts::default()
    };
    let written = Tokenizer::new(&written, &weights.spec)?;
    match token_difference(own, &written, weights.texts.chat_template.as_deref())? {
        None => Ok(()),
        Some(found) if allowed => {
            output.warn(&sentence(&found));
            Ok(())
        }
        Some(found) => Err(Failure::new(Exit::Input, "export.tokens", sentence(&found))
            .at("tokenizer.json")
            .limit(format!("{:?}", found.first))
            .actual(format!("{:?}", found.second))),
    }
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
