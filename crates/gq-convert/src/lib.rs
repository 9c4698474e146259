//! Policy, plan, execution, journal and report of a conversion.
//!
//! [`plan`] is pure: headers and a [`Policy`] in, one step per tensor out. [`execute`] does what the plan says,
//! [`execute_all`] what several plans say in one pass over the source.
//!
//! This crate does not know the network or a terminal: progress is a callback.
#![forbid(unsafe_code)]

mod allocate;
mod calibrate;
mod calibrated;
mod effort;
mod encode;
mod error;
mod estimate;
mod execute;
mod finite;
mod grid;
mod journal;
mod memory;
mod output;
mod pass;
mod plan;
mod policy;
mod prior;
mod report;
mod rounds;
mod scales;
mod source;
mod target_kld;

pub use calibrate::{
    BuiltinError, CalibrateError, CalibrateEvent, CalibrateOptions, CalibrationInput, CalibrationText,
    Corrections, ExpertMoments, GroupTrial, InputMeasured, Measurements, MeasurementsError, MeasuringMemory,
    MeasuringSize, SequenceError, TensorMeasured, TrialOptions, WholeTrial, builtin, correct, measure,
    sequences, source_files, texts_digest,
};
pub use effort::{Amounts, Effort, Speed};
pub use encode::CoderError;
pub use error::ConvertError;
pub use estimate::Estimate;
pub use execute::{Check, CheckError, Event, ExecuteOptions, Origin, execute, execute_all};
pub use finite::{NotFinite, Side};
pub use grid::{GridError, Grids, Lossless};
pub use journal::JournalError;
pub use memory::Memory;
pub use pass::passes;
pub use plan::{Dropped, Facts, LeftOut, Plan, PlanError, Step};
pub use policy::{Budget, Calibration, Choice, Codes, Override, Policy, PolicyError, Resources};
pub use report::{Report, TensorReport};
pub use rounds::{
    RoundAgain, RoundAgainError, RoundAgainEvent, RoundAgainOptions, RoundedAgainOutcome, TensorAgain,
};
pub use scales::{ScalesError, ScalesEvent, ScalesOptions, ScalesTuned, TunedScales, tune_scales};
pub use target_kld::{TargetKld, TargetKldError, held_out_divergence};

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
        Some(Budget::FileBytes(_)) => output::stored_text_bytes(checkpoint),
        _ => 0,
    };
    let (tensors, spec) = (checkpoint.tensors(), checkpoint.spec());
    let facts = Facts { tensors, spec, text_bytes, merge_bytes, stored_text_bytes, measurements, grids };
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
