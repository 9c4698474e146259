//! Vocabulary shared by every `gq` crate: dtypes, the encoding table, rotations' names, borrowed views,
//! exact float conversions, elementary functions of one result, softmax, distortion metrics,
//! the divergence of two rows of logits, instruction-set tokens, and the blocks of GGML.
//!
//! This crate does not know files, threads, devices or models.
#![forbid(unsafe_code)]

mod distortion;
pub mod divergence;
mod dtype;
mod encoding;
mod float;
pub mod ggml;
mod grid;
mod isa;
pub mod math;
mod matrix;
mod rotation;
mod softmax;
mod split_mix;
mod storage;

pub use distortion::Distortion;
pub use dtype::DType;
pub use encoding::{Encoding, Polar, ScaleGroup, Sketch, States};
pub use float::{decode_f32, encode_f32, f8_e4m3_to_f32, f8_e5m2_to_f32};
pub use grid::{Grid, Rounding, Spacing};
pub use isa::{Avx2, Avx512, Isa};
pub use matrix::{CodedRows, MatrixShape, ShapeMismatch};
pub use rotation::{RotationKind, RotationSpec};
pub use softmax::{softmax, softmax_with_sink};
pub use split_mix::SplitMix64;
pub use storage::Storage;
