//! Heads.

use super::{assert_same, bell, floats};
use crate::device::Interpreter;
use gq_cuda::{CacheRows, HeadNorm, Heads, HeadsTo, Kept, Parts, define};
use half::f16;

/// Cosines and sines of some angles.
fn turns(tokens: usize, half: usize) -> [Vec<f32>; 2] {
    let angles = floats(12, tokens * half);
    [angles.iter().map(|a| (3.0 * a).cos()).collect(), angles.iter().map(|a| (3.0 * a).sin()).collect()]
}

#[test]
fn norms_and_turns() {
    // Tiny heads, one that is no multiple of 32, and the largest.
    for (index, (dim, heads, count)) in
        [(16, 3, 1), (64, 5, 2), (80, 2, 1), (512, 1, 3)].into_iter().enumerate()
    {
        let (tokens, first, eps) = (2, 32, 1e-6);
        let width = first + heads * dim + 8;
        let x = bell(index as u32, count * tokens * width);
        let weight = floats(13, dim);
        let [cos, sin] = turns(tokens, dim / 2);
        let joined = define::join_parts(&x, count);
        for (norm, turn) in [(None, false), (None, true), (Some(false), false), (Some(true), true)] {
            let mut device = Interpreter { reverse: turn, ..Interpreter::default() };
            let span = device.upload_f32(&x);
            let with = norm.unwrap_or(false).then(|| device.upload_f32(&weight));
            let (at_cos, at_sin) = (device.upload_f32(&cos), device.upload_f32(&sin));
            let y = device.allocate(4 * tokens * heads * dim);
            let kernel = Heads {
                x: Parts { span, count },
                width,
                first,
                norm: norm.map(|_| HeadNorm { weight: with, eps }),
                turns: turn.then_some([at_cos, at_sin]),
                to: HeadsTo::Rows(y),
                tokens,
                heads,
                dim,
            };
            device.run(kernel.launch());
            let mut defined = Vec::new();
            for (token, row) in joined.chunks(width).enumerate() {
                for head in row[first..first + heads * dim].chunks(dim) {
                    let norm = norm.map(|with| (with.then_some(weight.as_slice()), eps));
                    let range = token * (dim / 2)..(token + 1) * (dim / 2);
                    let turns = turn.then(|| (&cos[range.clone()], &sin[range]));
                    defined.extend(define::head(head, norm, turns));
                }
            }
            assert_same(&device.read_f32(y), &defined, &format!("{dim} {norm:?} {turn}"));
        }
    }
}

#[test]
fn caches() {
    let (tokens, heads, dim, slots) = (3, 2, 80, 4);
    let mut x = bell(4, tokens * heads * dim);
    x[..32].fill(0.0);
    x[40] = f32::INFINITY;
    x[90] = 1e30;
    // Positions go around the ring: slots 2, 3, 0; slot 1 stays as it is.
    let positions = [6u32, 7, 8];
    for kept in [Kept::F32, Kept::F16, Kept::Q8] {
        let mut device = Interpreter::default();
        let (bytes, scale_bytes) = CacheRows::bytes(kept, heads, slots, dim);
        let rows = device.upload(&vec![0x55; bytes as usize]);
        let scales = device.upload(&vec![0x55; scale_bytes as usize]);
        let cache = CacheRows { kept, rows, scales: Some(scales), slots };
        let span = device.upload_f32(&x);
        let at_positions = device.upload_u32(&positions);
        let kernel = Heads {
            x: Parts::one(span),
            width: heads * dim,
            first: 0,
            norm: None,
            turns: None,
            to: HeadsTo::Cache { cache, positions: at_positions },
            tokens,
            heads,
            dim,
        };
        device.run(kernel.launch());
        let (made, made_scales) = (device.read(rows), device.read(scales));
        let size = bytes as usize / heads / slots;
        let groups = scale_bytes as usize / heads / slots;
        for (head, slot) in (0..heads).flat_map(|head| (0..slots).map(move |slot| (head, slot))) {
            let at = head * slots + slot;
            let (row, scales) = (&made[at * size..][..size], &made_scales[at * groups..][..groups]);
            let Some(token) = positions.iter().position(|p| *p as usize % slots == slot) else {
                assert!(row.iter().chain(scales).all(|byte| *byte == 0x55));
                continue;
            };
            let head = &x[(token * heads + head) * dim..][..dim];
            let (codes, defined_scales) = define::cache_row(head);
            let defined: Vec<u8> = match kept {
                Kept::F32 => head.iter().flat_map(|x| x.to_le_bytes()).collect(),
                Kept::F16 => head.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
                Kept::Q8 => codes.iter().map(|code| *code as u8).collect(),
            };
            assert_eq!(row, defined, "{kept:?}");
            if kept == Kept::Q8 {
                let defined: Vec<u8> = defined_scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
                assert_eq!(scales, defined);
            }
        }
    }
}
