//! One pass over the source for several outputs: which tensors are read, and in which blocks.

use super::memory::block_rows;
use super::{Plan, Step};
use gq_checkpoint::Checkpoint;
use std::collections::HashMap;

/// A tensor that at least one of the outputs stores.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Its name.
    pub tensor: String,
    /// Rows of all its matrices.
    pub rows: usize,
    /// Bytes of a row in the source.
    pub row_bytes: usize,
    /// Rows that are cut into blocks by themselves: all of them, or those of one matrix of a stack.
    pub rows_per_matrix: usize,
    /// Rows of a block.
    pub block_rows: usize,
    /// For each output the step that stores it.
    pub steps: Vec<Option<usize>>,
}

/// The tensors of all plans, in the order of the source.
pub(crate) fn shared(plans: &[&Plan], checkpoint: &Checkpoint) -> Vec<Shared> {
    let by_name = |plan: &Plan| -> HashMap<String, usize> {
        plan.steps.iter().enumerate().map(|(index, step)| (step.tensor.clone(), index)).collect()
    };
    let by_name: Vec<_> = plans.iter().map(|plan| by_name(plan)).collect();
    let mut tensors: Vec<_> = checkpoint.tensors().iter().collect();
    tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
    let one = |name: &str| {
        let steps: Vec<Option<usize>> = by_name.iter().map(|steps| steps.get(name).copied()).collect();
        let present =
            plans.iter().zip(&steps).filter_map(|(plan, step)| Some((*plan, &plan.steps[(*step)?])));
        let present: Vec<(&Plan, &Step)> = present.collect();
        let (_, first) = present.first()?;
        let shape = first.matrix();
        // Whole units of every output, and no more than the smallest block: memory was promised for that.
        let unit = present.iter().map(|(_, step)| step.whole_rows()).fold(1, least_common_multiple);
        let fit = present.iter().map(|(plan, step)| block_rows(step, plan.memory.block)).min()?;
        // Matrices whose rows depend on each other are coded each by itself.
        let strips = present.iter().any(|(_, step)| step.encoding.strip_rows() > 1);
        Some(Shared {
            tensor: name.to_owned(),
            rows: shape.rows,
            row_bytes: (first.source_bytes / (shape.rows as u64).max(1)) as usize,
            rows_per_matrix: if strips { shape.rows_each() } else { shape.rows },
            block_rows: (fit / unit * unit).max(unit),
            steps,
        })
    };
    tensors.into_iter().filter_map(|tensor| one(&tensor.name)).collect()
}

/// Puts plans on one checkpoint together into passes over it, in order: as many in one as fit into the memory, each
/// counted as if it were alone. Without a limit one pass makes them all.
#[must_use]
pub fn passes(plans: &[Plan], max_memory: Option<u64>) -> Vec<std::ops::Range<usize>> {
    let mut passes: Vec<std::ops::Range<usize>> = Vec::new();
    let mut peak = 0u64;
    for (index, plan) in plans.iter().enumerate() {
        let together = match (passes.last(), max_memory) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(pass), Some(limit)) => {
                let first = &plans[pass.start];
                peak.saturating_add(plan.memory.peak) <= limit && same_units(first, plan)
            }
        };
        match passes.last_mut().filter(|_| together) {
            Some(pass) => (pass.end, peak) = (index + 1, peak + plan.memory.peak),
            None => {
                passes.push(index..index + 1);
                peak = plan.memory.peak;
            }
        }
    }
    passes
}

/// Whether no plan's blocks have to grow for the other's.
fn same_units(a: &Plan, b: &Plan) -> bool {
    a.steps.len() == b.steps.len()
        && a.steps.iter().zip(&b.steps).all(|(a, b)| a.tensor == b.tensor && a.whole_rows() == b.whole_rows())
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    (1..=a.max(1)).map(|n| n * b.max(1)).find(|multiple| multiple.is_multiple_of(a.max(1))).unwrap_or(a * b)
}
