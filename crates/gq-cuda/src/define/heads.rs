//! Heads: norm, rotary embedding, int8 cache rows.

use super::order::warp_sum;
use half::f16;

/// Elements of a cache row that share a scale.
const GROUP: usize = 32;

/// A head of one token. `norm`: weight, if there is one, and epsilon; squares are summed in f64, lane l of 32 over elements
/// l, l + 32, …, then lanes as a warp does. `turns`: cosines and sines `[dim / 2]`, by which pairs `(i, i + dim / 2)` turn.
pub fn head(x: &[f32], norm: Option<(Option<&[f32]>, f32)>, turns: Option<(&[f32], &[f32])>) -> Vec<f32> {
    let mut out = x.to_vec();
    if let Some((weight, eps)) = norm {
        let mut lanes = [0.0f64; 32];
        for (i, x) in x.iter().enumerate() {
            lanes[i % 32] += f64::from(*x) * f64::from(*x);
        }
        let factor = (1.0 / (warp_sum(lanes) / x.len() as f64 + f64::from(eps)).sqrt()) as f32;
        out.iter_mut().for_each(|x| *x *= factor);
        if let Some(weight) = weight {
            out.iter_mut().zip(weight).for_each(|(x, weight)| *x *= weight);
        }
    }
    if let Some((cos, sin)) = turns {
        let (low, high) = out.split_at_mut(x.len() / 2);
        for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(cos.iter().zip(sin)) {
            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
        }
    }
    out
}

/// A cache row in int8: per 32 elements `scale = f16(largest / 127)` and `value = x / scale`, half away from zero. A group
/// with an element that is not finite has scale NaN and zeros.
pub fn cache_row(x: &[f32]) -> (Vec<i8>, Vec<f16>) {
    let (mut codes, mut scales) = (Vec::with_capacity(x.len()), Vec::new());
    for group in x.chunks(GROUP) {
        let finite = group.iter().all(|x| x.is_finite());
        let largest = group.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        let scale = if finite { f16::from_f32((largest / 127.0).min(65504.0)) } else { f16::NAN };
        let inverse = if scale > f16::ZERO { 1.0 / scale.to_f32() } else { 0.0 };
        let code = |x: &f32| if finite { (x * inverse).round().clamp(-127.0, 127.0) as i8 } else { 0 };
        codes.extend(group.iter().map(code));
        scales.push(scale);
    }
    (codes, scales)
}

/// What a cache row in int8 reads as.
pub fn cached(codes: &[i8], scales: &[f16]) -> Vec<f32> {
    let groups = codes.chunks(GROUP).zip(scales);
    groups
        .flat_map(|(codes, scale)| codes.iter().map(move |code| f32::from(*code) * scale.to_f32()))
        .collect()
}
