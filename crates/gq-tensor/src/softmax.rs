//! Softmax in one order of operations.

use crate::math;

/// Softmax in place.
pub fn softmax(scores: &mut [f32]) {
    softmax_with_sink(scores, None);
}

/// Softmax in place over the scores and one more, whose share goes to nothing.
pub fn softmax_with_sink(scores: &mut [f32], sink: Option<f32>) {
    let largest = scores.iter().copied().fold(sink.unwrap_or(f32::NEG_INFINITY), f32::max);
    scores.iter_mut().for_each(|score| *score = math::exp(*score - largest));
    let rest = sink.map_or(0.0, |sink| f64::from(math::exp(sink - largest)));
    let factor = (1.0 / (sum(scores) + rest)) as f32;
    scores.iter_mut().for_each(|score| *score *= factor);
}

/// In f64 and eight lanes.
fn sum(values: &[f32]) -> f64 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for eight in eights {
        for (lane, &x) in lanes.iter_mut().zip(eight) {
            *lane += f64::from(x);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| f64::from(x)).sum::<f64>()
}
