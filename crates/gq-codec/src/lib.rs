//! The mathematics: rotations, codebooks, codes, rounding, packing and CPU kernels.
//!
//! A matrix row is rotated ([`Rotation`]), rounded to codes ([`Encoder`]), and later multiplied by
//! activations without being decoded first ([`Decoder`], [`Activations`]). Each encoding has a [`Code`], which
//! [`code_of`] finds and which those who plan ask what it loses and takes. Everything that decides a stored
//! byte is defined in `formats/encodings.md` and gives the same bits on every instruction set.
//!
//! [`round_blocks`] rounds rows to the block types of GGUF files and [`round_groups`] to integers in groups, which are no
//! encodings of ours.
//!
//! This crate does not know files, containers, models or GPUs. Large products use
//! the threads of the caller's pool; results do not depend on them.
#![deny(unsafe_op_in_unsafe_fn)]

mod blocks;
mod calibrated;
mod code;
mod codebook;
mod coders;
mod decoder;
mod elimination;
mod encoder;
mod error;
mod factor;
mod fixed_product;
mod kernel;
mod ldlq;
mod level_tile;
mod packing;
mod parallelism;
mod quantile;
mod random;
mod rotation;
mod scale;
mod study;
mod tables;
mod trellis;
mod trellis_search;

pub use blocks::{BlockCode, GroupCode, GroupedRows, Metric, round_blocks, round_groups};
pub use code::{
    Code, ColumnCode, EncodeScratch, Family, LevelCode, Levels, Strip, TableBytes, code_of, families, on_grid,
};
pub use codebook::Codebook;
pub use coders::Coders;
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use error::{CodecError, RotationError};
pub use factor::{Factor, NotPositive};
pub use fixed_product::{Operand, ProductShape, fixed_product};
pub use kernel::Activations;
pub use ldlq::StripOutcome;
pub use level_tile::{ActivationBlocks, LevelTile};
pub use parallelism::Parallelism;
pub use rotation::Rotation;
pub use study::{EncodingStudy, study_encoding};
pub use trellis::Trellis;
pub use trellis_search::TrellisScratch;
