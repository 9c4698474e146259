//! What can go wrong while weights are read.

use gq_files::{Escaped, EscapedPath};
use std::ops::Range;
use std::path::PathBuf;

/// Rows or bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The operating system refused.
    #[error("{}: {source}", EscapedPath(.path))]
    Io {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Rows that the tensor does not have.
    #[error("tensor {}: rows {}..{} of {actual}", Escaped(.name), .rows.start, .rows.end)]
    RowsOutOfRange {
        /// Tensor.
        name: String,
        /// Rows asked for.
        rows: Range<usize>,
        /// Rows it has.
        actual: usize,
    },
    /// Bytes that the tensor does not have.
    #[error("tensor {}: bytes {}..{} of {actual}", Escaped(.name), .range.start, .range.end)]
    BytesOutOfRange {
        /// Tensor.
        name: String,
        /// Bytes asked for.
        range: Range<u64>,
        /// Bytes it has.
        actual: u64,
    },
    /// A buffer of the wrong length.
    #[error("tensor {}: a buffer of {actual} for {expected} values", Escaped(.name))]
    WrongBuffer {
        /// Tensor.
        name: String,
        /// Length that the request calls for.
        expected: usize,
        /// Length of the buffer.
        actual: usize,
    },
    /// NaN, an infinity, or a number beyond f32.
    #[error("tensor {}: row {row}, column {col} is {value}", Escaped(.name))]
    NotFinite {
        /// Tensor.
        name: String,
        /// Row, all leading dimensions flattened.
        row: usize,
        /// Column.
        col: usize,
        /// The value as f32.
        value: f32,
    },
    /// A file that was written to, replaced or removed since it was opened.
    #[error("{}: changed while it was read: {what} was {limit}, is {actual}", EscapedPath(.path))]
    Changed {
        /// File.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What it was when it was opened.
        limit: String,
        /// What it is now.
        actual: String,
    },
}
