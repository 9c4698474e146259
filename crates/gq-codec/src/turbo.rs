//! TurboQuant_mse: scalar codes of a row, rounded to nearest at a scale found by search.

use crate::{
    Codebook,
    kernel::{self, Fit},
};
use gq_tensor::Isa;
use half::f16;

/// Scales tried per group.
const TRIED: usize = 18;

/// Scales tried below 8 bits: the first and the step, as multiples of the scale that suits Gaussian rows
/// of this norm.
///
/// Rows are finite: their largest element is smaller than the Gaussian tail the codebook was made for,
/// and which scale suits it is a matter of luck. At width 576 the search lowers the error by 5 % at
/// 4 bits and 15 % at 6.
const SEARCH: (f32, f32) = (0.61, 0.03);

/// Scales tried at 8 bits: the first of `TRIED` consecutive numerators and the denominator, as parts of
/// the scale that reaches the largest element.
const CLIPS: (u16, f32) = (31, 48.0);

/// Rounds one group (a row, or 32 to 128 elements of it) and returns its scale.
///
/// `codes` receives one code per element. A group with a non-finite element is stored as scale NaN and
/// zero codes; a group too small for an fp16 scale as scale 0 and zero codes.
pub(crate) fn encode_group(level: Isa, book: Codebook, x: &[f32], codes: &mut [u8]) -> f16 {
    codes.fill(0);
    let energy = kernel::energy(level, x);
    if !energy.is_finite() {
        return f16::NAN;
    }
    let deviation = (energy / x.len().max(1) as f64).sqrt();
    let base = (deviation * book.gaussian_scale()) as f32;
    if f16::from_f32(base) == f16::ZERO {
        return f16::ZERO;
    }
    let found = best_scale(level, book, x, &candidates(level, book, x, base));
    if found == f16::ZERO {
        return f16::ZERO;
    }
    // Codes nearest at the scale found, then the scale that is best for exactly these codes.
    let fit = kernel::round(level, book, x, inverse_step(book, found.to_f32()), codes);
    least_squares(found.to_f32(), fit)
}

/// Scales to try, given the one that suits Gaussian rows of this norm.
fn candidates(level: Isa, book: Codebook, x: &[f32], base: f32) -> [f32; TRIED] {
    if book.bits() == 8 {
        let full = kernel::largest(level, x) / 127.0 / book.unit();
        let (first, parts) = CLIPS;
        return std::array::from_fn(|i| full * (f32::from(first + i as u16) / parts));
    }
    let (first, step) = SEARCH;
    std::array::from_fn(|i| base * (first + step * f32::from(i as u16)))
}

/// The least-squares scale of the candidate whose codes explain most of the energy; the first of equals.
fn best_scale(level: Isa, book: Codebook, x: &[f32], scales: &[f32; TRIED]) -> f16 {
    let inverse_steps = scales.map(|scale| inverse_step(book, scale));
    let mut fits = [Fit::default(); TRIED];
    // One magnitude: the codes do not depend on the scale.
    let tried = if book.bits() == 1 { 1 } else { TRIED };
    kernel::score(level, book, x, &inverse_steps[..tried], &mut fits[..tried]);
    let (mut best, mut best_explained) = (f16::ZERO, -1.0);
    for (&scale, &fit) in scales.iter().zip(&fits).take(tried) {
        let explained = f64::from(scale) * f64::from(scale) * fit.product * fit.product / fit.energy;
        if explained > best_explained {
            (best, best_explained) = (least_squares(scale, fit), explained);
        }
    }
    best
}

fn inverse_step(book: Codebook, scale: f32) -> f32 {
    1.0 / (scale * book.unit())
}

/// `<x, level> / <level, level>` in fp16, where `fit` is of `x` divided by the step of `scale`.
fn least_squares(scale: f32, fit: Fit) -> f16 {
    let value = f64::from(scale) * (fit.product / fit.energy);
    if fit.energy > 0.0 { to_scale(value as f32) } else { f16::ZERO }
}

/// fp16, nearest even; the largest finite value for anything larger, NaN for what is no number.
pub(crate) fn to_scale(value: f32) -> f16 {
    if value > 65504.0 { f16::MAX } else { f16::from_f32(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_where_fp16_does_and_no_number_stays_none() {
        assert_eq!(
            [1.5, 65504.0, 65505.0, 1e9, f32::INFINITY].map(to_scale).map(f16::to_f32),
            [1.5, 65504.0, 65504.0, 65504.0, 65504.0]
        );
        assert!(to_scale(f32::NAN).is_nan());
    }
}
