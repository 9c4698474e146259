//! Which registers can share a row.
//!
//! Compilers name a register for every value; a warp's rows for all of them would not fit into any cache. A register
//! needs its row from the first to the last instruction, in text order, at which it is live in some block of code.

use crate::instruction::{Instruction, Op, RowId};
use crate::operand::{CONSTANT, SPECIAL};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Replaces registers by slots, and numbers constants and special registers after them. Gives the number of slots.
pub(crate) fn assign(code: &mut [Instruction], registers: usize, constants: usize) -> usize {
    let spans = spans(code, registers);
    let mut order: Vec<usize> = (0..registers).filter(|register| spans[*register].is_some()).collect();
    order.sort_by_key(|register| spans[*register]);
    let (mut slot_of, mut slots) = (vec![0u32; registers], 0);
    let mut free: Vec<u32> = Vec::new();
    let mut ends: BinaryHeap<Reverse<(usize, u32)>> = BinaryHeap::new();
    for register in order {
        let Some((start, end)) = spans[register] else { continue };
        while let Some(Reverse((last, slot))) =
            ends.peek().copied().filter(|Reverse((last, _))| *last < start)
        {
            let _ = last;
            ends.pop();
            free.push(slot);
        }
        let slot = free.pop().unwrap_or_else(|| {
            slots += 1;
            slots - 1
        });
        slot_of[register] = slot;
        ends.push(Reverse((end, slot)));
    }
    for instruction in code {
        instruction.op.rows(&mut |row, _| {
            *row = RowId(match row.0 {
                special if special >= SPECIAL => slots + constants as u32 + (special - SPECIAL),
                constant if constant >= CONSTANT => slots + (constant - CONSTANT),
                register => slot_of[register as usize],
            });
        });
    }
    slots as usize
}

/// First and last instruction at which each register is live.
fn spans(code: &mut [Instruction], registers: usize) -> Vec<Option<(usize, usize)>> {
    let blocks = blocks(code);
    let words = registers.div_ceil(64);
    // registers that a block reads before it writes them, and those that it writes whatever the guard
    let mut reads = vec![vec![0u64; words]; blocks.len()];
    let mut writes = vec![vec![0u64; words]; blocks.len()];
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; registers];
    let mut extend = |register: usize, at: usize| {
        let (start, end) = spans[register].unwrap_or((at, at));
        spans[register] = Some((start.min(at), end.max(at)));
    };
    for (number, block) in blocks.iter().enumerate() {
        for (at, instruction) in code.iter_mut().enumerate().take(block.end).skip(block.start) {
            let guarded = instruction.guard.is_some();
            instruction.op.rows(&mut |row, is_written| {
                let register = row.0 as usize;
                if row.0 >= CONSTANT {
                    return;
                }
                extend(register, at);
                let (word, bit) = (register / 64, 1u64 << (register % 64));
                match is_written && !guarded {
                    true => writes[number][word] |= bit,
                    false if writes[number][word] & bit == 0 => reads[number][word] |= bit,
                    false => {}
                }
            });
        }
    }
    let mut live_in = reads.clone();
    let mut changed = true;
    while changed {
        changed = false;
        for number in (0..blocks.len()).rev() {
            for word in 0..words {
                let out = blocks[number].next.iter().fold(0, |live, next| live | live_in[*next][word]);
                let live = reads[number][word] | (out & !writes[number][word]);
                changed |= live != live_in[number][word];
                live_in[number][word] = live;
            }
        }
    }
    for (number, block) in blocks.iter().enumerate() {
        for register in 0..registers {
            let (word, bit) = (register / 64, 1u64 << (register % 64));
            if live_in[number][word] & bit != 0 {
                extend(register, block.start);
            }
            if blocks[number].next.iter().any(|next| live_in[*next][word] & bit != 0) {
                extend(register, block.end - 1);
            }
        }
    }
    spans
}

/// Code without a branch into or out of its middle.
struct Block {
    start: usize,
    end: usize,
    /// Blocks that can follow.
    next: Vec<usize>,
}

fn blocks(code: &[Instruction]) -> Vec<Block> {
    let mut starts = vec![false; code.len() + 1];
    starts[0] = true;
    for (at, instruction) in code.iter().enumerate() {
        match instruction.op {
            Op::Branch { target } => {
                starts[target.min(code.len())] = true;
                starts[at + 1] = true;
            }
            Op::Return | Op::Trap => starts[at + 1] = true,
            _ => {}
        }
    }
    let begins: Vec<usize> = (0..code.len()).filter(|at| starts[*at]).collect();
    let number = |at: usize| begins.binary_search(&at).ok();
    let mut out = Vec::with_capacity(begins.len());
    for (place, start) in begins.iter().enumerate() {
        let end = begins.get(place + 1).copied().unwrap_or(code.len());
        let last = &code[end - 1];
        let mut next = Vec::new();
        let mut falls = true;
        match last.op {
            Op::Branch { target } => {
                next.extend(number(target));
                falls = last.guard.is_some();
            }
            Op::Return | Op::Trap => falls = last.guard.is_some(),
            _ => {}
        }
        if falls {
            next.extend(number(end));
        }
        out.push(Block { start: *start, end, next });
    }
    out
}
