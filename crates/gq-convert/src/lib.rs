//! Policy, plan, execution, journal and report of a conversion.
//!
//! [`plan`] is pure: headers and a [`Policy`] in, one step per tensor out. [`execute`] does what the plan says,
//! [`execute_all`] what several plans say in one pass over the source.
//!
//! This crate does not know the network or a terminal: progress is a callback.
#![forbid(unsafe_code)]

mod after;
mod blocks;
mod execute;
mod plan;
mod provenance;
mod rederive;
mod round;
mod trials;

pub use after::{
    NotFinite, RoundAgain, RoundAgainError, RoundAgainEvent, RoundAgainOptions, RoundedAgainOutcome,
    ScalesError, ScalesEvent, ScalesOptions, ScalesTuned, Side, TargetKld, TargetKldError, TensorAgain,
    TunedScales, check_source, held_out_divergence, tune_scales,
};
pub use blocks::{
    BlockCoder, ChooseError, GroupCoder, Grouped, Importances, Pace, TypeError, TypeOption, TypedUnit,
    choose_types, sensitivities,
};
pub use execute::{
    Check, CheckError, ConvertError, Event, ExecuteOptions, JournalError, Origin, Report, TensorReport,
    execute, execute_all,
};
pub use plan::{
    Amounts, Budget, Calibration, Choice, Codes, Dropped, Effort, Estimate, GridError, Grids, LeftOut,
    Lossless, Memory, Multiplications, Override, Plan, PlanError, PlanInputs, Policy, PolicyError, Resources,
    Speed, Step, passes,
};
pub use rederive::{RederiveError, Rederiver, Verdict, WhyNot, compare_files};
pub use round::CoderError;
pub use trials::correct;

use gq_calibrate::Measurements;
use gq_checkpoint::Checkpoint;

/// Plans the conversion of `checkpoint`: nothing is written, and only headers and texts have been read.
///
/// # Errors
/// When the policy does not fit the tensors, or the peak memory exceeds the limit.
pub fn plan(checkpoint: &Checkpoint, policy: &Policy, resources: Resources) -> Result<Plan, PlanError> {
    plan_measured(checkpoint, policy, resources, None, None)
}

/// Plans with measurements on the same source: codes are rounded with their inputs in view, and a budget is spent
/// where it lowers the expected divergence most (without measurements: where roles usually need it); and with the grids that weights already sit on, which are used where
/// they take no more bytes.
///
/// # Errors
/// When the policy does not fit the tensors, the budget is too small, or the peak memory exceeds the limit.
pub fn plan_measured(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    measurements: Option<&Measurements>,
    grids: Option<&Grids>,
) -> Result<Plan, PlanError> {
    let text_bytes = checkpoint.text_bytes();
    let merge_bytes = checkpoint.merge_bytes(resources.threads);
    let stored_text_bytes = match policy.budget {
        Some(Budget::FileBytes(_)) => execute::stored_text_bytes(checkpoint),
        _ => 0,
    };
    let (tensors, spec) = (checkpoint.tensors(), checkpoint.spec());
    let facts = PlanInputs { tensors, spec, text_bytes, merge_bytes, stored_text_bytes, measurements, grids };
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
