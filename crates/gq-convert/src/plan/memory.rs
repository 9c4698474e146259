//! How much memory an execution takes, decided before it starts.
//!
//! Counted: anonymous memory and read buffers. Not counted: pages of mapped files, and what the allocator keeps of large
//! buffers that were freed (the program has it keep none).

use super::step::Step;
use crate::round::{FACTORS, RowCoder};
use gq_codec::{TableBytes, code_of};
use gq_tensor::{Encoding, RotationKind};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of source rows worked on at once, when memory allows.
const BLOCK: u64 = 4 << 20;
/// Strips of calibrated rows in a block, when memory allows.
const STRIPS: usize = 16;
/// Smaller blocks than this only cost time.
const SMALLEST_BLOCK: u64 = 64 << 10;
/// Program, allocator slack, stacks of the threads that are not counted one by one.
const BASE: u64 = 12 << 18;
/// What a thread takes to look at values that are copied.
const COPY: u64 = 64 << 10;
/// Most that the compression of a text needs in addition to the text and its result; shorter texts need less.
const COMPRESSION: u64 = 16 << 20;
/// What a thread's heap keeps of buffers that are too small to go back to the system: one of the largest of them.
const HEAP: u64 = gq_files::MAPPED_ALONE as u64;
/// What is touched of a thread's stack, and its small allocations.
const THREAD: u64 = 144 << 10;

/// Memory of an execution, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Threads it is computed for.
    pub threads: usize,
    /// Source bytes of one block of rows, at most (one row may be larger).
    pub block: u64,
    /// Promised peak: anonymous memory plus read buffers.
    pub peak: u64,
}

/// Bytes held until the file is finished.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    /// Of texts that ride along.
    pub(crate) texts: u64,
    /// Of adapters that are merged.
    pub(crate) adapters: u64,
}

impl Memory {
    /// Memory for these steps, with the largest block that stays below `limit` where possible.
    ///
    /// Factors take `factors`, for each step those that are there while it is coded.
    pub(crate) fn new(
        steps: &[Step],
        held: Held,
        factors: &[FactorBytes],
        threads: usize,
        limit: Option<u64>,
    ) -> Memory {
        let mut block = BLOCK;
        loop {
            let peak = peak(steps, held, factors, threads, block);
            if block <= SMALLEST_BLOCK || limit.is_none_or(|limit| peak <= limit) {
                return Memory { threads, block, peak };
            }
            block /= 2;
        }
    }
}

/// Rows of `step` in one block of `block` source bytes: whole strips and heads, at least one.
pub(crate) fn block_rows(step: &Step, block: u64) -> usize {
    let rows = step.matrix().rows;
    let row = (step.source_bytes / (rows as u64).max(1)).max(1);
    let strip = step.whole_rows();
    let (fit, most) = (usize::try_from(block / row).unwrap_or(usize::MAX), rows.next_multiple_of(strip));
    // Strips of calibrated codes are a thread's work: a full block has enough for all but the largest machines.
    let fit = if step.calibrated && block == BLOCK { fit.max(STRIPS * Encoding::STRIP_ROWS) } else { fit };
    (fit / strip * strip).clamp(strip, most.max(strip))
}

fn peak(steps: &[Step], held: Held, factors: &[FactorBytes], threads: usize, block: u64) -> u64 {
    let largest = |of: &dyn Fn(&Step) -> u64| steps.iter().map(of).max().unwrap_or(0);
    // Two blocks are read ahead of the encoder, two are on their way to the file: of one tensor, where it has them. Buffers
    // keep the size of the largest.
    let two_largest = |of: &dyn Fn(&Step) -> u64| {
        steps.iter().fold((0, 0), |(first, second), step| {
            let (size, more) = (of(step), step.matrix().rows as u64 > held_rows(step, block));
            match size > first {
                true => (size, if more { size } else { first }),
                false => (first, second.max(size)),
            }
        })
    };
    let sum = |(first, second): (u64, u64)| first + second;
    let source = sum(two_largest(&|step| source_block(step, block)));
    let coded = sum(two_largest(&|step| coded_block(step, block)));
    let strips = largest(&|step| strip_block(step, block));
    // No strip waits for a factor: the next one is made when those before it are coded.
    let feedback = steps
        .iter()
        .zip(factors)
        .map(|(step, factors)| factors.making.max(factors.at_hand + calibrated(step, threads as u64)));
    let feedback = feedback.max().unwrap_or(0);
    // Scales wait for the codes.
    let scales = largest(&|step| {
        let shape = step.matrix();
        shape.rows as u64 * step.encoding.scales_row_bytes(shape.cols) as u64
    });
    // What threads' heaps keep of small buffers comes on top.
    let heaps = if feedback > 0 { (threads as u64 + 1) * HEAP } else { 0 };
    // Dense matrices are made before there are blocks.
    let tables = tables(steps);
    let work = feedback + strips + 2 * scales + heaps + source + coded;
    let blocks = tables.kept + tables.making.max(work) + threads as u64 * (largest(&scratch) + THREAD);
    // The blocks are gone when the texts are compressed.
    let texts = held.texts;
    let end = texts + COMPRESSION.min(8 * texts) + threads as u64 * THREAD;
    BASE + texts + held.adapters + blocks.max(end)
}

