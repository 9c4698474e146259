//! The mathematics: rotations, codebooks, codes, rounding, packing and CPU kernels.
//!
//! A matrix row is rotated ([`Rotation`]), rounded to codes ([`Encoder`]), and later multiplied by
//! activations without being decoded first ([`Decoder`], [`Activations`]). Everything that decides a stored
//! byte is defined in `formats/encodings.md` and gives the same bits on every instruction set.
//!
//! This crate does not know files, containers, models or GPUs. Large products use
//! the threads of the caller's pool; results do not depend on them.
#![deny(unsafe_op_in_unsafe_fn)]

mod activations;
mod calibrated;
mod codebook;
mod decoder;
mod elimination;
mod encoder;
mod error;
mod factor;
mod fixed_product;
mod grid;
mod kernel;
mod ldlq;
mod level_tile;
mod packing;
mod polar;
mod prod;
mod quantile;
mod random;
mod rotation;
mod serially;
mod study;
mod tables;
mod trellis;
mod trellis_strip;
mod turbo;

pub use activations::Activations;
pub use calibrated::encode_calibrated;
pub use codebook::Codebook;
pub use decoder::Decoder;
pub use encoder::{EncodeScratch, Encoder};
pub use error::{CodecError, RotationError};
pub use factor::{Factor, NotPositive};
pub use fixed_product::{Operand, fixed_product};
pub use grid::on_grid;
pub use ldlq::{ColumnQuantizer, StripOutcome, round_strip};
pub use level_tile::{ActivationBlocks, LevelTile};
pub use rotation::Rotation;
pub use serially::serially;
pub use study::{EncodingStudy, study_encoding};
pub use trellis::{Trellis, TrellisScratch};
pub use trellis_strip::{TrellisColumns, encode_trellis_calibrated};
