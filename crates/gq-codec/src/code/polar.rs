//! PolarQuant (arXiv 2502.02617): angles of recursive polar coordinates over blocks of 16 elements,
//! and the block's norm. A reference mode.

use super::{Code, EncodeScratch, Family};
use crate::kernel;
use crate::scale::to_scale;
use crate::tables::{POLAR, PolarTable};
use gq_tensor::{CodedRows, Isa, Polar};
use half::f16;
use std::ops::Range;

/// What people read of these codes.
pub(super) const FAMILIES: &[Family] = &[Family {
    names: "polar4222, polar4322, polar5333",
    text: "PolarQuant, 3.9, 4.1 and 4.9 bits (reference mode)",
}];

/// Elements that share one radius.
const BLOCK: usize = 16;

/// The code of one setting: a table per level.
#[derive(Clone, Debug)]
pub(super) struct PolarCode {
    levels: Vec<Level>,
}

/// Angles of one level: decoded directions and the boundaries between them, as (cos, sin).
#[derive(Clone, Debug)]
struct Level {
    /// 1 to 4: there are `cols >> depth` angles.
    depth: usize,
    bits: u8,
    directions: Vec<[f32; 2]>,
    edges: Vec<[f32; 2]>,
}

impl PolarCode {
    pub(super) fn new(polar: Polar) -> PolarCode {
        let wanted = polar.level_bits().into_iter().zip(1u8..);
        let table = |(bits, level): (u8, u8)| POLAR.iter().find(|t| (t.level, t.bits) == (level, bits));
        PolarCode { levels: wanted.filter_map(table).map(Level::new).collect() }
    }

    fn encode_row(&self, x: &[f32], codes: &mut [u8], scales: &mut [u8]) {
        codes.fill(0);
        let (blocks, _) = x.as_chunks::<BLOCK>();
        for ((b, block), scale) in blocks.iter().enumerate().zip(scales.chunks_exact_mut(2)) {
            let radius = if block.iter().all(|v| v.is_finite()) {
                to_scale(self.encode_block(block, b, x.len(), codes))
            } else {
                f16::NAN
            };
            scale.copy_from_slice(&radius.to_le_bytes());
        }
    }

    /// Writes the block's angles and returns its norm.
    fn encode_block(&self, block: &[f32; BLOCK], b: usize, cols: usize, codes: &mut [u8]) -> f32 {
        let mut radii = *block;
        let (mut plane, mut len) = (0, BLOCK);
        for level in &self.levels {
            len /= 2;
            for j in 0..len {
                let (a, c) = (radii[2 * j], radii[2 * j + 1]);
                let code = if level.depth == 1 { level.circle_code(a, c) } else { level.quarter_code(a, c) };
                put(codes, 8 * plane + (b * len + j) * usize::from(level.bits), code);
                let square = f64::from(a) * f64::from(a) + f64::from(c) * f64::from(c);
                radii[j] = square.sqrt() as f32;
            }
            plane += level.plane_bytes(cols);
        }
        radii[0]
    }

    fn decode_row(&self, codes: &[u8], scales: &[u8], out: &mut [f32]) {
        let cols = out.len();
        let (blocks, _) = out.as_chunks_mut::<BLOCK>();
        let (scales, _) = scales.as_chunks::<2>();
        for ((b, block), scale) in blocks.iter_mut().enumerate().zip(scales) {
            let mut radii = [f16::from_le_bytes(*scale).to_f32(); BLOCK];
            let mut end = codes.len();
            for level in self.levels.iter().rev() {
                let plane = end - level.plane_bytes(cols);
                let len = BLOCK >> level.depth;
                let coarse = radii;
                for j in 0..len {
                    let code = get(codes, 8 * plane + (b * len + j) * usize::from(level.bits), level.bits);
                    let [cos, sin] = level.directions[usize::from(code)];
                    radii[2 * j] = coarse[j] * cos;
                    radii[2 * j + 1] = coarse[j] * sin;
                }
                end = plane;
            }
            *block = radii;
        }
    }
}

impl Code for PolarCode {
    fn distortion(&self) -> Option<f64> {
        None
    }

    fn encode(&self, _: Isa, rotated: &[f32], codes: &mut [u8], scales: &mut [u8], _: &mut EncodeScratch) {
        self.encode_row(rotated, codes, scales);
    }

    fn decode(&self, _: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]) {
        for (row, out) in rows.zip(out.chunks_exact_mut(matrix.shape().cols)) {
            let (codes, scales) = matrix.part(row..row + 1);
            self.decode_row(codes, scales, out);
        }
    }

    fn dot_f32(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        let mut decoded = vec![0.0; x.len()];
        for (row, out) in rows.zip(out) {
            self.decode(level, matrix, row..row + 1, &mut decoded);
            *out = kernel::dot(level, &decoded, x);
        }
    }
}

impl Level {
    fn new(table: &PolarTable) -> Level {
        let floats = |pairs: &[[u32; 2]]| pairs.iter().map(|pair| pair.map(f32::from_bits)).collect();
        Level {
            depth: usize::from(table.level),
            bits: table.bits,
            directions: floats(table.directions),
            edges: floats(table.edges),
        }
    }

    /// Bytes of a row's angles of this level.
    fn plane_bytes(&self, cols: usize) -> usize {
        ((cols >> self.depth) * usize::from(self.bits)).div_ceil(8)
    }

    /// The code of the direction of (x, y) with x, y >= 0: how many boundaries lie below it.
    fn quarter_code(&self, x: f32, y: f32) -> u16 {
        self.edges.iter().filter(|[cos, sin]| y * cos > x * sin).count() as u16
    }

    /// The code of any direction: its quarter of the circle, then the boundaries within the quarter.
    fn circle_code(&self, x: f32, y: f32) -> u16 {
        let (quarter, x, y) = if x > 0.0 && y >= 0.0 {
            (0, x, y)
        } else if x <= 0.0 && y > 0.0 {
            (1, y, -x)
        } else if x < 0.0 {
            (2, -x, -y)
        } else if y < 0.0 {
            (3, -y, x)
        } else {
            (0, x, y)
        };
        quarter * (self.edges.len() as u16 + 1) + self.quarter_code(x, y)
    }
}

/// Writes `code` at bit `at`, least significant bit first; the bits must be zero before.
fn put(bytes: &mut [u8], at: usize, code: u16) {
    let shifted = (code << (at % 8)).to_le_bytes();
    for (byte, part) in bytes.iter_mut().skip(at / 8).zip(shifted) {
        *byte |= part;
    }
}

/// Reads `bits <= 8` bits at bit `at`.
fn get(bytes: &[u8], at: usize, bits: u8) -> u16 {
    let byte = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let window = u16::from_le_bytes([byte(at / 8), byte(at / 8 + 1)]);
    window >> (at % 8) & ((1 << bits) - 1)
}
