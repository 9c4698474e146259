//! TurboQuant_mse: scalar codes of a row, rounded to nearest at a scale found by search.

use crate::{Codebook, kernel};
use gq_tensor::CpuLevel;
use half::f16;

/// Scales tried below 8 bits, as multiples of the scale that suits Gaussian rows of this norm.
///
/// Rows are finite: their largest element is smaller than the Gaussian tail the codebook was made for,
/// and which scale suits it is a matter of luck. At width 576 the search lowers the error by 5 % at
/// 4 bits and 15 % at 6.
const SEARCH: (f32, f32, u16) = (0.61, 0.03, 18);

/// Scales tried at 8 bits, in 32nds of the scale that reaches the largest element.
const CLIPS: std::ops::Range<u16> = 21..33;

/// Rounds one group (a row, or 32 to 128 elements of it) and returns its scale.
///
/// `codes` receives one code per element. A group with a non-finite element is stored as scale NaN and
/// zero codes; a group too small for an fp16 scale as scale 0 and zero codes.
pub(crate) fn encode_group(level: CpuLevel, book: Codebook, x: &[f32], codes: &mut [u8]) -> f16 {
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
    let found = if book.bits() == 8 { search_clips(level, book, x) } else { search(level, book, x, base) };
    if found == f16::ZERO {
        return f16::ZERO;
    }
    // Codes nearest at the scale found, then the scale that is best for exactly these codes.
    let (product, energy) = kernel::round(level, book, x, inverse_step(book, found.to_f32()), codes);
    least_squares(found.to_f32(), product, energy)
}

fn search(level: CpuLevel, book: Codebook, x: &[f32], base: f32) -> f16 {
    let (first, step, count) = SEARCH;
    let count = if book.bits() == 1 { 1 } else { count }; // one magnitude: the codes do not depend on the scale
    best_scale(level, book, x, (0..count).map(|i| base * (first + step * f32::from(i))))
}

fn search_clips(level: CpuLevel, book: Codebook, x: &[f32]) -> f16 {
    let full = kernel::largest(level, x) / 127.0 / book.unit();
    best_scale(level, book, x, CLIPS.map(|i| full * (f32::from(i) / 32.0)))
}

/// The least-squares scale of the candidate whose codes explain most of the row's energy; first of equals.
fn best_scale(level: CpuLevel, book: Codebook, x: &[f32], candidates: impl Iterator<Item = f32>) -> f16 {
    let (mut best, mut best_explained) = (f16::ZERO, -1.0);
    for scale in candidates {
        let (product, energy) = kernel::score(level, book, x, inverse_step(book, scale));
        let explained = f64::from(scale) * f64::from(scale) * product * product / energy;
        if explained > best_explained {
            (best, best_explained) = (least_squares(scale, product, energy), explained);
        }
    }
    best
}

fn inverse_step(book: Codebook, scale: f32) -> f32 {
    1.0 / (scale * book.unit())
}

/// `<x, level> / <level, level>` in fp16, given that x was divided by the step of `scale` beforehand.
fn least_squares(scale: f32, product: f64, energy: f64) -> f16 {
    let value = f64::from(scale) * (product / energy);
    if energy > 0.0 { to_scale(value as f32) } else { f16::ZERO }
}

/// fp16, nearest even; the largest finite value for anything larger.
pub(crate) fn to_scale(value: f32) -> f16 {
    f16::from_f32(value.min(65504.0))
}
