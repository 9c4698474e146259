//! Whether two tokenizers give text the same tokens: a model's own, and what another program reads in a file of it.

use crate::sample_text::SAMPLES;
use crate::tokenizer::{SpecialText, Tokenizer};
use crate::tokenizer_error::TokenizerError;
use tokenizers::NormalizedString;

/// Tokens of the vocabulary that are put into one text.
const CHUNK: usize = 512;

/// A text that has other tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenDifference {
    /// What kind of text, such as `digits`.
    pub kind: &'static str,
    /// Where it begins, some characters.
    pub text: String,
    /// Its tokens by the first tokenizer, from where they differ; at most four.
    pub first: Vec<u32>,
    /// By the second.
    pub second: Vec<u32>,
    /// Texts that differ, and texts that were compared.
    pub count: (usize, usize),
}

/// Compares two tokenizers on texts made for it: of many kinds, with every added token in several places, the source
/// of the chat template, and every token of the vocabulary as a word. `None` where all tokens are the same.
///
/// Where the first composes texts (NFC) and the second does not, only composed texts are compared: others differ.
///
/// # Errors
/// When one of the two fails on a text.
pub fn token_difference(
    first: &Tokenizer,
    second: &Tokenizer,
    template: Option<&str>,
) -> Result<Option<TokenDifference>, TokenizerError> {
    let mut found: Option<TokenDifference> = None;
    let mut count = (0, 0);
    let composes = first.composes() && !second.composes();
    let mut compare = |kind: &'static str, text: &str, special: SpecialText| -> Result<(), TokenizerError> {
        let text = &if composes { composed(text) } else { text.to_owned() };
        let a = match first.encode(text, special) {
            // It names a token that has no row: no text that can be run has it.
            Err(TokenizerError::BeyondRows { .. }) => return Ok(()),
            a => a?,
        };
        let b = second.encode(text, special)?;
        count.1 += 1;
        if a != b {
            count.0 += 1;
            if found.is_none() {
                found = Some(difference(kind, first, &a, &b)?);
            }
        }
        Ok(())
    };
    for (kind, text) in SAMPLES {
        compare(kind, text, SpecialText::Plain)?;
        compare(kind, text, SpecialText::Parsed)?;
    }
    for token in first.added_contents() {
        let text = format!("a{token}b {token} c {token}{token}\n{token}\n");
        compare("added tokens", &text, SpecialText::Plain)?;
        compare("added tokens", &text, SpecialText::Parsed)?;
    }
    if let Some(template) = template {
        compare("the chat template", template, SpecialText::Parsed)?;
    }
    let ids: Vec<u32> = (0..u32::try_from(first.vocab_size()).unwrap_or(u32::MAX)).collect();
    for chunk in ids.chunks(CHUNK) {
        let words = chunk.iter().map(|&id| first.decode(&[id])).collect::<Result<Vec<_>, _>>()?;
        // U+FFFD stands for a part of a character.
        let words: Vec<_> = words.into_iter().filter(|word| !word.contains('\u{FFFD}')).collect();
        compare("the vocabulary", &words.join(" "), SpecialText::Plain)?;
        compare("the vocabulary", &words.join("\n"), SpecialText::Plain)?;
    }
    if let Some(found) = &mut found {
        found.count = count;
        return Ok(Some(found.clone()));
    }
    around(first, second, count.1)
}

/// The text in NFC.
fn composed(text: &str) -> String {
    let mut text = NormalizedString::from(text);
    text.nfc();
    text.get().to_owned()
}

/// What is put around a text, and how tokens become text again.
fn around(
    first: &Tokenizer,
    second: &Tokenizer,
    compared: usize,
) -> Result<Option<TokenDifference>, TokenizerError> {
    let told = |kind, text: &str, first: Vec<u32>, second: Vec<u32>| TokenDifference {
        kind,
        text: text.to_owned(),
        first,
        second,
        count: (1, compared),
    };
    for (kind, a, b) in [
        ("what text begins with", first.begins_with(), second.begins_with()),
        ("what text ends with", first.ends_with(), second.ends_with()),
    ] {
        if a != b {
            return Ok(Some(told(kind, "", a.to_vec(), b.to_vec())));
        }
    }
    for (_, text) in SAMPLES {
        let tokens = first.encode(text, SpecialText::Plain)?;
        let (a, b) = (first.decode(&tokens)?, second.decode(&tokens)?);
        if a != b {
            return Ok(Some(told("tokens as text", text, tokens.clone(), tokens)));
        }
    }
    Ok(None)
}

fn difference(
    kind: &'static str,
    tokenizer: &Tokenizer,
    first: &[u32],
    second: &[u32],
) -> Result<TokenDifference, TokenizerError> {
    const SHOWN: usize = 4;
    let at = first.iter().zip(second).take_while(|(a, b)| a == b).count();
    let some = |tokens: &[u32]| tokens.iter().skip(at).take(SHOWN).copied().collect::<Vec<_>>();
    let text = tokenizer.decode(&some(first))?;
    Ok(TokenDifference { kind, text, first: some(first), second: some(second), count: (0, 0) })
}