/// Bytes of a thread: rows on their way, and what the code takes.
fn scratch(step: &Step) -> u64 {
    let cols = step.matrix().cols;
    match code_of(step.storage()) {
        // Its strips are counted by themselves.
        Ok(code) if step.calibrated => code.scratch_bytes(cols),
        Ok(code) if !step.encoding.is_exact() => {
            RowCoder::rows_held(step.storage()) as u64 * 4 * cols as u64 + code.scratch_bytes(cols)
        }
        _ => COPY,
    }
}

/// Bytes of one, over the square of its width: U and the held-out moment in f32.
const FACTOR: u64 = 4 + 4;
/// While it is made: a moment and the elimination in f64; that and U; U, the file of the moments and the held-out one.
const FACTOR_IN_MAKING: u64 = 4 + 8;
/// And over its width: the columns that are eliminated together.
const ELIMINATED: u64 = 128 * 8;

/// Bytes of factors at most, over the square of the widest input, whatever comes after what.
const FACTORS_AT_WORK: u64 = FACTOR * (FACTORS as u64 - 1) + FACTOR_IN_MAKING;

// What calibration promises for trials, whose weights are rounded here.
const _: () = assert!(FACTORS_AT_WORK == gq_calibrate::FACTORS_AT_WORK);

/// Inputs after which it is taken not to matter where a conversion began.
const FORGOTTEN: usize = 64;

/// Bytes of factors at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FactorBytes {
    /// While one is made, of those that are at hand and of what it is made of.
    pub(crate) making: u64,
    /// While rows are coded by them.
    pub(crate) at_hand: u64,
}

impl FactorBytes {
    fn or(self, other: FactorBytes) -> FactorBytes {
        FactorBytes { making: self.making.max(other.making), at_hand: self.at_hand.max(other.at_hand) }
    }
}

/// An input whose factor a step takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FactorUse<Key> {
    /// Index of the step.
    pub(crate) step: usize,
    /// What the factor is known by.
    pub(crate) key: Key,
    /// Width of the input.
    pub(crate) width: u64,
}

/// Bytes of factors at most while each of `steps` steps is coded, for inputs in the order that they are used in. A
/// conversion that is taken up begins with any of them.
pub(crate) fn factor_bytes<Key: PartialEq>(inputs: &[FactorUse<Key>], steps: usize) -> Vec<FactorBytes> {
    let mut most = vec![FactorBytes::default(); steps];
    let mut from = |start: usize, end: usize| {
        let mut kept: VecDeque<&FactorUse<Key>> = VecDeque::new();
        for input in inputs.iter().take(end).skip(start) {
            let bytes = |kept: &VecDeque<&FactorUse<Key>>| -> u64 {
                kept.iter().map(|input| FACTOR * input.width * input.width).sum()
            };
            let mut making = 0;
            if !kept.iter().any(|other| other.key == input.key) {
                if kept.len() >= FACTORS {
                    kept.pop_front();
                }
                making = bytes(&kept) + (FACTOR_IN_MAKING * input.width + ELIMINATED) * input.width;
                kept.push_back(input);
            }
            if let Some(most) = most.get_mut(input.step) {
                *most = most.or(FactorBytes { making, at_hand: bytes(&kept) });
            }
        }
    };
    from(0, inputs.len());
    (1..inputs.len()).for_each(|start| from(start, start + FORGOTTEN));
    most
}

/// Strips with what is fed back: one for each thread, of as many as a tensor has.
fn calibrated(step: &Step, threads: u64) -> u64 {
    let code = code_of(step.storage()).ok().filter(|_| step.calibrated);
    let (shape, most) = (step.matrix(), Encoding::STRIP_ROWS);
    code.and_then(|code| code.columns()).map_or(0, |code| {
        threads.min(shape.rows.div_ceil(most) as u64) * code.strip_bytes(shape.rows.min(most), shape.cols)
    })
}

