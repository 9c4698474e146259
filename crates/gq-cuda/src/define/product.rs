//! Products of plane codes and of exact weights with activations.

use super::order::warp_sum;
use crate::product::{PlaneCode, ScaleForm};
use half::f16;

/// Magnitudes of the scalar codes of 2 to 7 bits (`formats/encodings.md`).
const MAGNITUDES: [&[i32]; 8] = [
    &[],
    &[1],
    &[15, 50],
    &[10, 31, 55, 88],
    &[5, 15, 25, 36, 48, 62, 79, 104],
    &[3, 8, 13, 18, 23, 28, 34, 40, 46, 53, 60, 68, 77, 88, 102, 124],
    &[
        68, 205, 343, 480, 619, 758, 899, 1041, 1185, 1330, 1478, 1629, 1783, 1940, 2101, 2266, 2437, 2613,
        2796, 2987, 3186, 3397, 3620, 3858, 4116, 4397, 4708, 5061, 5473, 5975, 6636, 7668,
    ],
    &[
        17, 52, 86, 121, 155, 190, 225, 259, 294, 329, 364, 400, 435, 471, 507, 543, 579, 615, 652, 689, 726,
        764, 802, 840, 879, 918, 958, 998, 1039, 1080, 1122, 1164, 1207, 1251, 1296, 1341, 1387, 1435, 1483,
        1532, 1583, 1635, 1689, 1744, 1800, 1859, 1920, 1983, 2049, 2117, 2189, 2265, 2345, 2431, 2522, 2620,
        2728, 2846, 2979, 3131, 3309, 3530, 3825, 4290,
    ],
];

/// Twice the magnitudes of four-bit floats.
const FLOATS: [i32; 8] = [0, 1, 2, 3, 4, 6, 8, 12];

/// The integer that a code stands for.
pub fn plane_level(code: PlaneCode, value: u8) -> i32 {
    let signed = |magnitudes: &[i32], bits: u8| {
        let sign_bit = 1 << (bits - 1);
        let magnitude = magnitudes.get(usize::from(value & (sign_bit - 1))).copied().unwrap_or(0);
        if value & sign_bit == 0 { magnitude } else { -magnitude }
    };
    let extended = |bits: u32| i32::from(value) << (32 - bits) >> (32 - bits);
    match code {
        PlaneCode::Scalar(8) => extended(8),
        PlaneCode::Scalar(bits) => signed(MAGNITUDES[usize::from(bits)], bits),
        PlaneCode::Mxfp4 => signed(&FLOATS, 4),
        PlaneCode::Grid(bits) => extended(bits.into()),
        PlaneCode::GridFromMinimum(_) => i32::from(value),
    }
}

/// What levels of a group are multiplied by, and what is added then.
#[derive(Clone, Copy)]
struct Step {
    scale: f32,
    minimum: f32,
}

/// Scale and minimum of group `group` of row `row`, whole rows aside.
fn step(form: ScaleForm, scales: &[u8], row: usize, group: usize, groups: usize) -> Step {
    let at = row * groups + group;
    let half = |at: usize| f16::from_le_bytes([scales[2 * at], scales[2 * at + 1]]).to_f32();
    let single = |at: usize| f32::from_le_bytes(std::array::from_fn(|byte| scales[4 * at + byte]));
    let (scale, minimum) = match form {
        ScaleForm::GroupHalf { shift } => (half(at >> shift), 0.0),
        ScaleForm::GroupHalves => (half(2 * at), half(2 * at + 1)),
        ScaleForm::GroupFloats => (single(2 * at), single(2 * at + 1)),
        ScaleForm::GroupExponent => match scales[at] {
            255 => (f32::NAN, 0.0),
            0 => (f32::from_bits(0x0040_0000), 0.0),
            exponent => (f32::from_bits(u32::from(exponent) << 23), 0.0),
        },
        ScaleForm::RowHalf | ScaleForm::RowFloat => (1.0, 0.0),
    };
    Step { scale, minimum }
}

