//! Norms, nearest codes, and activations to int8.

use super::{LANES, sum_lanes, sum_lanes_f64};
use crate::{Codebook, kernel::Fit, packing::GROUP};

#[inline(always)]
pub(crate) fn energy(x: &[f32]) -> f64 {
    let (octets, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for octet in octets {
        for (lane, &value) in lanes.iter_mut().zip(octet) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane += f64::from(value) * f64::from(value);
    }
    sum_lanes_f64(lanes)
}

#[inline(always)]
pub(crate) fn largest(x: &[f32]) -> f32 {
    let (octets, rest) = x.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for octet in octets {
        for (lane, &value) in lanes.iter_mut().zip(octet) {
            *lane = larger(*lane, value.abs());
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = larger(*lane, value.abs());
    }
    lanes.into_iter().fold(0.0, larger)
}

/// The comparison that vector instructions make.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

#[inline(always)]
pub(crate) fn score(book: Codebook, x: &[f32], inverse_steps: &[f32], out: &mut [Fit]) {
    let (groups, _) = x.as_chunks::<GROUP>();
    let ladder = Ladder::new(book);
    for (fit, &inverse_step) in out.iter_mut().zip(inverse_steps) {
        let mut sums = Sums::default();
        for x in groups {
            let targets = targets(x, inverse_step);
            let magnitudes = match book.bits() {
                8 => targets.map(|target| uniform_level(target).abs()),
                _ => ladder.magnitudes(&targets.map(f32::abs)),
            };
            sums.add(&targets.map(f32::abs), &magnitudes);
        }
        *fit = sums.total();
    }
}

#[inline(always)]
pub(crate) fn round(book: Codebook, x: &[f32], inverse_step: f32, codes: &mut [u8]) -> Fit {
    let mut sums = Sums::default();
    let (groups, _) = x.as_chunks::<GROUP>();
    let (codes, _) = codes.as_chunks_mut::<GROUP>();
    if book.bits() == 8 {
        for (x, codes) in groups.iter().zip(codes) {
            let targets = targets(x, inverse_step);
            let levels = targets.map(uniform_level);
            sums.add(&targets.map(f32::abs), &levels.map(f32::abs));
            *codes = levels.map(|level| level as i8 as u8);
        }
        return sums.total();
    }
    let ladder = Ladder::new(book);
    let sign_bit = 1 << (book.bits() - 1);
    for (x, codes) in groups.iter().zip(codes) {
        let signed = targets(x, inverse_step);
        let targets = signed.map(f32::abs);
        sums.add(&targets, &ladder.magnitudes(&targets));
        let indices = ladder.indices(&targets);
        for ((code, index), target) in codes.iter_mut().zip(indices).zip(signed) {
            *code = index as u8 | if target < 0.0 { sign_bit } else { 0 };
        }
    }
    sums.total()
}

#[inline(always)]
fn targets(x: &[f32; GROUP], inverse_step: f32) -> [f32; GROUP] {
    x.map(|x| x * inverse_step)
}

#[inline(always)]
fn uniform_level(target: f32) -> f32 {
    target.round_ties_even().clamp(-127.0, 127.0)
}

/// `<target, level>` and `<level, level>` in eight lanes of f32.
#[derive(Default)]
struct Sums {
    product: [f32; LANES],
    energy: [f32; LANES],
}

impl Sums {
    #[inline(always)]
    fn add(&mut self, targets: &[f32; GROUP], levels: &[f32; GROUP]) {
        for (targets, levels) in targets.chunks_exact(LANES).zip(levels.chunks_exact(LANES)) {
            for i in 0..LANES {
                self.product[i] += targets[i] * levels[i];
                self.energy[i] += levels[i] * levels[i];
            }
        }
    }

    #[inline(always)]
    fn total(self) -> Fit {
        Fit { product: f64::from(sum_lanes(self.product)), energy: f64::from(sum_lanes(self.energy)) }
    }
}

/// Thresholds between magnitudes and the steps over them: a comparison per threshold, no branches.
struct Ladder {
    first: f32,
    rungs: [(f32, f32); 63],
    count: usize,
}

impl Ladder {
    #[inline(always)]
    fn new(book: Codebook) -> Ladder {
        let magnitudes = book.magnitudes();
        let mut rungs = [(0.0, 0.0); 63];
        for ((rung, threshold), pair) in rungs.iter_mut().zip(book.thresholds()).zip(magnitudes.windows(2)) {
            *rung = (threshold, f32::from(pair[1] - pair[0]));
        }
        let first = magnitudes.first().map_or(0.0, |&m| f32::from(m));
        Ladder { first, rungs, count: magnitudes.len().saturating_sub(1) }
    }

    #[inline(always)]
    fn magnitudes(&self, targets: &[f32; GROUP]) -> [f32; GROUP] {
        let mut magnitudes = [self.first; GROUP];
        for &(threshold, step) in self.rungs.iter().take(self.count) {
            for (magnitude, &target) in magnitudes.iter_mut().zip(targets) {
                *magnitude += if target > threshold { step } else { 0.0 };
            }
        }
        magnitudes
    }

    #[inline(always)]
    fn indices(&self, targets: &[f32; GROUP]) -> [i32; GROUP] {
        let mut indices = [0; GROUP];
        for &(threshold, _) in self.rungs.iter().take(self.count) {
            for (index, &target) in indices.iter_mut().zip(targets) {
                *index += i32::from(target > threshold);
            }
        }
        indices
    }
}

/// Groups whose largest element is smaller than this become zeros: `127 / amax` stays finite.
pub(crate) const SMALLEST: f32 = 1.0 / (1u128 << 100) as f32;

#[inline(always)]
pub(crate) fn quantize_activations(x: &[f32], values: &mut [i8], magnitudes: &mut [u8], scales: &mut [f32]) {
    let (values, _) = values.as_chunks_mut::<GROUP>();
    let (magnitudes, _) = magnitudes.as_chunks_mut::<GROUP>();
    for (((x, values), magnitudes), scale) in x.chunks(GROUP).zip(values).zip(magnitudes).zip(scales) {
        let mut group = [0.0; GROUP];
        for (to, &from) in group.iter_mut().zip(x) {
            *to = from;
        }
        let finite = group.iter().fold(true, |all, v| all & v.is_finite());
        let amax = largest(&group);
        let kept = finite && amax >= SMALLEST;
        let inverse = if kept { 127.0 / amax } else { 0.0 };
        let rounded = group.map(|v| if kept { (v * inverse).round_ties_even() as i8 } else { 0 });
        *values = rounded;
        *magnitudes = rounded.map(i8::unsigned_abs);
        *scale = if !finite {
            f32::NAN
        } else if kept {
            amax / 127.0
        } else {
            0.0
        };
    }
}
