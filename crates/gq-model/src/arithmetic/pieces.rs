//! Rows spread over threads.

use rayon::prelude::*;

/// Elements worth another thread.
const PARALLEL: usize = 1 << 15;

/// Calls `work` on pieces of `x` made of whole rows of `width`, with the index of their first element.
pub fn in_pieces(x: &mut [f32], width: usize, work: impl Fn(usize, &mut [f32]) + Send + Sync) {
    if x.len() < 2 * PARALLEL {
        return work(0, x);
    }
    let piece = PARALLEL.div_ceil(width) * width;
    x.par_chunks_mut(piece).enumerate().for_each(|(index, part)| work(index * piece, part));
}
