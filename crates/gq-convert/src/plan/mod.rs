//! Policy and facts in, one step per tensor out: pure, printable, and the whole truth about what will be written.

mod allocate;
mod default_sensitivities;
mod effort;
mod error;
mod estimate;
mod greedy;
mod grid;
mod memory;
mod passes;
mod policy;
mod step;

pub(crate) use allocate::predicted;
pub use effort::{Amounts, Effort, Multiplications, Speed};
pub use error::PlanError;
pub use estimate::Estimate;
pub use grid::{GridError, Grids, Lossless};
pub use memory::Memory;
pub use passes::passes;
pub(crate) use passes::{Shared, shared};
pub use policy::{Budget, Calibration, Choice, Codes, Override, Policy, PolicyError, Resources};
pub use step::{Dropped, LeftOut, Step};

use crate::round;
use allocate::{BUDGET, Spending, allocate, expected_divergence};
pub(crate) use default_sensitivities::default_sensitivities;
use gq_calibrate::Measurements;
use gq_checkpoint::{ModelSpec, Role, SourceTensor, When};
use gq_codec::Rotation;
use gq_tensor::{Encoding, MatrixShape, RotationKind, RotationSpec};
pub(crate) use greedy::{Choices, hull, spend};
use grid::no_larger;
use memory::{FactorUse, Held, factor_bytes};
use policy::Rule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::collections::HashSet;

/// A conversion, decided.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The recipe it follows.
    pub policy: Policy,
    /// Tensors kept, in the order of the source's files.
    pub steps: Vec<Step>,
    /// Tensors left out.
    pub dropped: Vec<Dropped>,
    /// The same, summed up by reason.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
    /// Bytes of all tensors of the source: kept and left out.
    pub source_bytes: u64,
    /// Bytes of all payloads, alignment aside.
    pub payload_bytes: u64,
    /// Divergence from the original that measurements lead to expect, in nats per token; of the tensors measured.
    /// `None` without measurements, and where one of those tensors is in an encoding whose error is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_divergence: Option<f64>,
    /// Whether trials have corrected that.
    #[serde(default)]
    pub corrected: bool,
    /// Memory the execution needs.
    pub memory: Memory,
}

/// What the plan is made from: no weights, no paths.
#[derive(Clone, Copy, Debug)]
pub struct PlanInputs<'a> {
    /// Every tensor of the source.
    pub tensors: &'a [SourceTensor],
    /// The graph they belong to.
    pub spec: &'a ModelSpec,
    /// Bytes of the texts that ride along, held in memory until the file is finished.
    pub text_bytes: u64,
    /// Bytes that merging adapters takes in memory.
    pub merge_bytes: u64,
    /// Bytes of the texts as they will be stored, when a budget counts them.
    pub stored_text_bytes: u64,
    /// Measurements on this source; the policy names them.
    pub measurements: Option<&'a Measurements>,
    /// Grids that weights of this source sit on.
    pub grids: Option<&'a Grids>,
}

/// Stored bytes of provenance and report in addition to their lines per tensor, at most.
const REPORT_BYTES: u64 = 8 << 10;
/// Stored bytes of one tensor's part of the report, at most.
const REPORT_TENSOR_BYTES: u64 = 160;

impl Plan {
    /// Tensors of which measurements would decide nothing: they are stored without loss whatever is measured, or their
    /// codes are not rounded by it. Of a budget that grids compete for, nothing is certain unless it has room for all.
    pub fn certain(&self) -> BTreeSet<String> {
        if self.is_lossless() {
            return self.steps.iter().map(|step| step.tensor.clone()).collect();
        }
        let certain = |step: &&Step| match (self.policy.budget, step.encoding) {
            (_, Encoding::Exact(_)) => true,
            (None, encoding) => !round::rounds_columns(encoding),
            (Some(Budget::MeanBits { .. }), encoding) => {
                encoding.is_grid() && takes_few_bits(step, step.bytes)
            }
            (Some(Budget::FileBytes(_) | Budget::BodyBits(_) | Budget::Divergence(_)), _) => false,
        };
        self.steps.iter().filter(certain).map(|step| step.tensor.clone()).collect()
    }

