//! Policy, plan, execution, journal and report of a conversion.
//!
//! [`plan`] is pure: headers and a [`Policy`] in, one step per tensor out. [`execute`] does what the plan says.
//!
//! This crate does not know the network or a terminal: progress is a callback.
#![forbid(unsafe_code)]

mod encode;
mod error;
mod execute;
mod journal;
mod memory;
mod output;
mod plan;
mod policy;
mod report;
mod source;

pub use encode::CoderError;
pub use error::ConvertError;
pub use execute::{Event, ExecuteOptions, execute};
pub use journal::JournalError;
pub use memory::Memory;
pub use plan::{Dropped, Facts, Plan, PlanError, Step};
pub use policy::{Choice, Override, Policy, PolicyError, Resources};
pub use report::{Report, TensorReport};

use gq_checkpoint::Checkpoint;

/// Plans the conversion of `checkpoint`: nothing is written, and only headers and texts have been read.
///
/// # Errors
/// When the policy does not fit the tensors, or the peak memory exceeds the limit.
pub fn plan(checkpoint: &Checkpoint, policy: &Policy, resources: Resources) -> Result<Plan, PlanError> {
    let texts = checkpoint.files().iter().filter(|file| file.kind == gq_checkpoint::FileKind::Text);
    let text_bytes = texts.map(|file| file.bytes).sum();
    Plan::new(Facts { tensors: checkpoint.tensors(), spec: checkpoint.spec(), text_bytes }, policy, resources)
}
