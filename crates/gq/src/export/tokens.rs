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
/// A difference is an error, or a warning where `allowed`, or where llama.cpp takes a token for another kind than the
/// file says.
pub fn compare(
    own: Option<&Tokenizer>,
    weights: &Weights,
    plan: &ExportPlan,
    allowed: bool,
    output: Output,
) -> Result<(), Failure> {
    let Some(own) = own else { return Ok(()) };
    let template = weights.texts.chat_template.as_deref();
    let difference = match read(weights, plan, true) {
        Ok(Some(written)) => token_difference(own, &written, template)?,
        Ok(None) => return Ok(()),
        Err(error) if allowed => {
            output.warn(&error.message);
            return Ok(());
        }
        Err(error) => return Err(error.code("export.tokens")),
    };
    match difference {
        Some(found) if allowed => output.warn(&sentence(&found)),
        Some(found) => {
            return Err(Failure::new(Exit::Input, "export.tokens", sentence(&found))
                .at("tokenizer.json")
                .limit(format!("{:?}", found.first))
                .actual(format!("{:?}", found.second)));
        }
        None => {
            // No file can keep llama.cpp from that.
            let spelled = read(weights, plan, false)?;
            let found = spelled.map(|spelled| token_difference(own, &spelled, template)).transpose()?;
            if let Some(found) = found.flatten() {
                let text = sentence(&found);
                output
                    .warn(&format!("llama.cpp takes some tokens for special ones by their spelling: {text}"));
            }
        }
    }
    Ok(())
}

/// The tokenizer of the planned metadata, with types as they are written or as llama.cpp takes them by spelling.
fn read(weights: &Weights, plan: &ExportPlan, types_as_written: bool) -> Result<Option<Tokenizer>, Failure> {
    let mut options = OpenOptions::default();
    options.types_as_written = types_as_written;
    let Some(written) = tokenizer_texts(plan.metadata(), &options)? else { return Ok(None) };
    let texts = ModelTexts {
        tokenizer: Some(written.tokenizer),
        tokenizer_config: Some(written.tokenizer_config),
        ..ModelTexts::default()
    };
    source::try_tokenizer(&texts, &weights.spec)
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
