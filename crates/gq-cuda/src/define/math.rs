//! Elementary functions from additions, multiplications and bit patterns: those of gq-model's `math.rs`, to the bit.

const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;

/// `e^x` to 2 units in the last place; arguments are cut to [-87.3, 88.7].
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.7);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * (r * r) + r + 1.0;
    // 2^n in two steps, because 2^128 is no f32.
    let power = |n: u32| f32::from_bits(n.wrapping_add(127) << 23);
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let half = ((n as i32) >> 1) as u32;
    value * power(half) * power(n.wrapping_sub(half))
}

/// `tanh(x)` to 2e-7.
pub fn tanh(x: f32) -> f32 {
    let square = x * x;
    let small = x + x * square * (-0.333_333_34 + square * (0.133_333_34 - square * 0.053_968_254));
    let large = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    if square < 0.01 { small } else { large }
}

/// `activation(gate) * up`: SiLU, or GELU by tanh.
pub fn gated(gelu: bool, gate: f32, up: f32) -> f32 {
    let inner = if gelu { TWICE_SQRT_2_OVER_PI * (gate + 0.044_715 * gate * gate * gate) } else { gate };
    gate / (1.0 + exp(-inner)) * up
}

/// The larger one; the second where either is no number.
pub(super) fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}
