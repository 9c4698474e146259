//! The safetensors format: headers and the index of shards, as pure functions of bytes.

mod header;
mod index;

pub use header::{Header, HeaderEntry, HeaderError, header_bytes, parse_header};
pub use index::{Index, IndexError, parse_index};
