//! Weights of the source that already sit on a grid: a measured property that the plan reads.

use super::policy::{Choice, Policy, PolicyError, Rule};
use super::{Plan, Step};
use gq_checkpoint::{Checkpoint, ReadError, SourceTensor};
use gq_codec::on_grid;
use gq_tensor::{Encoding, Grid, Rounding};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Elements that a thread reads at once.
const BLOCK: usize = 1 << 16;

/// The smallest grid that every weight of a tensor sits on, by the tensor's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grids(BTreeMap<String, Encoding>);

/// A search that failed.
#[derive(Debug, thiserror::Error)]
pub enum GridError {
    /// The policy does not fit the tensors.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The source cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// What it would take to store without loss what a plan rounds though it sits on grids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lossless {
    /// Tensors that sit on grids and are rounded.
    pub tensors: usize,
    /// Payload bytes that their grids take beyond what the plan gives them.
    pub more_bytes: u64,
    /// Whether every tensor of this part that the plan rounds is among them.
    pub all: bool,
}

/// Grids that a policy has a use for.
enum Wanted {
    None,
    Any,
    /// Where it takes no more bytes; found up to half as many again, so that a user can be told.
    InPlaceOf(Encoding),
    Only(Encoding),
}

impl Grids {
    /// Looks for grids in the tensors where `policy` has a use for them: where one is asked for, where a budget is
    /// spent, and where it takes no more bytes than the encoding asked for, or up to half as many again: those are
    /// not used, but [`Grids::lossless`] tells of them.
    ///
    /// A few rows of each tensor are tried first; only tensors whose rows all pass are read in full, once for each
    /// grid that is tried. The outcome depends on the weights alone. `progress` gets the bytes of the tensors done.
    /// Runs on rayon's current pool.
    ///
    /// # Errors
    /// When the policy does not fit the tensors, or the source cannot be read.
    pub fn find(
        checkpoint: &Checkpoint,
        policy: &Policy,
        progress: &mut dyn FnMut(u64, &str),
    ) -> Result<Grids, GridError> {
        let mut tensors: Vec<&SourceTensor> = checkpoint.tensors().iter().collect();
        tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
        let used = tensors.iter().filter(|tensor| tensor.role.is_used());
        let names: Vec<&str> = used.map(|tensor| tensor.name.as_str()).collect();
        let rules = policy.rules(&names)?;
        let (mut found, mut bytes) = (BTreeMap::new(), 0);
        for tensor in tensors {
            if tensor.role.is_used() && tensor.shape.len() > 1 {
                let named = rules.last_match(&tensor.name).map(|rule| rule.encoding);
                let wanted = wanted(tensor, policy, named, checkpoint.spec().tied_head);
                if let Some(grid) = smallest(checkpoint, tensor, &wanted)? {
                    found.insert(tensor.name.clone(), grid);
                }
            }
            bytes += tensor.bytes;
            progress(bytes, &tensor.name);
        }
        Ok(Grids(found))
    }

    /// The grid of a tensor.
    pub fn get(&self, tensor: &str) -> Option<Encoding> {
        self.0.get(tensor).copied()
    }

    /// What storing the tensors that `part` accepts on their grids would take beyond `plan`; `None` where nothing of
    /// them that sits on a grid is rounded.
    pub fn lossless(&self, plan: &Plan, part: &dyn Fn(&Step) -> bool) -> Option<Lossless> {
        let coded = |step: &&Step| !step.encoding.is_exact() && !step.encoding.is_grid();
        let rounded = plan.steps.iter().filter(|step| part(step)).filter(coded);
        let mut sum = Lossless { tensors: 0, more_bytes: 0, all: true };
        for step in rounded {
            let shape = step.matrix();
            let bytes = |grid| shape.payload_bytes(grid);
            match self.get(&step.tensor).and_then(bytes) {
                Some(bytes) => {
                    sum.tensors += 1;
                    sum.more_bytes += bytes.saturating_sub(step.bytes);
                }
                None => sum.all = false,
            }
        }
        (sum.tensors > 0).then_some(sum)
    }

    /// Tensors and their grids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Encoding)> {
        self.0.iter().map(|(name, grid)| (name.as_str(), *grid))
    }
}

/// Whether a grid takes as few bytes as an encoding that was asked for, up to two bytes a row: one scale per row may
/// be f32 where it would be f16.
pub(crate) fn no_larger(tensor: &SourceTensor, grid: Encoding, asked: Encoding) -> bool {
    let bytes = |encoding| tensor.matrix().payload_bytes(encoding);
    matches!((bytes(grid), bytes(asked)), (Some(grid), Some(asked)) if grid <= asked + 2 * tensor.rows() as u64)
}

