//! GGUF, the format: headers and metadata, values to blocks, and what families have in such a file. Block types and what
//! blocks decode to are `gq_tensor::ggml`.

mod bytes;
mod encode;
mod encode_k;
mod error;
mod file;
mod header;
mod imatrix;
mod keys;
pub mod limits;
mod rope;
mod rounding;
mod rules;
mod storage;
mod transform;
mod value;
mod writer;

pub use encode::{encode_blocks, is_encodable};
pub use error::GgufError;
pub use file::{Gguf, GgufTensor};
pub use gq_tensor::ggml::{GgmlType, decode_blocks};
pub(crate) use gq_tensor::ggml::{is_decodable, plain};
pub use header::{Header, Metadata, TensorInfo};
pub use imatrix::{Imatrix, SquaredInputs};
pub(crate) use keys::Keys;
pub(crate) use rope::{BETA_FAST, BETA_SLOW, FREQ_BASE, RopeFactors, STILL, StoredRope, own_factor};
pub(crate) use rules::{
    GgufRules, Set, common, full_layer, head_dim, head_widths, int, named_types, number, object, pattern,
    softcap, window, with_heads,
};
pub use storage::Storage;
pub(crate) use transform::Transform;
pub use value::{Array, Value};
pub use writer::{GgufWriter, NewTensor};
