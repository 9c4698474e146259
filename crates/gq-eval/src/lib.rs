//! Perplexity, KL divergence, agreement and reports.
//!
//! [`evaluate_text`] compares a model with a reference on text by the protocol of llama-perplexity;
//! [`evaluate_outputs`] compares it with a file of logits that any framework can write.
//!
//! This crate does not know conversion, the network or a terminal: progress is a callback.
#![forbid(unsafe_code)]

mod cache;
mod error;
mod evaluate;
mod gate;
mod histogram;
pub mod html;
mod identity;
mod logit_source;
mod outputs;
mod pieces;
mod plot;
mod report;
mod save;
mod sizes;
mod statistics;
mod windows;

pub use cache::LogitCache;
pub use error::EvalError;
pub use evaluate::{
    CachedReference, FLOOR_WINDOWS, ReferenceRun, TextOptions, compare_on_text, compare_with_outputs,
    evaluate_outputs, evaluate_text,
};
pub use gate::{Gate, GateError};
pub use gq_tensor::divergence::{Divergence, compare};
pub use histogram::Histogram;
pub use identity::Identity;
pub use logit_source::{LogitSource, ModelLogits};
pub use outputs::{OutputsError, OutputsReader};
pub use report::{
    Computed, EvalReport, Kld, LogitError, Names, NoiseFloor, Perplexity, ReferenceLogits, Scored,
};
pub use save::OutputsWriter;
pub use sizes::{Bits, Bytes, Sizes, checkpoint_sizes, container_sizes};
pub use statistics::Estimate;
pub use windows::{WindowError, Windows};
