//! Attention of one query head.

use super::math::{exp, larger, tanh};
use super::order::warp_sum;

/// Positions that are looked at together.
const TILE: usize = 32;

/// What scores become before they are compared.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// Factor on products.
    pub scale: f32,
    /// `cap * tanh(score / cap)`; none: as they are.
    pub softcap: Option<f32>,
    /// One more score, without a value.
    pub sink: Option<f32>,
}

/// The largest score, the sum of `e^(score - largest)`, and values times these.
struct Split {
    largest: f32,
    sum: f32,
    mixed: Vec<f32>,
}

/// `softmax(q . keys) . values` over the positions a query may see, in order. Every `chunk` positions are a split of their
/// own; splits are joined in order.
pub fn attention(
    q: &[f32],
    keys: &[Vec<f32>],
    values: &[Vec<f32>],
    chunk: usize,
    scores: Scores,
) -> Vec<f32> {
    let chunks = keys.chunks(chunk).zip(values.chunks(chunk));
    let splits: Vec<Split> = chunks.map(|(keys, values)| split(q, keys, values, scores)).collect();
    let largest = splits.iter().map(|split| split.largest).reduce(larger).unwrap_or(f32::NEG_INFINITY);
    let largest = scores.sink.map_or(largest, |sink| larger(largest, sink));
    let (mut sum, mut out) = (0.0, vec![0.0; q.len()]);
    for split in &splits {
        let weight = exp(split.largest - largest);
        sum += weight * split.sum;
        out.iter_mut().zip(&split.mixed).for_each(|(out, value)| *out += weight * value);
    }
    if let Some(sink) = scores.sink {
        sum += exp(sink - largest);
    }
    out.iter_mut().for_each(|out| *out /= sum);
    out
}

/// 32 positions at a time: products are fused in order of elements, values in order of positions, on top of what came
/// before times `e^(old largest - new largest)`.
fn split(q: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>], scores: Scores) -> Split {
    let mut state = Split { largest: f32::NEG_INFINITY, sum: 0.0, mixed: vec![0.0; q.len()] };
    for (keys, values) in keys.chunks(TILE).zip(values.chunks(TILE)) {
        let mut found = [f32::NEG_INFINITY; TILE];
        for (found, key) in found.iter_mut().zip(keys) {
            let product = q.iter().zip(key).fold(0.0f32, |sum, (a, b)| a.mul_add(*b, sum));
            *found = match scores.softcap {
                Some(cap) => cap * tanh(product * (scores.scale / cap)),
                None => product * scores.scale,
            };
        }
        let largest = larger(state.largest, found.into_iter().reduce(larger).unwrap_or(f32::NEG_INFINITY));
        let before = exp(state.largest - largest);
        let mut weights = [0.0; TILE];
        for (weight, score) in weights.iter_mut().zip(&found[..keys.len()]) {
            *weight = exp(score - largest);
        }
        state.sum = state.sum * before + warp_sum(weights);
        state.largest = largest;
        state.mixed.iter_mut().for_each(|mixed| *mixed *= before);
        for (weight, value) in weights.iter().zip(values) {
            for (mixed, value) in state.mixed.iter_mut().zip(value) {
                *mixed = weight.mul_add(*value, *mixed);
            }
        }
    }
    state
}
