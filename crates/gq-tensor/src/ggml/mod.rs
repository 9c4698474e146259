//! The block types of GGML, which GGUF files hold: numbers, names, sizes, what blocks decode to, and how their numbers are
//! put into bytes. Which numbers a block gets is for others to decide.

mod decode;
mod decode_iq;
mod decode_k;
mod half_at;
mod pack;
mod types;

pub use decode::{decodable_names, decode_blocks, is_decodable, plain};
pub use decode_iq::IQ4_LEVELS;
pub use pack::{BlockParts, pack_block};
pub use types::GgmlType;
