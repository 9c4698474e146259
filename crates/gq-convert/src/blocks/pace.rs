//! How long other programs' types take to try and to round to: scales are searched for, which no count of multiplications
//! says, so each type is tried for a moment. For people to plan by; nothing else depends on it.

use super::tried::{RowCode, TRIED};
use gq_codec::{BlockCode, Factor, GroupCode, Metric};
use gq_tensor::Isa;
use std::time::Instant;

/// Rows and columns that each type is tried on.
const ROWS: usize = 32;
const COLS: usize = 256;

/// Seconds that a weight takes on one thread beyond products of whole rows, in the mean over the types.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Types that are tried of each matrix.
    types: usize,
    /// To nearest.
    nearest: f64,
    /// With feedback within a scale's columns.
    feedback: f64,
}

/// Rows and columns of a matrix.
type Shape = (usize, usize);

impl Pace {
    /// Of all block types.
    pub fn of_blocks(level: Isa) -> Pace {
        Pace::of(level, &BlockCode::all().collect::<Vec<_>>())
    }

    /// Of integer codes.
    pub fn of_groups(level: Isa, codes: &[GroupCode]) -> Pace {
        Pace::of(level, codes)
    }

    fn of<C: RowCode>(level: Isa, codes: &[C]) -> Pace {
        let noise = |i: usize| ((i * 7919 + i / 13 * 31) % 2003) as f32 / 1001.0 - 1.0;
        let rows: Vec<f32> = (0..ROWS * COLS).map(noise).collect();
        let weights = vec![1.0; COLS];
        let moment: Vec<f32> =
            (0..COLS * COLS).map(|i| if i.is_multiple_of(COLS + 1) { 1.0 } else { 0.001 }).collect();
        let factor = Factor::new(level, &moment, COLS, 0.01).ok();
        let mean = |metric: Metric<'_>| {
            let began = Instant::now();
            for code in codes {
                std::hint::black_box(code.rounded(level, metric, &rows, COLS));
            }
            began.elapsed().as_secs_f64() / (codes.len() * rows.len()).max(1) as f64
        };
        // Alone, as strips are on threads that have one each.
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().ok();
        let tried = || {
            let nearest = mean(Metric::Importance(&weights));
            let feedback = factor.as_ref().map_or(nearest, |factor| mean(Metric::Moment(factor)));
            Pace { types: codes.len(), nearest, feedback }
        };
        match alone {
            Some(alone) => alone.install(tried),
            None => tried(),
        }
    }

    /// Seconds on so many threads of trying every type on some rows of each matrix, and multiplications beyond.
    pub fn trying(self, matrices: &[Shape], calibrated: bool, threads: usize) -> (f64, f64) {
        let each = self.nearest + if calibrated { self.feedback } else { 0.0 };
        let tried = |rows: usize| rows.min(TRIED) as f64 * self.types as f64;
        let weights: f64 = matrices.iter().map(|&(rows, cols)| tried(rows) * cols as f64).sum();
        // Feedback from earlier columns, and the errors of both on text held out.
        let products = |&(rows, cols): &Shape| tried(rows) * 2.5 * (cols * cols) as f64;
        let products: f64 = matrices.iter().map(products).sum();
        (weights * each / threads.max(1) as f64, if calibrated { products } else { 0.0 })
    }

    /// Seconds on so many threads of rounding every matrix, and multiplications beyond.
    pub fn rounding(self, matrices: &[Shape], calibrated: bool, threads: usize) -> (f64, f64) {
        let each = if calibrated { self.feedback } else { self.nearest };
        let weights: f64 = matrices.iter().map(|&(rows, cols)| (rows * cols) as f64).sum();
        let products: f64 = matrices.iter().map(|&(rows, cols)| 0.5 * (rows * cols * cols) as f64).sum();
        (weights * each / threads.max(1) as f64, if calibrated { products } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_grows_with_weights_and_falls_with_threads() {
        let pace = Pace { types: 10, nearest: 1e-6, feedback: 3e-6 };
        let matrices = [(1000, 100), (16, 200)];
        let (seconds, products) = pace.trying(&matrices, true, 2);
        assert!((seconds - (32.0 * 100.0 + 16.0 * 200.0) * 10.0 * 4e-6 / 2.0).abs() < 1e-9, "{seconds}");
        assert_eq!(products, 2.5 * 10.0 * (32.0 * 1e4 + 16.0 * 4e4));
        let (seconds, products) = pace.rounding(&matrices, false, 1);
        assert!((seconds - 103_200.0 * 1e-6).abs() < 1e-9 && products == 0.0, "{seconds} {products}");
        let tried = Pace::of_groups(Isa::detect(), &[GroupCode::new(4, 128, true).unwrap()]);
        assert!(tried.nearest > 0.0 && tried.feedback > 0.0 && tried.nearest < 1e-3, "{tried:?}");
    }
}
