//! A checkpoint directory for transformers: written, looked at and measured.

use super::cost::{self, CostArgs};
use super::{Weights, begin, rate, rows_of, safetensors, tokens};
use crate::failure::Failure;
use crate::global::Global;
use crate::guard;
use crate::seen::{Checker, Destination, NoCheck, Seen};
use crate::source::Found;
use gq_checkpoint::gguf::GgmlType;
use gq_eval::EvalReport;

/// What is to be written, and how it is looked at.
pub struct Asked<'a> {
    /// Where it goes.
    pub destination: Destination<'a>,
    /// Most bytes of weights in one file.
    pub max_shard_bytes: u64,
    /// Whether it is looked at.
    pub no_check: NoCheck,
    /// Whether and on what it is measured.
    pub cost: &'a CostArgs,
}

/// A finished checkpoint.
pub struct Exported {
    /// Bytes of weights.
    pub weight_bytes: u64,
    /// What the export costs, or why that was not measured.
    pub cost: Result<EvalReport, String>,
    /// What was seen of it.
    pub seen: Seen,
}

/// Writes the checkpoint of `weights`, which `found` was opened as; on the threads of the current pool.
pub fn export(
    asked: &Asked<'_>,
    found: Found,
    weights: &Weights,
    global: &Global,
) -> Result<Exported, Failure> {
    let output = asked.destination.path;
    tokens::own(weights)?;
    let total = weights.tensors.iter().map(|t| 2 * t.shape.iter().product::<usize>() as u64).sum();
    let plan = asked.cost.plan(found, weights, total, global)?;
    guard::space(output, total)?;
    let kind = GgmlType::BF16;
    let targets =
        weights.tensors.iter().map(|t| rate::Target { name: &t.name, shape: rows_of(&t.shape), kind });
    let writing = rate::writing(weights, &targets.collect::<Vec<_>>(), total)?;
    let mut progress = begin(weights, writing, &plan, global)?;
    let checker = Checker::new(asked.no_check, global);
    let weight_bytes = checker.through(asked.destination, &|| weights.check_unchanged(), |path| {
        safetensors::write(weights, None, path, asked.max_shard_bytes, &mut |done| progress.set(done, ""))
    })?;
    let cost = cost::measure(plan, output, &mut progress, global);
    progress.finish();
    Ok(Exported { weight_bytes, cost, seen: checker.seen() })
}
