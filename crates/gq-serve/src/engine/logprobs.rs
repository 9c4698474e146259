//! How likely tokens were, and the bytes they stand for.

use gq_text::{Tokenizer, TokenizerError};

/// A token with its logarithm of the probability that the model gave it, before temperature and limits.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Bytes of text; of a token that is no text, its content.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens in its place, the likeliest first, each without a list of its own.
    pub top: Vec<TokenLogprob>,
}

impl TokenLogprob {
    /// Its text; bytes that are no characters by themselves become U+FFFD.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// The logarithm of the probability of `token` after `before`, and the `top` likeliest tokens.
pub(super) fn logprob(
    tokenizer: &Tokenizer,
    before: Option<u32>,
    token: u32,
    logits: &[f32],
    top: usize,
) -> Result<TokenLogprob, TokenizerError> {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - largest).exp()).sum();
    let log_sum = f64::from(largest) + sum.ln();
    let of = |token: u32| {
        let logit = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        (f64::from(logit) - log_sum) as f32
    };
    let one = |token: u32| -> Result<TokenLogprob, TokenizerError> {
        Ok(TokenLogprob { bytes: bytes(tokenizer, before, token)?, logprob: of(token), top: Vec::new() })
    };
    let top = likeliest(logits, top).into_iter().map(one).collect::<Result<_, _>>()?;
    Ok(TokenLogprob { top, ..one(token)? })
}

/// The `count` largest logits' tokens, the largest first; of equals the first.
fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = (0u32..).take(logits.len()).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count == 0 {
        return Vec::new();
    }
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count - 1, order);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(order);
    tokens
}

/// Bytes of text that a token adds after another one; the content of a token that is no text.
fn bytes(tokenizer: &Tokenizer, before: Option<u32>, token: u32) -> Result<Vec<u8>, TokenizerError> {
    let content = tokenizer.content(token).unwrap_or_default();
    if let Some(byte) = byte_of(&content) {
        return Ok(vec![byte]);
    }
    let with = tokenizer.decode(&before.into_iter().chain([token]).collect::<Vec<_>>())?;
    let without = tokenizer.decode(&Vec::from_iter(before))?;
    let text = with.get(without.len()..).filter(|_| with.starts_with(&without));
    match text {
        Some(text) if !text.is_empty() && !text.contains('\u{FFFD}') => Ok(text.as_bytes().to_vec()),
        // A part of a character, as byte-level vocabularies spell it.
        _ => match content.chars().map(spelled_byte).collect::<Option<Vec<u8>>>() {
            Some(bytes) if with.contains('\u{FFFD}') || without.contains('\u{FFFD}') => Ok(bytes),
            _ => Ok(content.into_bytes()),
        },
    }
}

/// The byte of a token such as `<0x0A>`.
fn byte_of(content: &str) -> Option<u8> {
    let hex = content.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 2)
}

/// The byte that a character stands for in byte-level vocabularies: printable ones of Latin-1 are themselves, the others
/// follow from U+0100 on, in order (Radford et al. 2019, `bytes_to_unicode`).
fn spelled_byte(c: char) -> Option<u8> {
    let itself = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|&byte| itself(byte)),
        code => (0..=255u8).filter(|&byte| !itself(byte)).nth(code as usize - 0x100),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spelled_as_gpt2_spells_them() {
        for (c, byte) in [('a', b'a'), ('Ġ', b' '), ('Ċ', b'\n'), ('â', 0xe2), ('Ģ', 0x80), ('Ń', 0xad)]
        {
            assert_eq!(spelled_byte(c), Some(byte), "{c}");
        }
        assert_eq!((spelled_byte(' '), spelled_byte('你')), (None, None));
        assert_eq!((byte_of("<0x0A>"), byte_of("<0xA>"), byte_of("<0x0A")), (Some(10), None, None));
    }

    #[test]
    fn the_likeliest_are_in_order() {
        let logits = [0.5, 3.0, -1.0, 3.0, 2.0];
        assert_eq!(likeliest(&logits, 3), [1, 3, 4]);
        assert_eq!(likeliest(&logits, 9), [1, 3, 4, 0, 2]);
        assert_eq!(likeliest(&logits, 0), [0; 0]);
    }
}
