//! What codes that round column after column have alike: scales to begin with, scales to store, rows that are no numbers.

use crate::factor::Factor;
use crate::scale::to_scale;
use half::f16;
use std::borrow::Cow;

/// Numbers of rows with a value that is not finite, and the rows with zeros in place of those: fed back, such a value would
/// be in every later column.
pub(crate) fn finite_rows(rows: &[f32], width: usize) -> (Vec<usize>, Cow<'_, [f32]>) {
    if rows.iter().all(|x| x.is_finite()) {
        return (Vec::new(), Cow::Borrowed(rows));
    }
    let (mut broken, mut rows) = (Vec::new(), rows.to_vec());
    for (number, row) in rows.chunks_exact_mut(width).enumerate() {
        if row.iter().any(|x| !x.is_finite()) {
            broken.push(number);
            row.fill(0.0);
        }
    }
    (broken, Cow::Owned(rows))
}

/// Scales to round the rows of a strip at: those that suit Gaussian rows of their norms and what is fed back to them.
pub(crate) fn start_scales(
    rotated: &[f32],
    factor: &Factor,
    gaussian_scale: f64,
    inflation: f32,
) -> Vec<f32> {
    let scale =
        |row: &[f32]| Some(gaussian(row, gaussian_scale) * inflation).filter(|scale| scale.is_finite());
    rotated.chunks_exact(factor.n()).map(|row| scale(row).unwrap_or(0.0)).collect()
}

/// How much larger values are for what is fed back to them: their variance solves t = w + D t feedback.
pub(crate) fn inflation(factor: &Factor, distortion: f64) -> f32 {
    let fed_back = (distortion * factor.mean_feedback()).min(0.75);
    (1.0 / (1.0 - fed_back)).sqrt() as f32
}

/// The scale that suits Gaussian values of the same norm.
pub(crate) fn gaussian(x: &[f32], gaussian_scale: f64) -> f32 {
    let energy: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    ((energy / x.len().max(1) as f64).sqrt() * gaussian_scale) as f32
}

/// A fitted scale as it is stored: none for a row that held a value that is not finite.
pub(crate) fn stored_scale(fitted: f32, is_broken: bool) -> f16 {
    let fitted = to_scale(fitted);
    let fitted = if fitted.is_finite() { fitted } else { f16::ZERO };
    if is_broken { f16::NAN } else { fitted }
}
