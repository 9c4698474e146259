//! Ways out: the model of a checkpoint, a GGUF or a `.gq` file as f32 rows, written in other formats.

pub mod cost;
pub mod modelfile;
pub mod ranged;
pub mod rate;
pub mod safetensors;
pub mod tokens;
mod weights;

pub use weights::Weights;
