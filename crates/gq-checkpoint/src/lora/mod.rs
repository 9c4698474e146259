//! Low-rank adapters in PEFT's layout and in MLX's, and the checkpoint with them merged in.
//!
//! An [`Adapter`] is `adapter_config.json` and `adapter_model.safetensors` as facts. A checkpoint opened
//! [with adapters](crate::Checkpoint::with_adapters) gives the merged rows wherever it gave its own.
//!
//! With `W` a matrix of the checkpoint, adapters in the order given, `A [r, cols]`, `B [rows, r]`:
//!
//! - plain: `W += w s B A`, where `w` is the weight given to the adapter and `s = alpha / r`, or `alpha / sqrt(r)` (rsLoRA);
//! - DoRA: `W = m / ||W0 + w s B A|| (W + w s B A)`, norms of rows, `W0` the checkpoint's own;
//! - of embeddings: `W += w s (B A)^T`, `A [r, vocabulary]`, `B [width, r]`;
//! - saved modules replace the tensor, trained token rows replace rows;
//! - of experts in one tensor `[experts, outputs, inputs]`: `W[e] += w s B[e] A[e]`, with `A [experts * r, inputs]`
//!   (experts slowest) and `B [outputs, r * experts]` (experts fastest);
//! - biases: `b += w s b_B`, or replaced.
//!
//! An adapter whose tables have other rows than the checkpoint's brings the vocabulary ([`resize`]); its texts say how
//! the model is spoken to ([`texts`]).
//!
//! All of it is computed in f64 and rounded once, to f32.

mod change;
mod config;
mod error;
mod factors;
mod fused;
mod merge;
mod mlx;
mod modules;
mod named_module;
mod open;
mod parameter;
mod resize;
mod targets;
mod text_files;
mod texts;
mod tied;
mod values;

pub use error::AdapterError;
pub(crate) use merge::Merge;
pub use open::{Adapter, AdapterFile};
pub(crate) use resize::Resize;
pub use texts::{TakenTexts, TextsFrom};
