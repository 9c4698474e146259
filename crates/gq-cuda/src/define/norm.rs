//! RMS norm.

use super::order::warp_sum;

/// Threads of a block.
const THREADS: usize = 256;

/// `y = x / sqrt(mean(x^2) + eps) * weight` of one row.
///
/// Squares are summed in f64: thread t of 256 takes elements t, t + 256, …; then lanes, then warps in order.
pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, eps: f32) -> Vec<f32> {
    let mut threads = [0.0f64; THREADS];
    for (i, x) in x.iter().enumerate() {
        threads[i % THREADS] += f64::from(*x) * f64::from(*x);
    }
    let warps = threads.as_chunks::<32>().0.iter().map(|lanes| warp_sum(*lanes));
    let sum = warps.reduce(|sum, warp| sum + warp).unwrap_or(0.0);
    let factor = (1.0 / (sum / x.len() as f64 + f64::from(eps)).sqrt()) as f32;
    match weight {
        Some(weight) => x.iter().zip(weight).map(|(x, weight)| x * factor * weight).collect(),
        None => x.iter().map(|x| x * factor).collect(),
    }
}