fn row_factor(form: ScaleForm, scales: &[u8], row: usize, unit: f32) -> f32 {
    match form {
        ScaleForm::RowHalf => f16::from_le_bytes([scales[2 * row], scales[2 * row + 1]]).to_f32() * unit,
        ScaleForm::RowFloat => f32::from_le_bytes(std::array::from_fn(|byte| scales[4 * row + byte])) * unit,
        _ => unit,
    }
}

/// Activations of one token in int8.
#[derive(Clone, Copy)]
pub struct Quantized<'a> {
    /// A value for each column.
    pub values: &'a [i8],
    /// What 32 values one after the other are multiplied by.
    pub steps: &'a [f32],
}

/// What a group of 32 elements adds to a sum.
fn with_group(
    code: PlaneCode,
    Step { scale, minimum }: Step,
    levels: &[i32],
    values: &[i8],
    x_step: f32,
    sum: f32,
) -> f32 {
    let dot: i32 = levels.iter().zip(values).map(|(level, x)| level * i32::from(*x)).sum();
    match code {
        PlaneCode::GridFromMinimum(_) => {
            let total: i32 = values.iter().map(|x| i32::from(*x)).sum();
            x_step.mul_add(minimum.mul_add(total as f32, scale * dot as f32), sum)
        }
        _ => (scale * x_step).mul_add(dot as f32, sum),
    }
}

/// The product of row `row` and int8 activations of one of up to eight tokens: `levels [cols]` are the row's.
///
/// Lane l of the row's `split` warps takes groups of 32 elements l, l + 32 split, …: exact integer sums of a group, joined
/// by one fused multiply-add. Lanes are added as a warp does, warps in order, and the factor comes last.
pub fn plane_product(
    code: PlaneCode,
    form: ScaleForm,
    scales: &[u8],
    row: usize,
    levels: &[i32],
    Quantized { values, steps }: Quantized<'_>,
    split: usize,
) -> f32 {
    let groups = steps.len();
    let mut lanes = vec![[0.0f32; 32]; split];
    let pairs = levels.chunks(32).zip(values.chunks(32)).zip(steps);
    for (group, ((levels, values), x_step)) in pairs.enumerate() {
        let sum = &mut lanes[group / 32 % split][group % 32];
        let step = step(form, scales, row, group, groups);
        *sum = with_group(code, step, levels, values, *x_step, *sum);
    }
    let warps = lanes.into_iter().map(warp_sum);
    let sum = warps.reduce(|sum, warp| sum + warp).unwrap_or(0.0);
    row_factor(form, scales, row, code.unit()) * sum
}

/// The same of one of many tokens: groups in order.
pub fn plane_product_of_many(
    code: PlaneCode,
    form: ScaleForm,
    scales: &[u8],
    row: usize,
    levels: &[i32],
    Quantized { values, steps }: Quantized<'_>,
) -> f32 {
    let groups = levels.chunks(32).zip(values.chunks(32)).zip(steps).enumerate();
    let sum = groups.fold(0.0, |sum, (group, ((levels, values), x_step))| {
        let step = step(form, scales, row, group, steps.len());
        with_group(code, step, levels, values, *x_step, sum)
    });
    row_factor(form, scales, row, code.unit()) * sum
}

/// The product of an exact row and f32 activations: lane l of the row's `split` warps takes four elements from `4 l` on,
/// and every `128 split` from there, in fused multiply-adds; then lanes, then warps in order.
pub fn exact_product(weights: &[f32], x: &[f32], split: usize) -> f32 {
    let mut lanes = vec![[0.0f32; 32]; split];
    for (quad, (weights, x)) in weights.chunks(4).zip(x.chunks(4)).enumerate() {
        let sum = &mut lanes[quad / 32 % split][quad % 32];
        *sum = weights.iter().zip(x).fold(*sum, |sum, (w, x)| w.mul_add(*x, sum));
    }
    lanes.into_iter().map(warp_sum).reduce(|sum, warp| sum + warp).unwrap_or(0.0)
}
