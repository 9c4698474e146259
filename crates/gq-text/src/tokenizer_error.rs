//! What a tokenizer refuses.

use crate::outside::OutsidePanic;

/// Text that cannot be turned into tokens, or a tokenizer that cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The model came without a tokenizer.
    #[error("the model came without a tokenizer, so text cannot be turned into tokens")]
    Missing,
    /// The tokenizer file is not understood.
    #[error("the tokenizer cannot be read")]
    Unreadable(#[source] tokenizers::Error),
    /// The library that runs it panicked.
    #[error(transparent)]
    Outside(#[from] OutsidePanic),
    /// One of the files is not JSON.
    #[error("{file} is not valid JSON")]
    Settings {
        /// `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` or `generation_config.json`.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Something that the library passes over or reads in another way.
    #[error(
        "{part} is {written}, which is read as {loaded}: the tokenizer would not be the one that is written"
    )]
    NotAsWritten {
        /// Path in the file, such as `pre_tokenizer.pretokenizers[0].pattern`.
        part: String,
        /// As written.
        written: String,
        /// As loaded; `nothing` where it is passed over.
        loaded: String,
    },
    /// A token with another id than the file gives it.
    #[error(
        "token {token:?} is written with id {written}, but loads as {loaded}: ids before it are missing, or the token \
         or its id stands twice"
    )]
    MovedId {
        /// The token.
        token: String,
        /// Id in the file.
        written: u64,
        /// Id that texts would get.
        loaded: String,
    },
    /// Merges that are left out by chance.
    #[error(
        "the tokenizer drops merges at random (dropout {dropout}): the same text has other tokens each time"
    )]
    Dropout {
        /// Share of merges that are left out.
        dropout: f32,
    },
    /// Rewriting that makes texts longer than is allowed.
    #[error("{part} makes a text of {from} bytes {to} bytes or more; allowed are {limit}")]
    Grows {
        /// `normalizer`, `pre_tokenizer`, `decoder` or `post_processor`.
        part: &'static str,
        /// Bytes before.
        from: usize,
        /// Bytes after, as far as it went.
        to: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// A token that the embedding has no row for.
    #[error("token {token:?} has id {id}, and the embedding has {rows} rows")]
    BeyondRows {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A token that begins or ends texts, and that the embedding has no row for.
    #[error("{from} is {id}, and the embedding has {rows} rows")]
    SpecialBeyondRows {
        /// What names it, such as `eos_token_id of config.json`.
        from: &'static str,
        /// Its id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A text could not be encoded.
    #[error("the text cannot be encoded")]
    Encode(#[source] tokenizers::Error),
    /// Tokens could not be decoded.
    #[error("the tokens cannot be decoded")]
    Decode(#[source] tokenizers::Error),
}
