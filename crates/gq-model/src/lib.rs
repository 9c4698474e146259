//! Tokenizer, chat template, model graphs, KV cache, backends and sampling.
//!
//! [`Model`] runs a checkpoint or a container. Graphs are written once, against [`Ops`].
//!
//! This crate does not know conversion, the network or a terminal.

mod cache;
mod eager;
mod error;
mod family;
mod linear;
mod math;
mod model;
mod ops;
mod product;
mod source;
mod texts;

pub use cache::{KvCache, KvType};
pub use eager::{ActivationMode, Matrix};
pub use error::{LoadError, ModelError};
pub use linear::Linear;
pub use model::{LogitRows, Model, RunOptions};
pub use ops::{Experts, Norm, Ops};
pub use texts::ModelTexts;
