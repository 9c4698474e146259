//! Low-rank adapters in PEFT's layout, and the checkpoint with them merged in.
//!
//! An [`Adapter`] is `adapter_config.json` and `adapter_model.safetensors` as facts. A checkpoint opened
//! [with adapters](crate::Checkpoint::with_adapters) gives the merged rows wherever it gave its own.
//!
//! With `W` a matrix of the checkpoint, adapters in the order given, `A [r, cols]`, `B [rows, r]`:
//!
//! - plain: `W += w s B A`, where `w` is the weight given to the adapter and `s = alpha / r`, or `alpha / sqrt(r)` (rsLoRA);
//! - DoRA: `W = m / ||W0 + w s B A|| (W + w s B A)`, norms of rows, `W0` the checkpoint's own;
//! - of embeddings: `W += w s (B A)^T`, `A [r, vocabulary]`, `B [width, r]`;
//! - saved modules replace the tensor.
//!
//! All of it is computed in f64 and rounded once, to f32.

mod config;
mod error;
mod merge;
mod modules;
mod open;

pub use error::AdapterError;
pub(crate) use merge::Merge;
pub use open::{Adapter, AdapterFile};
