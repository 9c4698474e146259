//! What can go wrong, per family of operations. Foreign text is escaped when shown.

use crate::digest::Digest;
use crate::rule::{FormatError, TensorRule};
use crate::text_kind::TextKind;
use gq_files::{Escaped, EscapedPath};
use std::path::PathBuf;

/// A file that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// The operating system refused.
    #[error("{}: {source}", EscapedPath(.path))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file breaks a rule of the format.
    #[error("{}: {source}", EscapedPath(.path))]
    Format {
        /// The file.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: FormatError,
    },
    /// The file was changed while it was read.
    #[error("{}: changed while it was read: its {what} was {limit} and is {actual}", EscapedPath(.path))]
    Changed {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What it was.
        limit: String,
        /// What it is.
        actual: String,
    },
}

/// A tensor whose payload is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The tensor.
    pub name: String,
    /// Digest in the table.
    pub limit: Digest,
    /// Digest of the payload.
    pub actual: Digest,
}

/// A file that is well formed and yet not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Payloads that were changed.
    #[error("{} of {tensors} tensors are damaged, the first is {}", .damaged.len(), first(.damaged))]
    Payloads {
        /// Tensors of the file.
        tensors: usize,
        /// Damaged ones, in file order; at least one.
        damaged: Vec<Damage>,
    },
    /// A text that cannot be read.
    #[error(transparent)]
    Text(#[from] FormatError),
}

impl VerifyError {
    /// A stable identifier of the broken rule, as in `formats/container.md`.
    pub fn code(&self) -> &'static str {
        match self {
            VerifyError::Payloads { .. } => "payload-sha256",
            VerifyError::Text(source) => source.code(),
        }
    }
}

fn first(damaged: &[Damage]) -> Escaped<'_> {
    Escaped(damaged.first().map_or("", |damage| &damage.name))
}

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operating system refused.
    #[error("{}: {source}", EscapedPath(.path))]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something took the file's name while it was made, and is kept.
    #[error("{}: something took this name meanwhile; the finished file is {}", EscapedPath(.path), EscapedPath(.kept))]
    Taken {
        /// The name.
        path: PathBuf,
        /// Where the finished file lies.
        kept: PathBuf,
    },
    /// Another process is writing the same file.
    #[error("{}: another process is writing it", EscapedPath(.path))]
    Busy {
        /// The partial file.
        path: PathBuf,
    },
    /// The caller asks for something that the format does not allow.
    #[error("{}: {source}", EscapedPath(.path))]
    Rule {
        /// The file.
        path: PathBuf,
        /// Which rule.
        #[source]
        source: WriteRule,
    },
}

/// Why something cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteRule {
    /// A tensor that the format cannot hold.
    #[error("tensor {}: {source}", Escaped(.name))]
    Tensor {
        /// The tensor.
        name: String,
        /// Which rule.
        #[source]
        source: TensorRule,
    },
    /// Two tensors of one name.
    #[error("two tensors are named {}", Escaped(.name))]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// More tensors than the cap.
    #[error("more than {limit} tensors")]
    TensorCount {
        /// Cap.
        limit: u32,
    },
    /// A payload of another length than its tensor's shape and encoding say.
    #[error("tensor {}: {actual} bytes given, shape and encoding call for {limit}", Escaped(.name))]
    PayloadBytes {
        /// The tensor.
        name: String,
        /// What shape and encoding call for.
        limit: u64,
        /// Bytes given.
        actual: u64,
    },
    /// A tensor begun before the one before was ended, or bytes outside of one.
    #[error("tensors are not begun and ended in turn")]
    OutOfTurn,
    /// Two texts of one kind.
    #[error("two texts are {}", .kind.name())]
    DuplicateText {
        /// The kind.
        kind: TextKind,
    },
    /// A text beyond the cap.
    #[error("text {}: {actual} bytes, at most {limit} are allowed", .kind.name())]
    TextBytes {
        /// The kind.
        kind: TextKind,
        /// Cap.
        limit: u64,
        /// Length.
        actual: u64,
    },
    /// More bytes than a file can have.
    #[error("the file would be longer than 2^64 bytes")]
    FileBytes,
    /// The unfinished file does not hold what the journal says.
    #[error("{actual} bytes, the tensors said to be finished take {limit}")]
    PartialTooShort {
        /// Bytes needed.
        limit: u64,
        /// Length of the unfinished file.
        actual: u64,
    },
}
