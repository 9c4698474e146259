//! Tokenizer, chat template, model graphs, KV cache, backends and sampling.
//!
//! [`Model`] runs a checkpoint or a container. Graphs are written once, against [`Ops`]: for the CPU by [`cpu`], and by
//! whoever brings another backend.
//!
//! This crate does not know calibration, conversion, the network or a terminal.

pub mod arithmetic;
mod blocks;
mod cache;
mod chat;
pub mod cpu;
mod decoded;
mod error;
mod family;
mod finite;
mod footprint;
mod generation;
mod growth;
mod ids;
mod linear;
mod matrix;
mod model;
mod ops;
mod outside;
mod probe;
mod product;
mod same_tokens;
mod sample_text;
mod sampler;
mod source;
mod special_ids;
mod texts;
mod tokenizer;
mod tokenizer_error;
mod written;

pub use blocks::{Experts, FeedForward, Mlp};
pub use cache::{KvCache, KvType};
pub use chat::{ChatError, ChatMessage, ChatOptions, ChatTemplate, Clock, TemplateLimits};
pub use cpu::ActivationMode;
pub use error::{LoadError, ModelError};
pub use family::{Graph, Stream};
pub use footprint::{kv_cache_bytes, work_bytes};
pub use generation::{Asked, Generation, GenerationError, GenerationOptions, Piece, StopReason};
pub use ids::WeightId;
pub use linear::Linear;
pub use matrix::Matrix;
pub use model::{LogitRows, Model, RunOptions};
pub use ops::{Attention, Norm, Ops, Router};
pub use outside::{OutsidePanic, guarded};
pub use same_tokens::{TokenDifference, token_difference};
pub use sampler::{Sampler, Sampling, argmax};
pub use special_ids::{IdDisagreement, id_disagreements};
pub use texts::ModelTexts;
pub use tokenizer::{SpecialText, TextStream, Tokenizer};
pub use tokenizer_error::TokenizerError;
