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
    let text_bytes = texts.map(|file| file.bytes).sum::<u64>() + checkpoint.merge_bytes(resources.threads);
    let facts = Facts { tensors: checkpoint.tensors(), spec: checkpoint.spec(), text_bytes };
    let plan = Plan::new(facts, policy, resources)?;
    let merged = |step: &&Step| checkpoint.tensor(&step.tensor).is_some_and(|t| checkpoint.is_merged(t));
    let narrow = |step: &&Step| step.encoding.is_exact() && step.source_dtype.size() < 2;
    match plan.steps.iter().filter(merged).find(narrow) {
        None => Ok(plan),
        Some(step) => Err(PlanError::Merged {
            tensor: step.tensor.clone(),
            actual: step.source_dtype,
            reason: step.reason.clone(),
        }),
    }
}
