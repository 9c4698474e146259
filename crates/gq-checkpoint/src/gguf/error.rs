//! What can be wrong with a GGUF file.

use crate::{ConfigError, StandIn, TensorError};
use gq_files::{Escaped, EscapedPath};
use std::fmt::{Display, Formatter};
use std::path::PathBuf;

/// A GGUF file that cannot be used. Foreign text is escaped when shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The operating system refused.
    #[error("{}: {source}", EscapedPath(.path))]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A pointer, a page or nothing in the place of a file.
    #[error("{}: {what}", EscapedPath(.path))]
    StandIn {
        /// File.
        path: PathBuf,
        /// What it is.
        what: StandIn,
    },
    /// Another kind of file.
    #[error("not a GGUF file: begins with {actual:02x?}")]
    Magic {
        /// First bytes.
        actual: [u8; 4],
    },
    /// A version that is not read.
    #[error("GGUF version {actual}; 2 and 3 are read, little-endian")]
    Version {
        /// As stored.
        actual: u32,
    },
    /// The file ends inside of its header.
    #[error("the file ends at byte {at}, where {needed} more bytes were promised")]
    Truncated {
        /// Where reading stopped.
        at: u64,
        /// Bytes that should follow.
        needed: u64,
    },
    /// Longer than the cap.
    #[error("the header goes beyond {limit} bytes")]
    HeaderTooLong {
        /// The cap.
        limit: u64,
    },
    /// A count beyond its cap.
    #[error("{what}: {actual}, allowed are {limit}")]
    Count {
        /// What is counted.
        what: &'static str,
        /// As stored.
        actual: u64,
        /// The cap.
        limit: u64,
    },
    /// A string beyond its cap.
    #[error("a string of {actual} bytes at byte {at}, allowed are {limit}")]
    StringLen {
        /// Where it starts.
        at: u64,
        /// As stored.
        actual: u64,
        /// The cap.
        limit: u64,
    },
    /// A string that is not UTF-8.
    #[error("the string at byte {at} is not UTF-8")]
    Utf8 {
        /// Where it starts.
        at: u64,
    },
    /// An array beyond its cap.
    #[error("an array of {actual} elements at byte {at}, allowed are {limit}")]
    ArrayLen {
        /// Where it starts.
        at: u64,
        /// As stored.
        actual: u64,
        /// The cap.
        limit: u64,
    },
    /// Arrays in arrays in arrays.
    #[error("arrays nested deeper than {limit} at byte {at}")]
    TooDeep {
        /// Where.
        at: u64,
        /// The cap.
        limit: usize,
    },
    /// A value type that does not exist.
    #[error("value type {actual} at byte {at}; types are 0 to 12")]
    ValueType {
        /// Where.
        at: u64,
        /// As stored.
        actual: u32,
    },
    /// A truth value that is neither.
    #[error("truth value {actual} at byte {at}")]
    Bool {
        /// Where.
        at: u64,
        /// As stored.
        actual: u8,
    },
    /// A key that appears twice.
    #[error("key {} appears twice", Escaped(.key))]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// A tensor that appears twice.
    #[error("tensor {} appears twice", Escaped(.name))]
    DuplicateTensor {
        /// The tensor.
        name: String,
    },
    /// An alignment that is not a power of two, or beyond its cap.
    #[error("alignment {actual}; powers of two up to {limit} are allowed")]
    Alignment {
        /// As stored.
        actual: u64,
        /// The cap.
        limit: u64,
    },
    /// A type number that is not known.
    #[error("tensor {} has type number {actual}, known are {}", Escaped(.name), known_types())]
    UnknownType {
        /// The tensor.
        name: String,
        /// As stored.
        actual: u32,
    },
    /// A type that can be measured, but not decoded.
    #[error("tensor {} is {kind}, which cannot be decoded; supported: {}", Escaped(.name), gq_tensor::ggml::decodable_names())]
    UndecodableType {
        /// The tensor.
        name: String,
        /// Name of the type.
        kind: &'static str,
    },
    /// Dimensions that are zero, too many, or too large.
    #[error("tensor {} has dimensions {dims:?}", Escaped(.name))]
    Dims {
        /// The tensor.
        name: String,
        /// Innermost first, as stored.
        dims: Vec<u64>,
    },
    /// A row that blocks do not divide.
    #[error("tensor {} has rows of {cols} elements, {kind} has blocks of {block}", Escaped(.name))]
    RowLen {
        /// The tensor.
        name: String,
        /// Name of the type.
        kind: &'static str,
        /// Elements of a row.
        cols: u64,
        /// Elements of a block.
        block: usize,
    },
    /// Bytes outside of the file, before another tensor's end, or not aligned.
    #[error("tensor {} at {offset} with {bytes} bytes: {fault}", Escaped(.name))]
    Place {
        /// The tensor.
        name: String,
        /// From the beginning of the data.
        offset: u64,
        /// As type and dimensions give.
        bytes: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A key that is needed.
    #[error("metadata {} is missing", Escaped(.key))]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A key below the architecture that nobody knows: it could change the graph.
    #[error("metadata {} is not known ({actual}); it could change what the model computes", Escaped(.key))]
    UnknownKey {
        /// The key.
        key: String,
        /// Kind of its value.
        actual: &'static str,
    },
    /// A key with another kind of value.
    #[error("metadata {} is {actual}, expected {expected}", Escaped(.key))]
    KeyType {
        /// The key.
        key: String,
        /// What it is.
        actual: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// A value that means something that is not supported.
    #[error("metadata {} is {}, supported: {supported}", Escaped(.key), Escaped(.actual))]
    Unsupported {
        /// The key.
        key: String,
        /// As stored.
        actual: String,
        /// What is.
        supported: String,
    },
    /// A byte-level tokenizer that does not say how text is split.
    #[error(
        "metadata tokenizer.ggml.pre is missing: how text is split before merges is not known. llama.cpp assumes \"default\", which gives other tokens for digits, punctuation and contractions than a model that was trained with another one, such as Llama 3 (llama-bpe)"
    )]
    NoPreTokenizer {
        /// Names that can be assumed.
        known: String,
    },
    /// Tokens of the chat template that text does not become.
    #[error("the chat template writes {}, which the file has as single tokens, but not of a special type: text with them falls into pieces, as in llama.cpp, and the model was trained with single tokens", Listed(.tokens))]
    TurnTokens {
        /// The tokens.
        tokens: Vec<String>,
        /// Their ids.
        ids: Vec<usize>,
    },
    /// A part of a `tokenizer.json` that the format has no place for.
    #[error("tokenizer.json: {part} is {}, which a GGUF has no place for: llama.cpp would give text other tokens", Escaped(.actual))]
    NotCarried {
        /// The part, such as `normalizer`.
        part: &'static str,
        /// As written.
        actual: String,
    },
    /// Two facts that contradict each other.
    #[error("metadata {}: {}", Escaped(.key), Escaped(.fault))]
    Contradiction {
        /// The key.
        key: String,
        /// What does not fit.
        fault: String,
    },
    /// Chat templates whose names a GGUF has no keys for.
    #[error("metadata {} has no place for {fault}", Escaped(.key))]
    TemplateNames {
        /// The key that they would have.
        key: String,
        /// Which they are, escaped.
        fault: String,
    },
    /// A file of a split that is missing or another's.
    #[error("{}: {fault}", EscapedPath(.path))]
    Split {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A tensor that the architecture does not have.
    #[error("tensor {} is not part of a {architecture} model", Escaped(.name))]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// `general.architecture`.
        architecture: &'static str,
    },
    /// The metadata makes a configuration that is not understood.
    #[error("metadata as a configuration: {source}")]
    Config {
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// The tensors are not those of the configuration.
    #[error("{source}")]
    Tensors {
        /// Why.
        #[source]
        source: TensorError,
    },
    /// A request outside of a tensor.
    #[error("tensor {}: {requested} of {actual}", Escaped(.name))]
    OutOfRange {
        /// The tensor.
        name: String,
        /// Asked for, as `rows 3..9` or `buffer 7`.
        requested: String,
        /// What there is.
        actual: u64,
    },
}

/// A few items, and how many more there are; foreign text is escaped.
struct Listed<'a>(&'a [String]);

impl Display for Listed<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 4;
        let shown: Vec<String> = self.0.iter().take(SHOWN).map(|item| Escaped(item).to_string()).collect();
        write!(f, "{}", shown.join(", "))?;
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

fn known_types() -> String {
    super::GgmlType::all().map(|kind| kind.code().to_string()).collect::<Vec<_>>().join(", ")
}