    /// Whether every tensor is stored without loss: nothing could be closer, whatever is measured.
    pub fn is_lossless(&self) -> bool {
        let lossless = |step: &Step| matches!(step.encoding, Encoding::Exact(_)) || step.encoding.is_grid();
        self.steps.iter().all(lossless)
    }

    /// Decides every tensor's fate. Nothing is read or written.
    ///
    /// # Errors
    /// When the policy does not fit the tensors, or the peak memory exceeds the limit.
    pub fn new(facts: PlanInputs<'_>, policy: &Policy, resources: Resources) -> Result<Plan, PlanError> {
        let mut tensors: Vec<&SourceTensor> = facts.tensors.iter().collect();
        tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
        // Overrides are about the language model: what it does not compute with is dropped or carried whole.
        let used = tensors.iter().filter(|tensor| tensor.role.is_used());
        let names: Vec<&str> = used.map(|tensor| tensor.name.as_str()).collect();
        let rules = policy.rules(&names)?;
        let (mut steps, mut dropped) = (Vec::new(), Vec::new());
        for tensor in &tensors {
            let grid = facts.grids.and_then(|grids| grids.get(&tensor.name));
            let mut free = policy.grids && policy.budget.is_none();
            let wish = match rules.last_match(&tensor.name).filter(|_| tensor.role.is_used()) {
                Some(rule) => {
                    free = false;
                    Rule::Store(rule.encoding, format!("override {:?}", rule.pattern))
                }
                None if reads_other_cache(tensor, facts.spec) => {
                    Rule::Drop("keys and values are another layer's".to_owned())
                }
                None => policy.wish(tensor.role, facts.spec.tied_head),
            };
            match wish {
                Rule::Store(choice, reason) => {
                    steps.push(step(tensor, choice, reason, policy.rotation(), grid, free)?);
                }
                Rule::Drop(reason) => {
                    dropped.push(Dropped { tensor: tensor.name.clone(), source_bytes: tensor.bytes, reason })
                }
            }
        }
        if let Some(measurements) = facts.measurements {
            for step in &mut steps {
                let measured =
                    measurements.tensors.get(&step.tensor).is_some_and(|tensor| !tensor.inputs.is_empty());
                step.calibrated = measured && round::rounds_columns(step.encoding);
            }
        }
        if let Some(budget) = policy.budget {
            let assumed;
            let measurements = match (facts.measurements, budget) {
                (Some(measurements), _) => measurements,
                // A divergence is promised by measurements alone.
                (None, Budget::Divergence(_)) => return Err(PlanError::NotMeasured),
                (None, _) => {
                    assumed = default_sensitivities(tensors.iter().copied(), facts.spec.tied_head);
                    &assumed
                }
            };
            // What the source has in four bits already is not rounded for any budget.
            let coded: HashSet<&str> =
                tensors.iter().filter(|t| t.is_mxfp4()).map(|tensor| tensor.name.as_str()).collect();
            let keeps = |step: &Step| {
                matches!(budget, Budget::MeanBits { .. }) || coded.contains(step.tensor.as_str())
            };
            let named = |step: &Step| rules.last_match(&step.tensor).is_some();
            let kept = steps.iter_mut().filter(|step| !named(step) && keeps(step));
            kept.for_each(|step| keep_grid(step, facts.grids));
            let takes_part = |step: &Step| {
                let kept = keeps(step) && step.encoding.is_grid();
                rules.last_match(&step.tensor).is_none() && !kept && !step.encoding.is_exact()
            };
            let free = |step: &Step| takes_part(step) && measurements.tensors.contains_key(&step.tensor);
            let names = steps.iter().map(|step| (step.tensor.as_str(), 0));
            let tables = gq_container::layout::file_bytes(names, []).unwrap_or(u64::MAX);
            let lines = (steps.len() + dropped.len() + policy.overrides.len()) as u64;
            let texts = facts.stored_text_bytes + REPORT_BYTES + REPORT_TENSOR_BYTES * lines;
            let spending = Spending {
                budget,
                codes: policy.codes,
                fixed_bytes: tables.saturating_add(texts),
                takes_part: &takes_part,
                free: &free,
                grids: facts.grids,
            };
            allocate(&mut steps, measurements, &spending)?;
            if facts.measurements.is_none() {
                let by_role = |step: &&mut Step| !step.encoding.is_grid() && step.reason.starts_with(BUDGET);
                steps.iter_mut().filter(by_role).for_each(|step| {
                    step.reason = format!("{BUDGET} by its role, not measured");
                });
            }
        }
        for step in steps.iter_mut().filter(|step| step.calibrated) {
            let seen = facts.measurements.and_then(|measurements| measurements.expert_tokens(&step.tensor));
            step.reason += &seen.map_or_else(String::new, |seen| tokens_per_expert(&seen));
        }
        // Sparse files may claim more together than 64 bits hold.
        let source_bytes = tensors.iter().map(|tensor| tensor.bytes).fold(0, u64::saturating_add);
        let payload_bytes = steps.iter().map(|step| step.bytes).fold(0, u64::saturating_add);
        // In the order of the steps, which is that of their execution.
        let calibrated = steps.iter().enumerate().filter(|(_, step)| step.calibrated);
        let inputs = calibrated.flat_map(|(index, step)| {
            let measured = facts.measurements.and_then(|measurements| measurements.tensors.get(&step.tensor));
            let inputs = measured.into_iter().flat_map(|measured| &measured.inputs);
            let width = step.matrix().cols as u64;
            inputs.map(move |input| FactorUse { step: index, key: (input, step.rotation), width })
        });
        let inputs: Vec<_> = inputs.collect();
        let memory = Memory::new(
            &steps,
            Held { texts: facts.text_bytes, adapters: facts.merge_bytes },
            &factor_bytes(&inputs, steps.len()),
            resources.threads,
            resources.max_memory,
        );
        if let Some(limit) = resources.max_memory.filter(|limit| memory.peak > *limit) {
            return Err(PlanError::Memory { limit, actual: memory.peak });
        }
        let expected_divergence =
            facts.measurements.and_then(|measurements| expected_divergence(measurements, &steps));
        Ok(Plan {
            policy: policy.clone(),
            steps,
            left_out: LeftOut::sums(&dropped),
            dropped,
            source_bytes,
            payload_bytes,
            expected_divergence,
            corrected: facts.measurements.is_some_and(|measurements| measurements.corrections.is_some()),
            memory,
        })
    }
}

