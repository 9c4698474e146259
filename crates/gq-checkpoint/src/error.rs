//! What can go wrong, per family of operations. Foreign text is escaped when shown.

use crate::gguf::GgufError;
pub use crate::read_error::ReadError;
use crate::safetensors::{HeaderError, IndexError};
use crate::stand_in::StandIn;
use crate::{ConfigError, TensorError};
use gq_files::{EscapedPath, Sentence};
use std::path::PathBuf;

/// A checkpoint that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The operating system refused.
    #[error("{}: {source}", EscapedPath(.path))]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No `config.json`.
    #[error("{}: no config.json", EscapedPath(.dir))]
    NoConfig {
        /// Directory.
        dir: PathBuf,
    },
    /// Several GGUFs and no `config.json`: which one is meant is not known.
    #[error("{}: holds several GGUFs: {}", EscapedPath(.dir), .files.iter().map(|f| f.escape_debug().to_string()).collect::<Vec<_>>().join(", "))]
    ManyGguf {
        /// Directory.
        dir: PathBuf,
        /// Their names.
        files: Vec<String>,
    },
    /// Neither `model.safetensors` nor an index.
    #[error("{}: neither model.safetensors nor model.safetensors.index.json", EscapedPath(.dir))]
    NoWeights {
        /// Directory.
        dir: PathBuf,
    },
    /// A weight file next to an index that does not name it.
    #[error("{}: a weight file that model.safetensors.index.json does not name", EscapedPath(.path))]
    StrayWeights {
        /// File.
        path: PathBuf,
    },
    /// Another set of weights next to `model.safetensors`.
    #[error("{}: a second set of weights next to model.safetensors", EscapedPath(.path))]
    SecondWeights {
        /// File.
        path: PathBuf,
    },
    /// A set of numbered shards without one of its numbers.
    #[error("{}: {file} is missing, one of {of} shards", EscapedPath(.dir))]
    ShardMissing {
        /// Directory.
        dir: PathBuf,
        /// Its name.
        file: String,
        /// Shards of the set.
        of: usize,
    },
    /// A file next to the others that says a download did not finish.
    #[error("{}: a download that did not finish", EscapedPath(.path))]
    Unfinished {
        /// The unfinished file, or the program's notes about it.
        path: PathBuf,
    },
    /// Weights in Python's pickle format.
    #[error("{}: weights as a Python pickle, which can run code when it is read; safetensors are read", EscapedPath(.path))]
    Pickle {
        /// File.
        path: PathBuf,
    },
    /// An adapter's folder where a checkpoint is expected.
    #[error("{}: an adapter (adapter_config.json), not a checkpoint", EscapedPath(.dir))]
    IsAdapter {
        /// Directory.
        dir: PathBuf,
    },
    /// A pointer, a page or nothing in the place of a file.
    #[error("{}: {what}", EscapedPath(.path))]
    StandIn {
        /// File.
        path: PathBuf,
        /// What it is.
        what: StandIn,
    },
    /// A text beyond its cap.
    #[error("{}: {actual} bytes, at most {limit} are read", EscapedPath(.path))]
    TextTooLong {
        /// File.
        path: PathBuf,
        /// Its length in bytes.
        actual: u64,
        /// Cap in bytes.
        limit: u64,
    },
    /// A text that is not UTF-8.
    #[error("{}: not UTF-8 at byte {at}", EscapedPath(.path))]
    TextNotUtf8 {
        /// File.
        path: PathBuf,
        /// First bad byte.
        at: usize,
    },
    /// A text file whose JSON is not as expected.
    #[error("{}: {}", EscapedPath(.path), Sentence(.source))]
    TextJson {
        /// File.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// `config.json` is not understood.
    #[error("{}: {source}", EscapedPath(.path))]
    Config {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// A weight file whose header is broken.
    #[error("{}: {source}", EscapedPath(.path))]
    Header {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: HeaderError,
    },
    /// An index that is broken.
    #[error("{}: {source}", EscapedPath(.path))]
    Index {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// A GGUF that is broken or not supported.
    #[error("{}: {source}", EscapedPath(.path))]
    Gguf {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<GgufError>,
    },
    /// Tensors that do not make up the model.
    #[error(transparent)]
    Tensors(#[from] TensorError),
    /// A tensor that had to be read on opening (scales, a repeated head) could not be.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl CheckpointError {
    /// A fault of a GGUF; those of the operating system name their file themselves.
    pub(crate) fn gguf(path: &std::path::Path, source: GgufError) -> CheckpointError {
        match source {
            GgufError::Io { path, source } => CheckpointError::Io { path, source },
            source => CheckpointError::Gguf { path: path.to_owned(), source: Box::new(source) },
        }
    }
}
