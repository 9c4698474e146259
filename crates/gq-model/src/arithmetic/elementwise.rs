//! Operators that look at a row or an element at a time.

use super::in_pieces;
use crate::matrix::Matrix;
use crate::ops::Norm;
use gq_checkpoint::{Activation, Curve};
use gq_tensor::math;

/// `f` of every element.
pub fn map(mut x: Matrix, f: impl Fn(f32) -> f32 + Send + Sync) -> Matrix {
    in_pieces(&mut x.data, x.width, |_, part| part.iter_mut().for_each(|x| *x = f(*x)));
    x
}

/// `cap * tanh(x / cap)`.
pub fn softcap(x: Matrix, cap: f32) -> Matrix {
    map(x, |x| cap * math::tanh(x / cap))
}

fn zip(mut x: Matrix, y: &Matrix, f: impl Fn(f32, f32) -> f32 + Send + Sync) -> Matrix {
    in_pieces(&mut x.data, x.width, |first, part| {
        let others = y.data.get(first..).unwrap_or(&[]);
        part.iter_mut().zip(others).for_each(|(x, &y)| *x = f(*x, y));
    });
    x
}

/// `x + y`.
pub fn add(x: Matrix, y: &Matrix) -> Matrix {
    zip(x, y, |x, y| x + y)
}

/// [`Activation`] of a gate and an up value, element by element.
pub fn gated(activation: Activation, gate: Matrix, up: &Matrix) -> Matrix {
    let Activation { curve, limit, up_offset } = activation;
    if limit.is_none() && up_offset == 0.0 {
        // One loop for each curve: vector instructions.
        return match curve {
            Curve::Swish { alpha: 1.0 } => zip(gate, up, |gate, up| math::silu(gate) * up),
            Curve::Swish { alpha } => zip(gate, up, |gate, up| math::swish(gate, alpha) * up),
            Curve::GeluTanh => zip(gate, up, |gate, up| math::gelu_tanh(gate) * up),
            Curve::Sigmoid => zip(gate, up, |gate, up| math::sigmoid(gate) * up),
        };
    }
    zip(gate, up, |gate, up| {
        let (gate, up) = cut(limit, gate, up);
        value_and_slope(curve, gate).0 * (up + up_offset)
    })
}

/// A gate and an up value within the limit; what is no number stays none.
fn cut(limit: Option<f32>, gate: f32, up: f32) -> (f32, f32) {
    let Some(limit) = limit else { return (gate, up) };
    let gate = if gate > limit { limit } else { gate };
    let up = if up > limit { limit } else { up };
    (gate, if up < -limit { -limit } else { up })
}

/// Slopes of [`gated`] by the gate, without the factor of the up value; that factor; and by the up value.
pub fn gated_slopes(activation: Activation, gate: f32, up: f32) -> (f32, f32, f32) {
    let Activation { curve, limit, up_offset } = activation;
    let (inner_gate, inner_up) = cut(limit, gate, up);
    let (value, slope) = value_and_slope(curve, inner_gate);
    let slope = if inner_gate < gate { 0.0 } else { slope };
    let by_up = if (up - inner_up).abs() > 0.0 { 0.0 } else { value };
    (slope, inner_up + up_offset, by_up)
}

#[inline]
fn value_and_slope(curve: Curve, x: f32) -> (f32, f32) {
    match curve {
        Curve::Swish { alpha } => math::swish_and_slope(x, alpha),
        Curve::GeluTanh => math::gelu_tanh_and_slope(x),
        Curve::Sigmoid => {
            let value = math::sigmoid(x);
            (value, value * (1.0 - value))
        }
    }
}

/// `x / sqrt(mean(x^2) + eps) * weight` over every `norm.width` neighbors of a row.
pub fn rms_norm(x: &Matrix, norm: &Norm) -> Matrix {
    let mut y = x.clone();
    in_pieces(&mut y.data, norm.width, |_, part| {
        part.chunks_exact_mut(norm.width).for_each(|row| norm_row(row, norm));
    });
    y
}

fn norm_row(row: &mut [f32], norm: &Norm) {
    let mean = sum_of_squares(row) / norm.width as f64;
    let factor = (1.0 / (mean + f64::from(norm.eps)).sqrt()) as f32;
    match &norm.weight {
        Some(weight) => row.iter_mut().zip(weight).for_each(|(x, w)| *x = *x * factor * w),
        None => row.iter_mut().for_each(|x| *x *= factor),
    }
}

/// `sqrt(mean(x^2) + eps)` of every row.
pub fn root_mean_squares(x: &Matrix, eps: f32) -> Vec<f32> {
    let rows = x.data.chunks_exact(x.width.max(1));
    rows.map(|row| (sum_of_squares(row) / x.width as f64 + f64::from(eps)).sqrt() as f32).collect()
}

/// Multiplies each row by its factor.
pub fn scale_rows(x: &mut Matrix, factors: impl IntoIterator<Item = f32>) {
    let width = x.width.max(1);
    for (row, factor) in x.data.chunks_exact_mut(width).zip(factors) {
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

/// In f64 and four lanes: squares of f32 neither overflow nor lose digits.
fn sum_of_squares(row: &[f32]) -> f64 {
    let (fours, rest) = row.as_chunks::<4>();
    let mut lanes = [0.0; 4];
    for four in fours {
        for (lane, &x) in lanes.iter_mut().zip(four) {
            *lane += f64::from(x) * f64::from(x);
        }
    }
    let rest: f64 = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    lanes.iter().sum::<f64>() + rest
}
