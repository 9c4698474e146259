//! f32 to K-quants. The format fixes what codes mean; which codes are chosen is ours: for each sub-block the
//! scale (and minimum) with the least squared error among a row of starts, each improved by least squares.

use super::rounding::{extreme, inverse};
use gq_tensor::ggml::{BlockParts, GgmlType, pack_block};
use half::f16;

/// Starts tried for each scale: the full range widened or narrowed by this many steps of 1/20 of a code.
const STEPS: i32 = 12;

pub(super) fn q4_k(values: &[f32], out: &mut [u8]) {
    pack_block(GgmlType::Q4_K, &affine(values, 15), out);
}

pub(super) fn q5_k(values: &[f32], out: &mut [u8]) {
    pack_block(GgmlType::Q5_K, &affine(values, 31), out);
}

/// Eight sub-blocks of 32 as `d * scale * code - dmin * min`.
fn affine(values: &[f32], top: u8) -> BlockParts {
    let fits: [AffineFit; 8] = std::array::from_fn(|s| fit_affine(&values[s * 32..][..32], top));
    let largest = |pick: fn(&AffineFit) -> f32| fits.iter().map(pick).fold(0.0, f32::max);
    let (d, dmin) = (stored(largest(|f| f.scale) / 63.0), stored(largest(|f| f.min) / 63.0));
    let (id, imin) = (inverse(d), inverse(dmin));
    let six_bits = |value: f32| value.round().clamp(0.0, 63.0) as u8;
    let mut parts = BlockParts { scale: f16::from_f32(d), min: f16::from_f32(dmin), ..BlockParts::default() };
    for (s, AffineFit { scale, min }) in fits.into_iter().enumerate() {
        (parts.scales[s], parts.mins[s]) = (six_bits(scale * id) as i8, six_bits(min * imin));
    }
    for (i, (code, value)) in parts.codes.iter_mut().zip(values).enumerate() {
        let (scale, min) = (parts.scales[i / 32], parts.mins[i / 32]);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        *code = ((value + min) * inverse(scale)).round().clamp(0.0, f32::from(top)) as u8;
    }
    parts
}

/// As the file will give it back.
fn stored(value: f32) -> f32 {
    f16::from_f32(value).to_f32()
}

/// Scale and minimum, both not negative: values near `scale * code - min`.
#[derive(Clone, Copy)]
struct AffineFit {
    scale: f32,
    min: f32,
}

fn fit_affine(values: &[f32], top: u8) -> AffineFit {
    let low = values.iter().fold(0.0, |low: f32, &v| low.min(v)); // zero stays representable
    let high = values.iter().fold(low, |high: f32, &v| high.max(v));
    let top = f32::from(top);
    let range = high - low;
    if range == 0.0 {
        return AffineFit { scale: 0.0, min: -low };
    }
    let mut best = AffineFit { scale: range / top, min: -low };
    let mut least = affine_error(values, best, top);
    for step in -STEPS..=STEPS {
        let mut fit = AffineFit { scale: range / (top + 0.05 * step as f32), min: -low };
        for _ in 0..2 {
            fit = refit_affine(values, fit, top);
            let error = affine_error(values, fit, top);
            if error < least {
                (best, least) = (fit, error);
            }
        }
    }
    best
}

fn affine_code(value: f32, AffineFit { scale, min }: AffineFit, top: f32) -> f32 {
    ((value + min) * inverse(scale)).round().clamp(0.0, top)
}

fn affine_error(values: &[f32], fit: AffineFit, top: f32) -> f32 {
    let error = |v: f32| fit.scale * affine_code(v, fit, top) - fit.min - v;
    values.iter().map(|&v| error(v) * error(v)).sum()
}

/// Least squares of scale and minimum for the codes that `fit` gives.
fn refit_affine(values: &[f32], fit: AffineFit, top: f32) -> AffineFit {
    let n = values.len() as f32;
    let (mut sl, mut sll, mut sx, mut slx) = (0.0, 0.0, 0.0, 0.0);
    for &v in values {
        let l = affine_code(v, fit, top);
        sl += l;
        sll += l * l;
        sx += v;
        slx += l * v;
    }
    let determinant = n * sll - sl * sl;
    if determinant <= 0.0 {
        return fit;
    }
    let scale = (n * slx - sl * sx) / determinant;
    let min = (sl * slx - sll * sx) / determinant;
    if scale <= 0.0 {
        fit
    } else if min < 0.0 {
        // Minima are subtracted: the best with none.
        AffineFit { scale: if sll > 0.0 { slx / sll } else { scale }, min: 0.0 }
    } else {
        AffineFit { scale, min }
    }
}

pub(super) fn q6_k(values: &[f32], out: &mut [u8]) {
    let fits: [f32; 16] = std::array::from_fn(|s| fit_symmetric(&values[s * 16..][..16]));
    let d = stored(extreme(&fits) / -128.0);
    let id = inverse(d);
    let scales = fits.map(|fit| (fit * id).round().clamp(-128.0, 127.0) as i8);
    let mut parts = BlockParts { scale: f16::from_f32(d), scales, ..BlockParts::default() };
    for (i, (code, value)) in parts.codes.iter_mut().zip(values).enumerate() {
        let step = d * f32::from(scales[i / 16]);
        *code = ((value * inverse(step)).round().clamp(-32.0, 31.0) + 32.0) as u8;
    }
    pack_block(GgmlType::Q6_K, &parts, out);
}

/// The step, of either sign, with `step * code` near the values, codes -32 to 31.
fn fit_symmetric(values: &[f32]) -> f32 {
    let largest = extreme(values);
    if largest == 0.0 {
        return 0.0;
    }
    let code = |v: f32, step: f32| (v * inverse(step)).round().clamp(-32.0, 31.0);
    let error = |step: f32| -> f32 {
        values.iter().map(|&v| (step * code(v, step) - v) * (step * code(v, step) - v)).sum()
    };
    let mut best = largest / -32.0;
    let mut least = error(best);
    for n in -STEPS..=STEPS {
        let start = largest / (-32.0 + 0.1 * n as f32);
        let (mut up, mut down) = (0.0, 0.0);
        for &v in values {
            let l = code(v, start);
            up += l * v;
            down += l * l;
        }
        let step = if down > 0.0 { up / down } else { start };
        for step in [start, step] {
            let now = error(step);
            if now < least {
                (best, least) = (step, now);
            }
        }
    }
    best
}