/// Rows that are coded together are held as f32; one strip's sums per 32 columns.
fn strip_block(step: &Step, block: u64) -> u64 {
    let (rows, cols) = (held_rows(step, block), step.matrix().cols as u64);
    match step.encoding.strip_rows() as u64 {
        1 => 0,
        _ if step.calibrated => 0,
        strip => rows * 4 * cols + strip * cols / 2,
    }
}

/// Rows of a block, of those that there are.
fn held_rows(step: &Step, block: u64) -> u64 {
    block_rows(step, block).min(step.matrix().rows) as u64
}

fn source_block(step: &Step, block: u64) -> u64 {
    step.source_bytes / (step.matrix().rows as u64).max(1) * held_rows(step, block)
}

fn coded_block(step: &Step, block: u64) -> u64 {
    let cols = step.matrix().cols;
    match step.encoding {
        // Blocks of a GGUF grow to values.
        Encoding::Exact(dtype) => {
            source_block(step, block).max(held_rows(step, block) * (cols * dtype.size()) as u64)
        }
        // Six f64 sums per row measure the distortion and the outputs.
        coded => held_rows(step, block) * (coded.codes_row_bytes(cols) as u64 + 48),
    }
}

/// Transforms and codes are kept for each distinct width: dense matrices in them count.
/// Bytes for good, and while one is made.
fn tables(steps: &[Step]) -> TableBytes {
    let mut seen: Vec<(usize, Option<Encoding>)> = Vec::new();
    let mut sum = TableBytes::default();
    for step in steps.iter().filter(|step| !step.encoding.is_exact()) {
        let cols = step.matrix().cols;
        let square = 4 * (cols as u64) * (cols as u64);
        let haar = match step.rotation.kind {
            // Made orthogonal in f64 before it is kept in f32.
            RotationKind::Haar => TableBytes { kept: square, making: 2 * square },
            RotationKind::None | RotationKind::Hadamard => TableBytes::default(),
        };
        let code = code_of(step.storage()).map_or(TableBytes::default(), |code| code.tables(cols));
        for (what, tables) in [(None, haar), (Some(step.encoding), code)] {
            if !seen.contains(&(cols, what)) && tables.kept > 0 {
                seen.push((cols, what));
                sum.kept += tables.kept;
                // One after the other.
                sum.making = sum.making.max(tables.making);
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_that_are_at_hand_together_are_counted() {
        let layer = |n: u64| {
            [("down", 20), ("up", 5), ("gate", 5), ("output", 16), ("query", 5)].map(|(i, w)| ((n, i), w))
        };
        // One input for both.
        let shared = |(n, input)| (n, if input == "gate" { "up" } else { input });
        let inputs = (0..3).flat_map(layer).enumerate();
        let inputs = inputs.map(|(step, (key, width))| FactorUse { step, key: shared(key), width });
        let inputs: Vec<_> = inputs.collect();
        let bytes = factor_bytes(&inputs, 15);
        // The second layer's down is made next to the first one's queries and outputs.
        assert_eq!(bytes[5].making, 20 * (20 * FACTOR_IN_MAKING + ELIMINATED) + FACTOR * (16 * 16 + 5 * 5));
        assert_eq!(bytes[5].at_hand, FACTOR * (20 * 20 + 16 * 16 + 5 * 5));
        // Its queries come after its down is gone; where a conversion is resumed at outputs, they are fewer.
        assert_eq!(bytes[9].at_hand, FACTOR * (5 * 5 + 16 * 16 + 5 * 5));
        let pair = [("a", 3), ("a", 3)].into_iter().enumerate();
        let pair: Vec<_> = pair.map(|(step, (key, width))| FactorUse { step, key, width }).collect();
        let both = FactorBytes { making: 9 * FACTOR_IN_MAKING + 3 * ELIMINATED, at_hand: 9 * FACTOR };
        assert_eq!(factor_bytes(&pair, 2), [both; 2], "the second is the first of a conversion taken up");
        let many: Vec<_> = (0..9).map(|expert| FactorUse { step: 0, key: expert, width: 7 }).collect();
        assert_eq!(factor_bytes(&many, 1)[0].making, 49 * FACTORS_AT_WORK + 7 * ELIMINATED);
        assert_eq!(factor_bytes(&[] as &[FactorUse<u8>], 1), [FactorBytes::default()]);
    }
}