/// Whether a matrix without loss is worth so many bytes.
fn takes_few_bits(step: &Step, bytes: u64) -> bool {
    8.0 * bytes as f64 <= Budget::LOSSLESS_BITS * step.elements() as f64
}

/// Puts a matrix on its grid, where that takes few bits.
fn keep_grid(step: &mut Step, grids: Option<&Grids>) {
    let Some(grid) = grids.and_then(|grids| grids.get(&step.tensor)).filter(|_| !step.encoding.is_exact())
    else {
        return;
    };
    if let Some(bytes) = step.matrix().payload_bytes(grid).filter(|bytes| takes_few_bits(step, *bytes)) {
        (step.encoding, step.rotation, step.bytes, step.calibrated) =
            (grid, RotationSpec::NONE, bytes, false);
        step.reason = format!("{BUDGET} on this grid already, no loss");
    }
}

/// What experts saw, in words, from their tokens in ascending order.
fn tokens_per_expert(seen: &[usize]) -> String {
    let [least, .., most] = seen else { return String::new() };
    let none = match seen.iter().take_while(|tokens| **tokens == 0).count() {
        0 => String::new(),
        none => format!(", {none} of {} experts saw none", seen.len()),
    };
    format!("; tokens per expert {least} to {most}, median {}{none}", seen[seen.len() / 2])
}

/// Whether a tensor would make keys or values for a layer that reads another's.
fn reads_other_cache(tensor: &SourceTensor, spec: &ModelSpec) -> bool {
    let layer = tensor.layer.and_then(|layer| spec.layers.get(layer));
    let shared = layer.is_some_and(|layer| layer.attention.kv_shared_with.is_some());
    let declared = spec.declaration(&tensor.name).map(|(declared, _)| declared);
    shared && declared.is_some_and(|declared| declared.when.contains(&When::OwnCache))
}

