//! The backend for NVIDIA GPUs: every operator queues launches of `gq-cuda`'s kernels, over the rows of one sequence.
//!
//! Weights are brought once, by their numbers, in the order that kernels want. Tables of which every token takes a row stay
//! on the host, mapped, and rows are brought as tokens come. What a device has to hold is planned before any of it is
//! brought ([`DevicePlan`]).

mod arena;
mod batch;
mod collect;
mod inputs;
mod plan;
mod runner;
mod step;
mod store;
mod value;
mod weights;

pub use batch::Batch;
pub(crate) use plan::{BATCH, LOGIT_ROWS};
pub use plan::{DevicePlan, planned};
pub use runner::Runner;
pub(crate) use step::Steps;
pub use value::{Chosen, Value};

pub use gq_cuda::{GpuError, GpuFacts};

use crate::cache::KvType;
use crate::cpu::ActivationMode;
use crate::error::DeviceError;
use gq_checkpoint::ModelSpec;
use gq_cuda::Gpu;
use gq_tensor::Isa;

pub(crate) use collect::Collect;

/// How a model is to compute on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Tokens that there has to be room for.
    pub(crate) context: usize,
    pub(crate) kv: KvType,
    pub(crate) activations: ActivationMode,
    /// Instructions of what is decoded on the host.
    pub(crate) level: Isa,
}

/// Every GPU that the driver knows, by its number: what is known of it, or why it cannot be opened.
///
/// # Errors
/// Without a driver, or with one that is too old or does not start.
pub fn gpus() -> Result<Vec<Result<GpuFacts, GpuError>>, GpuError> {
    let facts = |number| Gpu::open_any(number)?.facts();
    Ok((0..Gpu::count()?).map(facts).collect())
}

/// Brings what a graph multiplies by to the GPU of this number.
///
/// # Errors
/// Without such a GPU, or when the model does not fit there.
pub(crate) fn bring(
    number: usize,
    spec: &ModelSpec,
    graph: &Collect,
    asked: Asked,
) -> Result<Runner, DeviceError> {
    Runner::new(Gpu::open(number)?, spec, &graph.wanted, asked)
}
