//! Matrix products of a warp (`mma.sync`): D = A B + C with 16 rows and 8 columns.
//!
//! Lane `4 g + t` holds parts of rows `g` and `g + 8` of A, C and D and of column `g` of B, as "Matrix fragments for
//! mma" of the PTX ISA says.

use crate::types::{LANES, Row};
use half::{bf16, f16};

/// Kind of product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    /// m16n8k32, signed bytes, exact 32-bit sums.
    Bytes,
    /// m16n8k16, f16 to f32: products are exact, sums are rounded in an order that PTX leaves open.
    Halves,
    /// m16n8k16, bf16 to f32.
    Brains,
}

impl Product {
    /// From the parts of the opcode after `mma`.
    pub(crate) fn of(parts: &[&str]) -> Option<Product> {
        match parts {
            ["sync", "aligned", "m16n8k32", "row", "col", "s32", "s8", "s8", "s32"] => Some(Product::Bytes),
            ["sync", "aligned", "m16n8k16", "row", "col", "f32", "f16", "f16", "f32"] => {
                Some(Product::Halves)
            }
            ["sync", "aligned", "m16n8k16", "row", "col", "f32", "bf16", "bf16", "f32"] => {
                Some(Product::Brains)
            }
            _ => None,
        }
    }

    /// The fragments of D from those of A, B and C.
    pub(crate) fn apply(self, a: [&Row; 4], b: [&Row; 2], c: [&Row; 4]) -> [Row; 4] {
        let mut d = [[0; LANES]; 4];
        let per = if self == Product::Bytes { 4 } else { 2 }; // elements of a register
        for row in 0..16 {
            for column in 0..8 {
                let (lane, place) = (row % 8 * 4 + column / 2, row / 8 * 2 + column % 2);
                let mut whole = c[place][lane] as u32 as i32;
                let mut real = f64::from(f32::from_bits(c[place][lane] as u32));
                for k in 0..8 * per {
                    let (half, within) = (k / (4 * per), k % (4 * per));
                    let left = a[half * 2 + row / 8][row % 8 * 4 + within / per];
                    let right = b[half][column * 4 + within / per];
                    let (left, right) = (element(left, k % per, per), element(right, k % per, per));
                    match self {
                        Product::Bytes => {
                            whole = whole.wrapping_add(i32::from(left as i8) * i32::from(right as i8));
                        }
                        Product::Halves => {
                            real += f16::from_bits(left).to_f64() * f16::from_bits(right).to_f64()
                        }
                        Product::Brains => {
                            real += bf16::from_bits(left).to_f64() * bf16::from_bits(right).to_f64()
                        }
                    }
                }
                d[place][lane] = match self {
                    Product::Bytes => u64::from(whole as u32),
                    _ => u64::from((real as f32).to_bits()),
                };
            }
        }
        d
    }
}

/// Element `index` of a register that holds `per`.
fn element(register: u64, index: usize, per: usize) -> u16 {
    let bits = 32 / per;
    (register >> (bits * index)) as u16 & (((1u32 << bits) - 1) as u16)
}
