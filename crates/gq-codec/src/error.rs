//! What a codec refuses.

use gq_tensor::{Encoding, RotationKind};

/// A rotation that does not exist for a width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotationError {
    /// A Hadamard rotation needs a positive multiple of `multiple`.
    #[error("a Hadamard rotation needs a width that is a positive multiple of {multiple}, not {cols}")]
    Width {
        /// The width asked for.
        cols: usize,
        /// What it must be a multiple of.
        multiple: usize,
    },
    /// The odd part of the width has too large a prime factor for the dense factor of that size.
    #[error("width {cols} has the prime factor {prime}; Hadamard rotations take prime factors up to {limit}")]
    PrimeFactor {
        /// The width asked for.
        cols: usize,
        /// Its largest prime factor.
        prime: usize,
        /// Largest prime factor supported.
        limit: usize,
    },
    /// A dense matrix of this width is too large.
    #[error("a {kind} rotation of width {cols} is a dense matrix; the limit is {limit}", kind = .kind.name())]
    Dense {
        /// The kind asked for.
        kind: RotationKind,
        /// The width asked for.
        cols: usize,
        /// Largest width supported.
        limit: usize,
    },
}

/// An encoding that cannot be used as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The encoding does not support rows of this width.
    #[error("encoding {encoding} does not support rows of {cols} elements")]
    Width {
        /// The encoding asked for.
        encoding: Encoding,
        /// The width asked for.
        cols: usize,
    },
    /// Exact encodings copy the source's bytes; there is nothing to encode.
    #[error("encoding {encoding} stores the source's bytes and is not encoded")]
    Exact {
        /// The encoding asked for.
        encoding: Encoding,
    },
    /// Bits per element outside the encoding's range, or an integer dtype: not in the registry.
    #[error("encoding {encoding} is not in the registry")]
    Unregistered {
        /// The encoding asked for.
        encoding: Encoding,
    },
    /// The sketching matrix of this width is too large.
    #[error("encoding {encoding} of width {cols} needs a dense sketching matrix; the limit is {limit}")]
    Sketch {
        /// The encoding asked for.
        encoding: Encoding,
        /// The width asked for.
        cols: usize,
        /// Largest width supported.
        limit: usize,
    },
}
