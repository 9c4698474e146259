//! Products of trellis codes.

use super::Quantized;
use crate::TrellisCode;
use half::f16;
use std::ops::Range;

/// Levels of the upper half of the codebook; the lower half is its mirror image.
#[rustfmt::skip]
const BOOK: [i32; 128] = [
    0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 7, 7, 8, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 13, 13, 14,
    14, 15, 15, 16, 16, 17, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21, 22, 22, 23, 23, 24, 24, 25, 25, 26, 26, 27, 27,
    28, 28, 29, 29, 30, 31, 31, 32, 32, 33, 33, 34, 34, 35, 36, 36, 37, 37, 38, 39, 39, 40, 41, 41, 42, 43, 43, 44,
    45, 46, 46, 47, 48, 49, 49, 50, 51, 52, 53, 54, 55, 56, 57, 57, 59, 60, 61, 62, 63, 64, 65, 67, 68, 70, 71, 73,
    75, 77, 79, 81, 83, 86, 89, 93, 97, 103, 111, 127,
];

/// The level of the state that a window of bits ends with (`formats/encodings.md`, "Trellis codes").
pub fn trellis_level(code: TrellisCode, window: u32) -> i32 {
    let mask = (1 << code.log_states) - 1;
    let index = (((window & mask).wrapping_mul(code.multiplier) & mask) >> (code.log_states - 8)) as usize;
    if index >= 128 { BOOK[index - 128] } else { -BOOK[127 - index] }
}

/// The part of a row's product that the groups of 32 columns `groups` give; `levels [cols]` are the row's.
///
/// Warp w of 8 takes groups `groups.start + w`, and every eighth from there. One token alone: of each group, columns c,
/// c + 4, … (c = 0 to 3) are exact sums of integers, each joined by one fused multiply-add, added at the end as
/// `(0 + 1) + (2 + 3)`. Several tokens: a group is one exact sum. Warps are added in order; the row's factor comes last.
pub fn trellis_product(
    scale: f16,
    levels: &[i32],
    Quantized { values, steps }: Quantized<'_>,
    groups: Range<usize>,
    alone: bool,
) -> f32 {
    let mut warps = [[0.0f32; 4]; 8];
    for (turn, group) in groups.enumerate() {
        let phases = &mut warps[turn % 8];
        let products = |of: fn(usize, usize) -> bool, phase: usize| -> i32 {
            let columns = (0..32).filter(|at| of(*at, phase)).map(|at| 32 * group + at);
            columns.map(|at| levels[at] * i32::from(values[at])).sum()
        };
        if alone {
            for (phase, sum) in phases.iter_mut().enumerate() {
                *sum = steps[group].mul_add(products(|at, phase| at % 4 == phase, phase) as f32, *sum);
            }
        } else {
            phases[0] = steps[group].mul_add(products(|_, _| true, 0) as f32, phases[0]);
        }
    }
    let of_warp = |[a, b, c, d]: [f32; 4]| if alone { (a + b) + (c + d) } else { a };
    let total = warps.map(of_warp).into_iter().reduce(|sum, warp| sum + warp).unwrap_or(0.0);
    scale.to_f32() * 0.03125 * total
}

/// The product of a row and one of many tokens: groups of 32 columns in order, each an exact sum joined by one fused
/// multiply-add; the row's factor comes last.
pub fn trellis_product_of_many(
    scale: f16,
    levels: &[i32],
    Quantized { values, steps }: Quantized<'_>,
) -> f32 {
    let groups = levels.chunks(32).zip(values.chunks(32)).zip(steps);
    let sum = groups.fold(0.0f32, |sum, ((levels, values), step)| {
        let dot: i32 = levels.iter().zip(values).map(|(level, x)| level * i32::from(*x)).sum();
        step.mul_add(dot as f32, sum)
    });
    scale.to_f32() * 0.03125 * sum
}