fn step(
    tensor: &SourceTensor,
    choice: Choice,
    reason: String,
    rotation: RotationSpec,
    grid: Option<Encoding>,
    free: bool,
) -> Result<Step, PlanError> {
    let name = || tensor.name.clone();
    let shape: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
    let unshaped = || PlanError::Shape { tensor: name(), actual: shape.clone() };
    if !tensor.dtype.is_float() {
        return Err(PlanError::NotFloat { tensor: name(), actual: tensor.dtype });
    }
    if shape.contains(&0) {
        return Err(unshaped());
    }
    let exact = Encoding::Exact(tensor.dtype);
    let (encoding, reason) = match choice {
        Choice::Exact => (exact, reason),
        Choice::Coded(Encoding::Exact(dtype)) if dtype == tensor.dtype => (exact, reason),
        Choice::Coded(Encoding::Exact(limit)) => {
            return Err(PlanError::NotSourceDtype { tensor: name(), limit, actual: tensor.dtype });
        }
        Choice::Grid => match (grid, obstacle(tensor, Encoding::Mxfp4, RotationSpec::NONE)?) {
            (_, Some(obstacle)) => (exact, format!("kept exactly: {obstacle}")),
            (Some(grid), None) => (grid, format!("{reason}: on this grid already, no loss")),
            (None, None) => {
                return Err(PlanError::OffGrid {
                    tensor: name(),
                    limit: "any grid".to_owned(),
                    actual: None,
                });
            }
        },
        Choice::Coded(asked) if asked.is_grid() => match obstacle(tensor, asked, RotationSpec::NONE)? {
            Some(obstacle) => (exact, format!("kept exactly: {obstacle}")),
            None if grid == Some(asked) => (asked, reason),
            None => return Err(PlanError::OffGrid { tensor: name(), limit: asked.name(), actual: grid }),
        },
        Choice::Coded(coded) => match (obstacle(tensor, coded, rotation)?, grid.filter(|_| free)) {
            (None, Some(grid)) if no_larger(tensor, grid, coded) => {
                (grid, format!("{reason}: on this grid already, no loss and no more bytes than {coded}"))
            }
            (None, _) => (coded, reason),
            (Some(obstacle), _) => (exact, format!("kept exactly: {obstacle}")),
        },
    };
    if tensor.scaled && encoding.is_exact() {
        return Err(PlanError::Scaled { tensor: name(), actual: tensor.dtype, reason });
    }
    let rotation = if encoding.is_exact() || encoding.is_grid() { RotationSpec::NONE } else { rotation };
    let mut step = Step {
        tensor: name(),
        role: tensor.role.to_string(),
        shape: shape.clone(),
        source_dtype: tensor.dtype,
        source_bytes: tensor.bytes,
        encoding,
        rotation,
        bytes: 0,
        reason,
        body: !matches!(tensor.role, Role::Embedding | Role::Head | Role::PerLayerTable | Role::Tower),
        calibrated: false,
        row_unit: tensor.row_unit(),
    };
    let matrix = MatrixShape::of_tensor(&step.shape);
    step.bytes = matrix.and_then(|matrix| matrix.payload_bytes(encoding)).ok_or_else(unshaped)?;
    Ok(step)
}

/// Why a tensor cannot be coded so, if it cannot. A dense rotation is asked for by name, so its limits are errors.
fn obstacle(
    tensor: &SourceTensor,
    encoding: Encoding,
    rotation: RotationSpec,
) -> Result<Option<String>, PlanError> {
    let cols = match *tensor.shape {
        [] => return Ok(Some("scalar".to_owned())),
        [_] => return Ok(Some("vector".to_owned())),
        [.., cols] => cols,
    };
    if !encoding.supports_cols(cols) {
        return Ok(Some(format!("width {cols} is not a multiple of {}", encoding.width_multiple())));
    }
    match Rotation::check(rotation, cols) {
        Ok(()) => Ok(None),
        Err(source) if rotation.kind == RotationKind::Haar => {
            Err(PlanError::Rotation { tensor: tensor.name.clone(), source })
        }
        Err(obstacle) => Ok(Some(obstacle.to_string())),
    }
}