fn wanted(tensor: &SourceTensor, policy: &Policy, named: Option<Choice>, tied: bool) -> Wanted {
    let choice = match (named, policy.wish(tensor.role, tied)) {
        (Some(choice), _) | (None, Rule::Store(choice, _)) => choice,
        (None, Rule::Drop(_)) => return Wanted::None,
    };
    match choice {
        Choice::Grid => Wanted::Any,
        Choice::Coded(grid) if grid.is_grid() => Wanted::Only(grid),
        Choice::Exact | Choice::Coded(Encoding::Exact(_)) => Wanted::None,
        Choice::Coded(_) if named.is_some() || !policy.grids => Wanted::None,
        Choice::Coded(_) if policy.budget.is_some() => Wanted::Any,
        Choice::Coded(encoding) => Wanted::InPlaceOf(encoding),
    }
}

fn smallest(
    checkpoint: &Checkpoint,
    tensor: &SourceTensor,
    wanted: &Wanted,
) -> Result<Option<Encoding>, ReadError> {
    // Values that an adapter or a scale has changed, or that blocks of a GGUF decode to, are f32.
    let plain = (tensor.is_plain() || tensor.is_plain_stack()) && !checkpoint.is_merged(tensor);
    let Some(rounding) = Rounding::of(tensor.dtype).map(|own| if plain { own } else { Rounding::F32 }) else {
        return Ok(None);
    };
    let fits = |grid: Encoding| match grid {
        Encoding::Grid(Grid { rounding: own, .. }) => own == rounding,
        _ => true,
    };
    let bytes = |grid: Encoding| {
        let bytes = tensor.matrix().payload_bytes(grid).filter(|_| fits(grid))?;
        let taken = match wanted {
            Wanted::None => false,
            Wanted::Any => bytes < tensor.bytes.max((tensor.rows() * tensor.cols()) as u64 * 2),
            Wanted::InPlaceOf(asked) => {
                let told = tensor.matrix().payload_bytes(*asked).is_some_and(|asked| 2 * bytes <= 3 * asked);
                told || no_larger(tensor, grid, *asked)
            }
            Wanted::Only(only) => grid == *only,
        };
        taken.then_some((bytes, grid.code(), grid))
    };
    let mut grids: Vec<_> = Encoding::grids().into_iter().filter_map(bytes).collect();
    grids.sort_unstable_by_key(|(bytes, code, _)| (*bytes, *code));
    let mut grids: Vec<Encoding> = grids.into_iter().map(|(.., grid)| grid).collect();
    // Codes of the source itself: they need not be looked at.
    if tensor.is_mxfp4() && !checkpoint.is_merged(tensor) && grids.contains(&Encoding::Mxfp4) {
        return Ok(Some(Encoding::Mxfp4));
    }
    let rows = tensor.rows();
    for row in [0, rows / 2, rows.saturating_sub(1)] {
        if grids.is_empty() {
            return Ok(None);
        }
        let Some(values) = read(checkpoint, tensor, row..row + 1)? else { return Ok(None) };
        grids.retain(|&grid| on_grid(grid, &values));
    }
    let block = (BLOCK / tensor.cols().max(1)).max(1);
    for grid in grids {
        let blocks = (0..rows.div_ceil(block)).into_par_iter().with_max_len(1);
        let all = blocks.map(|index| {
            let part = index * block..((index + 1) * block).min(rows);
            let values = read(checkpoint, tensor, part).map_err(Some)?;
            let on = |values: Vec<f32>| values.chunks_exact(tensor.cols()).all(|row| on_grid(grid, row));
            // The first block that fails ends the search.
            if values.is_some_and(on) { Ok(()) } else { Err(None) }
        });
        match all.try_for_each(|outcome: Result<(), Option<ReadError>>| outcome) {
            Ok(()) => return Ok(Some(grid)),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
    }
    Ok(None)
}

/// Rows as f32; `None` where they hold what is no number, which whoever converts them will tell.
fn read(
    checkpoint: &Checkpoint,
    tensor: &SourceTensor,
    rows: Range<usize>,
) -> Result<Option<Vec<f32>>, ReadError> {
    let mut values = vec![0.0; rows.len() * tensor.cols()];
    match checkpoint.read_rows_f32(tensor, rows, &mut values) {
        Ok(()) => Ok(Some(values)),
        Err(ReadError::NotFinite { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
