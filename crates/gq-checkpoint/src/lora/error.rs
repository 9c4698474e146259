//! Why an adapter cannot be merged.

use crate::escape::{Escaped, EscapedPath, Sentence};
use crate::safetensors::HeaderError;
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
}
