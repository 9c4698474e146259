//! GGUF, read and written: the format, its block types, and models in it under canonical names.

mod decode;
mod decode_iq;
mod decode_k;
mod encode;
mod encode_k;
mod error;
mod file;
mod header;
pub mod limits;
mod types;
mod value;
mod writer;

pub use decode::decode_blocks;
pub use encode::{encode_blocks, is_encodable};
pub use error::GgufError;
pub use file::{Gguf, GgufTensor};
pub use header::{Header, Metadata, TensorInfo};
pub use types::GgmlType;
pub use value::{Array, Value};
pub use writer::{GgufWriter, NewTensor};
