//! What the user says where a file does not.

/// How a checkpoint is opened. The default takes nothing for granted: what a file does not say is an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Name of the pre-tokenizer of a GGUF that has no `tokenizer.ggml.pre`, such as `llama-bpe`.
    pub assume_pre: Option<String>,
    /// What becomes of tokens that a GGUF's chat template writes and its types hide.
    pub turn_tokens: Option<TurnTokens>,
    /// Whether types of a GGUF's tokens are taken as the file has them; llama.cpp takes some from their spelling.
    pub types_as_written: bool,
    /// Names of unknown keys of a configuration or of a GGUF's metadata, dotted or the last part alone: they are read
    /// over and left out of the configuration's text.
    pub ignored_keys: Vec<String>,
}

/// What becomes of tokens of the chat template that a GGUF does not mark as special.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnTokens {
    /// Each is one token, as the model was trained.
    Single,
    /// They fall into the tokens of their characters, as in llama.cpp.
    Text,
}
