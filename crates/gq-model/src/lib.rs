//! Model graphs, KV cache, backends, sampling and generation.
//!
//! [`Model`] runs a checkpoint or a container. Graphs are written once, against [`Ops`]: for the CPU by [`cpu`], for
//! GPUs by [`cuda`], and by whoever brings another backend.
//!
//! This crate does not know calibration, conversion, the network or a terminal.

pub mod arithmetic;
mod blocks;
mod cache;
pub mod cpu;
pub mod cuda;
mod decoded;
mod error;
mod family;
mod finite;
mod footprint;
mod generation;
mod ids;
mod input;
mod linear;
mod matrix;
mod model;
mod ops;
mod probe;
mod product;
mod sampler;
mod together;
mod weight_source;

pub use blocks::{Experts, FeedForward, Mlp};
pub use cache::{KvCache, KvType};
pub use cpu::ActivationMode;
pub use error::{DeviceError, LoadError, ModelError};
pub use family::{Graph, Stream};
pub use footprint::{kv_cache_bytes, work_bytes};
pub use generation::{Asked, Generation, GenerationError, GenerationOptions, Piece, StopReason};
pub use ids::WeightId;
pub use linear::Linear;
pub use matrix::Matrix;
pub use model::{LogitRows, Model, RunOptions};
pub use ops::{Attention, Norm, Ops, Router};
pub use sampler::{Sampler, Sampling, argmax};
pub use together::Turn;
