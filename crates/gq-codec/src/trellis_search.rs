//! The search of a trellis code: of all paths down the rows of one column, the one of least error.

use crate::kernel;
use crate::trellis::Trellis;
use gq_tensor::{Encoding, Isa};

/// Rows on either side of the seam that are looked at when the state in which a path starts and ends is chosen.
const SEAM_ROWS: usize = 32;

/// Targets beyond this many levels are taken as this, so that no path costs as much as [`UNREACHABLE`] states.
/// No element of a row is this far out at the row's own scale.
const TARGET_LIMIT: f32 = 1048576.0;

/// Cost of states that a path cannot start in.
const UNREACHABLE: f32 = 1e30;

/// Buffers of [`Trellis::encode_column`]; keep one per thread.
#[derive(Clone, Debug, Default)]
pub struct TrellisScratch {
    cost: Vec<f32>,
    branch: Vec<u8>,
    targets: Vec<f32>,
    weights: Vec<f32>,
    path: Vec<u16>,
}

impl Trellis {
    /// Finds the path that minimizes `sum over rows of weights (targets - levels)^2` among those that end in the
    /// state they start in (or nearly: the state is chosen by the rows around the seam).
    ///
    /// `targets`, in levels, and `weights` have one entry per row of the strip, 1 to 256.
    /// Writes [`column_bytes`](Self::column_bytes) bytes of codes and the levels. The same with every instruction set.
    /// Targets that are not finite or weights that are not in `[0, 1e6]` give some path.
    ///
    /// # Panics
    /// When lengths do not match.
    pub fn encode_column(
        &self,
        level: Isa,
        targets: &[f32],
        weights: &[f32],
        codes: &mut [u8],
        levels: &mut [f32],
        scratch: &mut TrellisScratch,
    ) {
        let rows = targets.len();
        assert!((1..=Encoding::STRIP_ROWS).contains(&rows), "rows of a strip");
        assert!(weights.len() == rows && levels.len() == rows, "one per row");
        assert_eq!(codes.len(), self.column_bytes(rows), "bytes of a column");
        // Rows that are only there to fill the last bytes weigh nothing.
        let padded = rows.next_multiple_of(8);
        let mut all_targets = std::mem::take(&mut scratch.targets);
        let mut all_weights = std::mem::take(&mut scratch.weights);
        let seam = SEAM_ROWS.min(padded);
        let len = 2 * seam + padded;
        all_targets.clear();
        all_targets.resize(len, 0.0);
        all_weights.clear();
        all_weights.resize(len, 0.0);
        // The seam, then the strip.
        for (row, (&target, &weight)) in targets.iter().zip(weights).enumerate() {
            let finite = if target.is_nan() { 0.0 } else { target.clamp(-TARGET_LIMIT, TARGET_LIMIT) };
            (all_targets[2 * seam + row], all_weights[2 * seam + row]) = (finite, weight);
        }
        for buffer in [&mut all_targets, &mut all_weights] {
            let (around, strip) = buffer.split_at_mut(2 * seam);
            around[..seam].copy_from_slice(&strip[padded - seam..]);
            around[seam..].copy_from_slice(&strip[..seam]);
        }
        // First the seam alone, free at both ends: where the best path crosses it, the strip's path starts and ends.
        self.search(level, &all_targets[..2 * seam], &all_weights[..2 * seam], None, scratch);
        let state = scratch.path[seam - 1];
        self.search(level, &all_targets[2 * seam..], &all_weights[2 * seam..], Some(state), scratch);
        (scratch.targets, scratch.weights) = (all_targets, all_weights);
        codes.fill(0);
        for (row, &state) in scratch.path.iter().enumerate() {
            put_bits(codes, row * self.bits as usize, self.bits, u32::from(state) & ((1 << self.bits) - 1));
            if let Some(level) = levels.get_mut(row) {
                *level = self.values[usize::from(state)];
            }
        }
    }

    /// Fills `scratch.path` with the states of the best path, which passes through `ends` before the first row and
    /// in the last.
    fn search(
        &self,
        level: Isa,
        targets: &[f32],
        weights: &[f32],
        ends: Option<u16>,
        scratch: &mut TrellisScratch,
    ) {
        let states = self.levels.len();
        let groups = states >> self.bits;
        scratch.cost.clear();
        match ends {
            None => scratch.cost.resize(states, 0.0),
            Some(state) => {
                scratch.cost.resize(states, UNREACHABLE);
                scratch.cost[usize::from(state)] = 0.0;
            }
        }
        scratch.branch.resize(targets.len() * groups, 0);
        let TrellisScratch { cost, branch, .. } = scratch;
        kernel::viterbi(level, self.bits, &self.values, targets, weights, cost, branch);
        let mut state = ends.map_or_else(|| first_minimum(&scratch.cost), usize::from);
        scratch.path.resize(targets.len(), 0);
        for row in (0..targets.len()).rev() {
            scratch.path[row] = state as u16;
            let group = state >> self.bits;
            let top = usize::from(scratch.branch[row * groups + group]);
            state = top * groups + group;
        }
    }
}

fn first_minimum(cost: &[f32]) -> usize {
    let mut best = 0;
    for (state, &c) in cost.iter().enumerate() {
        if c < cost[best] {
            best = state;
        }
    }
    best
}

/// Most significant bit first.
fn put_bits(codes: &mut [u8], at: usize, bits: u32, value: u32) {
    let shifted = value << (16 - bits as usize - at % 8);
    codes[at / 8] |= (shifted >> 8) as u8;
    if let Some(next) = codes.get_mut(at / 8 + 1) {
        *next |= shifted as u8;
    }
}
