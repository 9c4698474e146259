//! Choice of experts and their sum: as gq-model's `routing.rs` for a softmax, to the bit.

use super::math::exp;

/// Softmax of the scores, the `top` largest, of equals the first: `(expert, factor)` in order of experts. Factors are
/// divided by their sum in descending order and multiplied by the experts' own `scales`.
pub fn choose_experts(scores: &[f32], top: usize, scales: &[f32]) -> Vec<(u32, f32)> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut weights: Vec<f32> = scores.iter().map(|score| exp(score - largest)).collect();
    let (eights, rest) = weights.as_chunks::<8>();
    let mut lanes = [0.0f64; 8];
    for eight in eights {
        lanes.iter_mut().zip(eight).for_each(|(lane, x)| *lane += f64::from(*x));
    }
    let total = lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x)).sum::<f64>();
    let factor = (1.0 / total) as f32;
    weights.iter_mut().for_each(|weight| *weight *= factor);
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|a, b| weights[*b].total_cmp(&weights[*a]));
    order.truncate(top);
    let sum: f32 = order.iter().map(|expert| weights[*expert]).sum();
    let mut chosen: Vec<(u32, f32)> =
        order.into_iter().map(|expert| (expert as u32, weights[expert] / sum * scales[expert])).collect();
    chosen.sort_by_key(|(expert, _)| *expert);
    chosen
}

/// The sum of a token's rows times their factors, in order.
pub fn mix_experts<'a>(rows: impl IntoIterator<Item = (&'a [f32], f32)>, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    for (row, factor) in rows {
        sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * factor);
    }
    sum
}
