//! Perplexity, KL divergence, agreement and reports.
//!
//! [`evaluate_text`] compares a model with a reference on text by the protocol of llama-perplexity;
//! [`evaluate_outputs`] compares it with a file of logits that any framework can write.
//!
//! This crate does not know conversion, the network or a terminal: progress is a callback.
#![forbid(unsafe_code)]

mod divergence;
mod error;
mod evaluate;
mod gate;
mod outputs;
mod report;
mod sizes;
mod statistics;
mod windows;

pub use divergence::{Divergence, compare};
pub use error::EvalError;
pub use evaluate::{TextOptions, evaluate_outputs, evaluate_text};
pub use gate::{Gate, GateError};
pub use outputs::{OutputsError, OutputsReader, OutputsWriter};
pub use report::{Bits, Bytes, Estimate, EvalReport, Kld, LogitError, Perplexity};
pub use sizes::{Sizes, checkpoint_sizes, container_sizes};
pub use windows::{WindowError, Windows};
