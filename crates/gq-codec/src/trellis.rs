//! Trellis codes: a bitshift trellis over an integer codebook (QTIP, arXiv 2406.11235, section 3), run down the
//! rows of one column of a strip. `formats/encodings.md` is the definition.
//!
//! The state after a row is the last L code bits; its level is a Gaussian quantile picked by the upper byte of
//! `state * multiplier mod 2^L`. The multiplication permutes the states, so every level is picked equally often,
//! and the branches out of a state land on well-spread levels.

use crate::kernel;
use gq_tensor::{Encoding, Isa, States};

/// Rows on either side of the seam that are looked at when the state in which a path starts and ends is chosen.
const SEAM_ROWS: usize = 32;

/// Targets beyond this many levels are taken as this, so that no path costs as much as [`UNREACHABLE`] states.
/// No element of a row is this far out at the row's own scale.
const TARGET_LIMIT: f32 = 1048576.0;

/// Cost of states that a path cannot start in.
const UNREACHABLE: f32 = 1e30;

/// Levels of the upper half of the codebook: `round(127 * z((i + 128.5) / 256) / z(255.5 / 256))`, z the normal
/// quantile; the lower half is its mirror image.
#[rustfmt::skip]
pub(crate) const MAGNITUDES: [i8; 128] = [
    0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 7,
    7, 8, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 13, 13, 14,
    14, 15, 15, 16, 16, 17, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21,
    22, 22, 23, 23, 24, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29,
    30, 31, 31, 32, 32, 33, 33, 34, 34, 35, 36, 36, 37, 37, 38, 39,
    39, 40, 41, 41, 42, 43, 43, 44, 45, 46, 46, 47, 48, 49, 49, 50,
    51, 52, 53, 54, 55, 56, 57, 57, 59, 60, 61, 62, 63, 64, 65, 67,
    68, 70, 71, 73, 75, 77, 79, 81, 83, 86, 89, 93, 97, 103, 111, 127,
];

/// A trellis with its tables.
#[derive(Clone, Debug)]
pub struct Trellis {
    pub(crate) bits: u32,
    pub(crate) log_states: u32,
    pub(crate) multiplier: u16,
    pub(crate) magnitudes: [i8; 128],
    /// Level of every state.
    pub(crate) levels: Vec<i8>,
    values: Vec<f32>,
    numbers: Numbers,
}

/// What was searched for, and what it achieves.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    multiplier: u16,
    /// Standard deviation, in levels, that rows should have.
    deviation: f64,
    /// Mean squared error of N(0, 1).
    distortion: f64,
}

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
    /// Value of a level in units of a row's scale.
    pub const UNIT: f32 = 1.0 / 32.0;

    /// The trellis of an encoding; `None` for other encodings.
    pub fn of(encoding: Encoding) -> Option<Trellis> {
        let Encoding::Trellis { bits, states } = encoding else { return None };
        let numbers = numbers(bits, states)?;
        Some(Trellis::build(bits, states, MAGNITUDES, numbers))
    }

    /// A trellis that no encoding has: for searching.
    ///
    /// `magnitudes` are the levels of the upper half of the codebook, not negative; `deviation` is the standard
    /// deviation, in levels, that rows are to have.
    pub fn experimental(
        bits: u8,
        states: States,
        multiplier: u16,
        magnitudes: [i8; 128],
        deviation: f64,
    ) -> Trellis {
        Trellis::build(bits, states, magnitudes, Numbers { multiplier, deviation, distortion: f64::NAN })
    }

    fn build(bits: u8, states: States, magnitudes: [i8; 128], numbers: Numbers) -> Trellis {
        let (log_states, multiplier) = (states.log2(), numbers.multiplier);
        let level = |state: u32| {
            let mixed = state.wrapping_mul(multiplier.into()) & ((1 << log_states) - 1);
            let index = (mixed >> (log_states - 8)) as usize;
            if index < 128 { -magnitudes[127 - index] } else { magnitudes[index - 128] }
        };
        let levels: Vec<i8> = (0..1 << log_states).map(level).collect();
        let values = levels.iter().map(|&level| f32::from(level)).collect();
        Trellis { bits: bits.into(), log_states, multiplier, magnitudes, levels, values, numbers }
    }

    /// Bits per element.
    pub fn bits(&self) -> usize {
        self.bits as usize
    }

    /// What states are multiplied by to choose their levels.
    pub fn multiplier(&self) -> u16 {
        self.multiplier
    }

    /// Level of every state.
    pub fn levels(&self) -> &[i8] {
        &self.levels
    }

    /// Scale of least error for rows of standard deviation 1.
    pub fn gaussian_scale(&self) -> f64 {
        1.0 / (self.numbers.deviation * f64::from(Self::UNIT))
    }

    /// Mean squared error of N(0, 1) at [`gaussian_scale`](Self::gaussian_scale).
    pub fn distortion(&self) -> f64 {
        self.numbers.distortion
    }

    /// Bytes of one column of a strip of `rows` rows: 8 rows fill whole bytes, and fewer take as much.
    pub fn column_bytes(&self, rows: usize) -> usize {
        rows.div_ceil(8) * self.bits as usize
    }

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

/// Found by `examples/trellis_search.rs`.
fn numbers(bits: u8, states: States) -> Option<Numbers> {
    let (multiplier, deviation, distortion) = match (states, bits) {
        (States::S10, 2) => (0x109, 41.424, 0.072514),
        (States::S10, 3) => (0x083, 39.963, 0.018611),
        (States::S10, 4) => (0x03D, 37.461, 0.004865),
        (States::S10, 5) => (0x2A1, 34.875, 0.001318),
        (States::S10, 6) => (0x21F, 31.752, 0.000376),
        (States::S12, 2) => (0xBD9, 42.269, 0.070781),
        (States::S12, 3) => (0xDF5, 40.796, 0.018001),
        (States::S12, 4) => (0x107, 37.491, 0.004679),
        (States::S12, 5) => (0x981, 35.586, 0.001255),
        (States::S12, 6) => (0x33F, 31.752, 0.000358),
        (States::S14, 2) => (0x0FA1, 42.320, 0.070078),
        (States::S14, 3) => (0x37A1, 40.796, 0.017684),
        (States::S14, 4) => (0x2961, 38.211, 0.004597),
        (States::S14, 5) => (0x0A01, 34.889, 0.001235),
        (States::S14, 6) => (0x3501, 31.752, 0.000347),
        _ => return None,
    };
    Some(Numbers { multiplier, deviation, distortion })
}
