//! Calibration texts as sequences of tokens.

use gq_text::{SpecialText, Tokenizer, TokenizerError};
use sha2::{Digest, Sha256};

/// One text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationText {
    /// Name relative to what the user gave; part of no digest.
    pub name: String,
    /// Content.
    pub text: String,
    /// Whether special-token strings in it are tokens: in what a chat template rendered.
    pub special: SpecialText,
}

/// Texts that give no sequences.
#[derive(Debug, thiserror::Error)]
pub enum SequenceError {
    /// A text that cannot be tokenized.
    #[error("{name}: {source}")]
    Tokenizer {
        /// The text.
        name: String,
        /// Why.
        source: TokenizerError,
    },
    /// Too little text.
    #[error("the calibration texts give {actual} sequences of {ctx} tokens, at least {limit} are needed")]
    TooShort {
        /// Sequences needed.
        limit: usize,
        /// Sequences there are.
        actual: usize,
        /// Tokens of a sequence.
        ctx: usize,
    },
}

/// Least sequences: some to measure on, one to hold out.
const LEAST: usize = 2;

/// Up to `tokens / ctx` sequences of `ctx` tokens: an equal share of every text, spread evenly over it.
/// Where the model wants a BOS, it replaces the first token of each.
///
/// # Errors
/// When a text cannot be tokenized or there is too little.
pub fn sequences(
    tokenizer: &Tokenizer,
    texts: &[CalibrationText],
    tokens: usize,
    ctx: usize,
) -> Result<Vec<Vec<u32>>, SequenceError> {
    let mut available = Vec::new();
    for CalibrationText { name, text, special } in texts {
        let ids = tokenizer.encode(text, *special);
        let ids = ids.map_err(|source| SequenceError::Tokenizer { name: name.clone(), source })?;
        available.push(ids);
    }
    let counts: Vec<usize> = available.iter().map(|ids| ids.len() / ctx).collect();
    let shares = shares(&counts, (tokens / ctx).max(LEAST));
    let mut sequences = Vec::new();
    for ((ids, count), share) in available.iter().zip(counts).zip(shares) {
        for index in 0..share {
            let window = index * count / share;
            let mut sequence = ids[window * ctx..(window + 1) * ctx].to_vec();
            if let Some(bos) = tokenizer.bos() {
                sequence[0] = bos;
            }
            sequences.push(sequence);
        }
    }
    match sequences.len() {
        actual if actual < LEAST => Err(SequenceError::TooShort { limit: LEAST, actual, ctx }),
        _ => Ok(sequences),
    }
}

/// Splits `wanted` into equal parts that no count is less than; what a short text cannot give, others do.
fn shares(counts: &[usize], wanted: usize) -> Vec<usize> {
    let mut shares = vec![0; counts.len()];
    let mut left = wanted.min(counts.iter().sum());
    while left > 0 {
        let open: Vec<usize> = (0..counts.len()).filter(|&i| shares[i] < counts[i]).collect();
        let each = (left / open.len()).max(1);
        for i in open {
            let more = each.min(counts[i] - shares[i]).min(left);
            shares[i] += more;
            left -= more;
        }
    }
    shares
}

/// sha256 over all texts' contents, in order, each after its length.
pub fn digest(texts: &[CalibrationText]) -> String {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.text.len() as u64).to_le_bytes());
        hash.update(text.text.as_bytes());
    }
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_give_what_they_have() {
        assert_eq!(shares(&[10, 2, 10], 12), [5, 2, 5]);
        assert_eq!(shares(&[10, 2, 10], 100), [10, 2, 10]);
        assert_eq!(shares(&[3], 2), [2]);
        assert_eq!(shares(&[5, 5], 3), [2, 1]);
        assert_eq!(shares(&[0, 5], 3), [0, 3]);
    }
}
