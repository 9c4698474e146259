//! Tokenizer, chat template, model graphs, KV cache, backends and sampling.
//!
//! [`Model`] runs a checkpoint or a container. Graphs are written once, against [`Ops`].
//!
//! This crate does not know conversion, the network or a terminal.

mod blocks;
mod cache;
mod chat;
mod cpu;
mod decoded;
#[cfg(test)]
mod digests;
mod error;
mod family;
mod finite;
mod fixed;
mod footprint;
mod generation;
mod growth;
mod ids;
mod layerwise;
mod linear;
mod matrix;
mod measure;
mod model;
mod ops;
mod outside;
mod own_text;
mod paired;
mod pieces;
mod probe;
mod product;
mod routing;
mod same_tokens;
mod sample_text;
mod sampler;
mod softmax;
mod source;
mod special_ids;
mod spill;
mod stored;
#[cfg(test)]
mod suite;
mod teacher;
mod texts;
mod tokenizer;
mod tokenizer_error;
mod trial;
mod written;

pub use cache::{KvCache, KvType};
pub use chat::{ChatError, ChatMessage, ChatOptions, ChatTemplate, Clock, TemplateLimits};
pub use cpu::ActivationMode;
pub use error::{LoadError, ModelError};
pub use fixed::{FactorGradients, Factors, Observation, Replacements};
pub use footprint::{kv_cache_bytes, work_bytes};
pub use generation::{Asked, Generation, GenerationError, GenerationOptions, Piece, StopReason};
pub use ids::WeightId;
pub use linear::Linear;
pub use matrix::Matrix;
pub use measure::{CalibrationPass, OutputMoments, output_moments, residual_token_bytes};
pub use model::{LogitRows, Model, RunOptions};
pub use ops::{Attention, Norm, Ops, Router};
pub use outside::{OutsidePanic, guarded};
pub use own_text::{MOST_CONVERSATIONS, OwnTextError, OwnTextOptions, conversation_bytes, own_text};
pub use paired::{PairedObservation, PairedPass};
pub use same_tokens::{TokenDifference, token_difference};
pub use sampler::{Sampler, Sampling, argmax};
pub use special_ids::{IdDisagreement, id_disagreements};
pub use teacher::Teacher;
pub use texts::ModelTexts;
pub use tokenizer::{SpecialText, TextStream, Tokenizer};
pub use tokenizer_error::TokenizerError;
pub use trial::{Trial, TrialPass};
