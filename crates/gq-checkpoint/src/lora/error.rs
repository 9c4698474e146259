//! Why an adapter cannot be merged.

use crate::safetensors::HeaderError;
use crate::{CheckpointError, StandIn};
use gq_files::{Escaped, EscapedPath, Sentence};
use std::path::PathBuf;

/// An adapter that is not understood in full, or does not fit the checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// The operating system refused.
    #[error("{}: {source}", EscapedPath(.path))]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder without one of an adapter's files.
    #[error("{} is no adapter: {file} is missing", EscapedPath(.dir))]
    NoFile {
        /// Folder.
        dir: PathBuf,
        /// The file that it should have.
        file: &'static str,
    },
    /// A configuration longer than allowed.
    #[error("{} has {actual} bytes, allowed are {limit}", EscapedPath(.path))]
    TooLong {
        /// File.
        path: PathBuf,
        /// Its length.
        actual: u64,
        /// Cap.
        limit: u64,
    },
    /// Not one JSON object, or a key appears twice.
    #[error("{}: not a valid JSON object: {}", EscapedPath(.path), Sentence(.message))]
    Json {
        /// File.
        path: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// An option that changes the merged weights in a way that the merge does not know.
    #[error("adapter option {} is {}, supported: {supported}", Escaped(.option), Escaped(.value))]
    Option {
        /// Its name in `adapter_config.json`.
        option: String,
        /// Its value, as JSON.
        value: String,
        /// What would be supported.
        supported: &'static str,
    },
    /// A pattern that is no regular expression here.
    #[error("adapter option {option}: pattern {}: {}", Escaped(.pattern), Sentence(.message))]
    Pattern {
        /// The option.
        option: &'static str,
        /// The pattern.
        pattern: String,
        /// What the parser says.
        message: String,
    },
    /// A weight that is no finite number.
    #[error("the weight of adapter {} is {actual}, expected a finite number", Escaped(.adapter))]
    Weight {
        /// The adapter's folder name.
        adapter: String,
        /// The weight.
        actual: f64,
    },
    /// Not a safetensors file.
    #[error("{}: {source}", EscapedPath(.path))]
    Header {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: HeaderError,
    },
    /// A tensor whose part in an adapter is not known.
    #[error("adapter tensor {} is not one that a LoRA adapter has", Escaped(.name))]
    UnknownTensor {
        /// Name in the file.
        name: String,
    },
    /// A tensor without the one it belongs to.
    #[error("adapter module {} has no {missing}", Escaped(.module))]
    Incomplete {
        /// Module.
        module: String,
        /// What it lacks.
        missing: &'static str,
    },
    /// A module with two things that exclude each other.
    #[error("adapter module {} has both {first} and {second}", Escaped(.module))]
    Conflict {
        /// Module.
        module: String,
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// A module that the configuration targets and the file lacks.
    #[error("adapter module {} is a target of the configuration and has no tensors in the file", Escaped(.module))]
    Untrained {
        /// Module.
        module: String,
    },
    /// A module that the checkpoint does not have.
    #[error("adapter module {} has no tensor {} in the checkpoint", Escaped(.module), Escaped(.tensor))]
    NoTensor {
        /// Module.
        module: String,
        /// Canonical name of the tensor that it would change.
        tensor: String,
    },
    /// Factors of another shape than the checkpoint's tensor and the rank call for.
    #[error("adapter tensor {} has shape {actual:?}, expected {expected:?}", Escaped(.name))]
    Shape {
        /// Name in the file.
        name: String,
        /// Its shape.
        actual: Vec<usize>,
        /// The shape that fits.
        expected: Vec<usize>,
    },
    /// A tensor whose elements are no floating point numbers.
    #[error("adapter tensor {} has dtype {actual}", Escaped(.name))]
    NotFloat {
        /// Name in the file.
        name: String,
        /// Its dtype.
        actual: gq_tensor::DType,
    },
    /// A saved module in an adapter that is to be weighted, or in two adapters.
    #[error("adapter module {} is saved whole and cannot be {}", Escaped(.module), .what)]
    SavedModule {
        /// Module.
        module: String,
        /// What was asked for.
        what: &'static str,
    },
    /// One of two tied tensors would change alone.
    #[error("the configuration ties the head to the embedding, and the adapter changes {} without the same change of {}", Escaped(.module), Escaped(.other))]
    Untied {
        /// Module that it changes.
        module: String,
        /// Module that would have to change with it.
        other: &'static str,
    },
    /// A pointer, a page or nothing in the place of a file.
    #[error("{}: {what}", EscapedPath(.path))]
    StandIn {
        /// File.
        path: PathBuf,
        /// What it is.
        what: StandIn,
    },
    /// Factors in Python's pickle format.
    #[error("{}: an adapter as a Python pickle, which can run code when it is read; safetensors are read", EscapedPath(.path))]
    Pickle {
        /// File.
        path: PathBuf,
    },
    /// An option whose value has no meaning.
    #[error("adapter option {} is {}, expected {expected}", Escaped(.option), Escaped(.value))]
    Invalid {
        /// Its name in `adapter_config.json`.
        option: String,
        /// Its value, as JSON.
        value: String,
        /// What it would have to be.
        expected: &'static str,
    },
    /// A tensor without elements.
    #[error("adapter tensor {} is empty: it was saved before the parts on several devices were gathered", Escaped(.name))]
    Empty {
        /// Name in the file.
        name: String,
    },
    /// Factors that PEFT would pass over.
    #[error("adapter module {} has tensors in the file, but {why}", Escaped(.module))]
    Untargeted {
        /// Module.
        module: String,
        /// Why the configuration leaves it out.
        why: &'static str,
    },
    /// A bias for a module without one.
    #[error("adapter module {} has a bias, which the checkpoint has no place for", Escaped(.module))]
    NoBias {
        /// Module.
        module: String,
    },
    /// One of two tables with other rows than the checkpoint's, without the other.
    #[error(
        "the adapter changes {} to {rows} rows, and has no {other} with as many: its rows are not in the adapter's folder",
        Escaped(.module)
    )]
    HalfResized {
        /// Module that it has.
        module: String,
        /// Rows of it.
        rows: usize,
        /// Module that it lacks.
        other: &'static str,
    },
    /// More rows than the checkpoint's table per layer has.
    #[error("the adapter's vocabulary has {actual} rows, the checkpoint's embedding per layer {limit}")]
    PerLayerRows {
        /// The module whose rows they are.
        module: &'static str,
        /// Rows of the adapter.
        actual: usize,
        /// Rows of the table.
        limit: usize,
    },
    /// Factors of experts that fit two orders of the dimensions.
    #[error("adapter module {}: the factors fit both orders of inputs and outputs, and peft_version does not decide", Escaped(.module))]
    AmbiguousOrder {
        /// Module.
        module: String,
    },
    /// Two adapters whose texts say different things.
    #[error("adapters {} and {} bring different texts: {what}", Escaped(.first), Escaped(.second))]
    TextsDisagree {
        /// An adapter.
        first: String,
        /// A later one.
        second: String,
        /// Which text.
        what: &'static str,
    },
    /// A tokenizer with tokens that the embedding has no rows for.
    #[error(
        "the tokenizer of {} has token {} with number {id}, and the embedding {rows} rows",
        Escaped(.from),
        Escaped(.token)
    )]
    TokenBeyond {
        /// Adapter or folder.
        from: String,
        /// First such token.
        token: String,
        /// Its number.
        id: u64,
        /// Rows of the embedding.
        rows: usize,
    },
    /// `added_tokens.json` with a token that the tokenizer does not have so.
    #[error("added_tokens.json of {} gives token {} the number {id}, which its tokenizer.json does not", Escaped(.from), Escaped(.token))]
    AddedToken {
        /// Adapter or folder.
        from: String,
        /// The token.
        token: String,
        /// Its number.
        id: u64,
    },
    /// A text that cannot be read.
    #[error(transparent)]
    Text(Box<CheckpointError>),
}

impl From<CheckpointError> for AdapterError {
    fn from(error: CheckpointError) -> AdapterError {
        AdapterError::Text(Box::new(error))
    }
}
