//! What any other codebook could gain on the trellises of the format, at 4 to 6 bits: Lloyd's algorithm (encode, then
//! move every level to the mean of what it stands for) on normal numbers, with levels that are not rounded to integers;
//! first 128 magnitudes, shared by states as the format shares its own, then a level for every state. Errors are
//! relative, on rows not trained with.
//!
//! `cargo run --release -p gq-codec --example trellis_codebook [-- COLUMNS ROUNDS]`

use gq_codec::Trellis;
use gq_tensor::Encoding;
use std::io::Write;

#[path = "../tests/it/source.rs"]
mod source;

const ROWS: usize = Encoding::STRIP_ROWS;
const SEAM: usize = 32;

/// A bitshift trellis whose states have levels of any value.
struct Free {
    bits: usize,
    levels: Vec<f32>,
}

impl Free {
    /// States along the best path over `targets`; through `ends` before the first and in the last where given.
    fn path(&self, targets: &[f32], ends: Option<usize>) -> Vec<usize> {
        let states = self.levels.len();
        let (groups, branches) = (states >> self.bits, 1 << self.bits);
        let start = |state| if ends.is_none_or(|end| end == state) { 0.0f32 } else { 1e30 };
        let mut cost: Vec<f32> = (0..states).map(start).collect();
        let mut from = Vec::with_capacity(targets.len() * groups);
        for &target in targets {
            let best = (0..groups).map(|group| {
                let of = |top: usize| (cost[top * groups + group], top);
                (1..branches).map(of).fold(of(0), |best, next| if next.0 < best.0 { next } else { best })
            });
            let best: Vec<(f32, usize)> = best.collect();
            from.extend(best.iter().map(|(_, top)| *top));
            for (state, cost) in cost.iter_mut().enumerate() {
                *cost = best[state >> self.bits].0 + (target - self.levels[state]).powi(2);
            }
        }
        let least = || (0..states).fold(0, |best, state| if cost[state] < cost[best] { state } else { best });
        let mut state = ends.unwrap_or_else(least);
        let mut path = vec![0; targets.len()];
        for (row, place) in path.iter_mut().enumerate().rev() {
            *place = state;
            let group = state >> self.bits;
            state = from[row * groups + group] * groups + group;
        }
        path
    }

    /// Calls `seen(target, state)` for columns coded as the format does it, and gives the relative error.
    fn code(&self, columns: &[f32], deviation: f32, seen: &mut dyn FnMut(f32, usize)) -> f64 {
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for column in columns.chunks_exact(ROWS) {
            let targets: Vec<f32> = column.iter().map(|x| x * deviation).collect();
            let around = [&targets[ROWS - SEAM..], &targets[..SEAM]].concat();
            let ends = self.path(&around, None)[SEAM - 1];
            for (&target, state) in targets.iter().zip(self.path(&targets, Some(ends))) {
                let (x, y) = (f64::from(target), f64::from(self.levels[state]));
                (xx, xy, yy) = (xx + x * x, xy + x * y, yy + y * y);
                seen(target, state);
            }
        }
        1.0 - xy * xy / (xx * yy)
    }

    /// Moves the levels to the means of their targets; states with the same `shared` number, up to the sign that comes
    /// with it, have one magnitude.
    fn train(&mut self, columns: &[f32], deviation: f32, shared: &[(usize, f32)]) {
        let mut sums = vec![(0.0f64, 0.0f64); self.levels.len()];
        self.code(columns, deviation, &mut |target, state| {
            let (number, sign) = shared[state];
            sums[number].0 += f64::from(sign * target);
            sums[number].1 += 1.0;
        });
        for (level, &(number, sign)) in self.levels.iter_mut().zip(shared) {
            let (sum, count) = sums[number];
            if count > 0.0 {
                *level = sign * (sum / count) as f32;
            }
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let given: Vec<usize> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let (count, rounds) = (given.first().copied().unwrap_or(800), given.get(1).copied().unwrap_or(30));
    let columns = |seed| source::rows(source::Source::Gaussian, count, ROWS, seed);
    let (training, fresh) = (columns(1), columns(2));
    let mut out = std::io::stdout();
    writeln!(out, "trellis   as it is    128 magnitudes     a level per state")?;
    for name in ["tt4", "tt5", "tt6", "tt5-s12", "tt6-s12"] {
        let encoding = Encoding::from_name(name).ok_or("no such encoding")?;
        let trellis = Trellis::of(encoding).ok_or("no such trellis")?;
        let deviation = 1.0 / (trellis.gaussian_scale() as f32 * Trellis::UNIT);
        let levels = trellis.levels();
        let made = || Free { bits: trellis.bits(), levels: levels.iter().map(|&l| f32::from(l)).collect() };
        let before = made().code(&fresh, deviation, &mut |_, _| ());
        // The upper byte of the product is the place in the codebook.
        let (states, multiplier) = (levels.len(), usize::from(trellis.multiplier()));
        let place = |state: usize| (state * multiplier % states) * 256 / states;
        let magnitude = |state: usize| match place(state) {
            low @ ..128 => (127 - low, -1.0),
            high => (high - 128, 1.0),
        };
        let shared: Vec<(usize, f32)> = (0..states).map(magnitude).collect();
        let own: Vec<(usize, f32)> = (0..states).map(|state| (state, 1.0)).collect();
        let after = |shared: &[(usize, f32)]| {
            let mut free = made();
            (0..rounds).for_each(|_| free.train(&training, deviation, shared));
            free.code(&fresh, deviation, &mut |_, _| ())
        };
        let (few, many) = (after(&shared), after(&own));
        let gain = |error: f64| 100.0 * (error / before - 1.0);
        writeln!(
            out,
            "{name:9} {before:.4e}  {few:.4e} {:+.1} %  {many:.4e} {:+.1} %",
            gain(few),
            gain(many)
        )?;
    }
    Ok(())
}
