//! GGUF, read and written: the format, its block types, and models in it under canonical names.

mod config;
mod decode;
mod decode_iq;
mod decode_k;
mod encode;
mod encode_k;
mod error;
mod export;
mod export_meta;
mod export_tokenizer;
mod file;
mod header;
mod keys;
pub mod limits;
mod model;
mod names;
mod naming;
mod pre_tokenizer;
mod storage;
mod tokenizer;
mod types;
mod value;
mod writer;

pub use decode::decode_blocks;
pub use encode::{encode_blocks, is_encodable};
pub use error::GgufError;
pub use export::{ExportError, ExportOptions, ExportPlan, ExportSource, ExportTensor, ReadRows};
pub use file::{Gguf, GgufTensor};
pub use header::{Header, Metadata, TensorInfo};
pub(crate) use model::GgufModel;
pub use storage::Storage;
pub use types::GgmlType;
pub use value::{Array, Value};
pub use writer::{GgufWriter, NewTensor};
