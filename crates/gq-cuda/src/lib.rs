//! Kernels for NVIDIA GPUs: the committed PTX, what each kernel computes to the bit, and how it is launched.
//!
//! Every kernel of `kernels/*.cu` has three things here: its PTX ([`Module`]), a description of a launch that checks
//! shapes and sizes before anything reaches a device ([`Launch`] and the types that make one), and a definition in plain
//! Rust ([`define`]) of every bit of its results. Tests execute the PTX and compare. What runs launches is a [`Device`]:
//! an interpreter in the tests, a GPU by its driver ([`Gpu`]) where there is one.
//!
//! Codes are permuted once when they are brought to a device, to an order that suits its loads ([`layout`]).
//!
//! This crate knows tensors and codes. It does not know models, files or the encode side.

mod all_heads;
mod attention;
mod call;
pub mod define;
mod driver;
mod elements;
mod error;
mod exact;
mod experts;
mod fused;
mod heads;
mod launch;
pub mod layout;
mod module;
mod norm;
mod product;
mod rotate;
mod rows;
mod top;
mod trellis;

pub use all_heads::{AllHeads, HeadsIn};
pub use attention::{Attention, attention_chunk};
pub use driver::{Buffer, Captured, Gpu, GpuError, GpuFacts};
pub use elements::{AddScaled, Gated, Softcap};
pub use error::LaunchError;
pub use exact::{ExactProduct, ExactRows};
pub use experts::{ChooseExperts, MixExperts};
pub use fused::{GatedRotate, Joined, NormRotate};
pub use heads::{CacheRows, HeadNorm, Heads, HeadsTo, Kept};
pub use launch::{Argument, Device, Launch, Parts, Span};
pub use module::Module;
pub use norm::RmsNorm;
pub use product::{Experts, PlaneCode, PlaneProduct, ScaleForm, row_split};
pub use rotate::{Quantize, Rotate, RotateBack, RotateWide, RotationTables};
pub use rows::PlaneRows;
pub use top::TopLogits;
pub use trellis::{TrellisCode, TrellisProduct, TrellisRows, column_splits};
