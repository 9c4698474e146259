//! `H + damping = U D U^T` in f64, columns from the last to the first.

use crate::kernel::{self, PIVOT_COLS, PIVOT_ROWS};
use gq_tensor::Isa;
use rayon::prelude::*;
use std::ops::Range;

/// Columns eliminated together; their update of the rest is one pass over the matrix.
const PANEL: usize = 128;

/// Rows of the rest that a thread updates at once: their factors stay in the first-level cache.
const ROWS: usize = 16 * PIVOT_ROWS;

/// Tiles updated in a row after each other: what they share of a cache line is there still.
const TILES: usize = 4;

/// Right-looking elimination of symmetric `h` `[n, n]` (row-major, lower triangle read) with `damping` times `mean` on
/// its diagonal. Row j of the result holds `U[..j][j]`, in addition to it D; what is right of the diagonal means nothing.
///
/// Element (i, c) becomes `h - p(n - 1) - p(n - 2) … - p(i + 1)`, `p(j) = (U[i][j] D[j]) U[c][j]`, everything rounded
/// to f64, so that the result depends neither on the blocking nor on the level.
///
/// # Errors
/// The column whose pivot is not above 1e-9 of `mean`.
pub(crate) fn eliminate(
    level: Isa,
    h: &[f32],
    n: usize,
    mean: f64,
    damping: f64,
) -> Result<(Vec<f64>, Vec<f64>), usize> {
    let mut a: Vec<f64> = vec![0.0; n * n];
    a.par_chunks_mut(n.max(1)).enumerate().for_each(|(i, row)| {
        for (a, &h) in row.iter_mut().zip(&h[i * n..i * n + i + 1]) {
            *a = f64::from(h);
        }
        // A width that no token ever reached still needs a pivot.
        row[i] += if mean > 0.0 { damping * mean } else { 1.0 };
    });
    let floor = if mean > 0.0 { mean * 1e-9 } else { 0.0 };
    let mut diagonal = vec![0.0; n];
    let mut end = n;
    while end > 0 {
        let start = end.saturating_sub(PANEL);
        let (above, panel) = a[..end * n].split_at_mut(start * n);
        corner(panel, n, start..end, &mut diagonal, floor)?;
        let packed = left(panel, n, start..end, &diagonal);
        rest(level, above, n, &packed, &diagonal[start..end]);
        end = start;
    }
    Ok((a, diagonal))
}

/// The panel's own square: rows `cols`, one column after the other.
fn corner(
    panel: &mut [f64],
    n: usize,
    cols: Range<usize>,
    diagonal: &mut [f64],
    floor: f64,
) -> Result<(), usize> {
    let start = cols.start;
    for j in cols.rev() {
        let (above, row) = panel.split_at_mut((j - start) * n);
        let (pivot, row) = (row[j], &mut row[start..j]);
        if pivot <= floor || pivot.is_nan() {
            return Err(j);
        }
        diagonal[j] = pivot;
        row.iter_mut().for_each(|u| *u /= pivot);
        for (i, above) in above.chunks_exact_mut(n).enumerate() {
            let factor = row[i] * pivot;
            for (a, &u) in above[start..=start + i].iter_mut().zip(row.iter()) {
                *a -= factor * u;
            }
        }
    }
    Ok(())
}

/// The panel left of its square. Returned in tiles of [`PIVOT_COLS`] columns, `[rows, PIVOT_COLS]` each, rows from the
/// last to the first, zeros beyond the last column.
fn left(panel: &mut [f64], n: usize, cols: Range<usize>, diagonal: &[f64]) -> Vec<f64> {
    let Range { start, end } = cols;
    let tile = (end - start) * PIVOT_COLS;
    let mut packed = vec![0.0; start.div_ceil(PIVOT_COLS) * tile];
    let rows = &*panel;
    packed.par_chunks_mut(tile).enumerate().for_each(|(index, tile)| {
        let first = index * PIVOT_COLS;
        let cols = first..start.min(first + PIVOT_COLS);
        let (tile, _) = tile.as_chunks_mut::<PIVOT_COLS>();
        for (u, row) in tile.iter_mut().zip(rows.chunks_exact(n).rev()) {
            u[..cols.len()].copy_from_slice(&row[cols.clone()]);
        }
        for k in 0..tile.len() {
            let (done, later) = tile.split_at_mut(k + 1);
            let (u, j) = (&mut done[k], end - 1 - k);
            let row = &rows[(j - start) * n..][..n];
            u.iter_mut().for_each(|u| *u /= diagonal[j]);
            for (i, later) in (start..j).rev().zip(later) {
                let factor = row[i] * diagonal[j];
                for (a, &u) in later.iter_mut().zip(u.iter()) {
                    *a -= factor * u;
                }
            }
        }
    });
    panel.par_chunks_mut(n).rev().enumerate().for_each(|(k, row)| {
        let tiles = packed.chunks_exact(tile).map(|tile| &tile[k * PIVOT_COLS..]);
        for (row, u) in row[..start].chunks_mut(PIVOT_COLS).zip(tiles) {
            row.copy_from_slice(&u[..row.len()]);
        }
    });
    packed
}

/// Everything above the panel, all of its columns at once.
fn rest(level: Isa, above: &mut [f64], n: usize, packed: &[f64], diagonal: &[f64]) {
    let depth = diagonal.len();
    let tile = depth * PIVOT_COLS;
    above.par_chunks_mut(ROWS * n).enumerate().for_each(|(block, rows)| {
        let first = block * ROWS;
        let count = rows.len() / n;
        let mut factors = vec![0.0; count.next_multiple_of(PIVOT_ROWS) * depth];
        let (groups, _) = factors.as_chunks_mut::<PIVOT_ROWS>();
        for i in 0..count {
            let (at, col) = ((first + i) / PIVOT_COLS * tile, (first + i) % PIVOT_COLS);
            let group = &mut groups[i / PIVOT_ROWS * depth..][..depth];
            for (k, (factor, d)) in group.iter_mut().zip(diagonal.iter().rev()).enumerate() {
                factor[i % PIVOT_ROWS] = packed[at + k * PIVOT_COLS + col] * d;
            }
        }
        let tiles = (first + count).div_ceil(PIVOT_COLS);
        for some in (0..tiles).step_by(TILES) {
            let some = some..tiles.min(some + TILES);
            let groups = rows.chunks_mut(PIVOT_ROWS * n).zip(factors.chunks_exact(PIVOT_ROWS * depth));
            for (group, (rows, factors)) in groups.enumerate() {
                let last = first + group * PIVOT_ROWS + rows.len() / n - 1;
                for index in some.clone().take_while(|index| index * PIVOT_COLS <= last) {
                    let b = &packed[index * tile..][..tile];
                    let mut acc = [[0.0; PIVOT_COLS]; PIVOT_ROWS];
                    for (acc, row) in acc.iter_mut().zip(rows.chunks_exact(n)) {
                        acc.copy_from_slice(&row[index * PIVOT_COLS..][..PIVOT_COLS]);
                    }
                    kernel::eliminate_tile(level, factors, b, &mut acc);
                    for (acc, row) in acc.iter().zip(rows.chunks_exact_mut(n)) {
                        row[index * PIVOT_COLS..][..PIVOT_COLS].copy_from_slice(acc);
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One column after the other, as the definition has it.
    fn plain(h: &[f32], n: usize, mean: f64, damping: f64) -> (Vec<f64>, Vec<f64>) {
        let mut a: Vec<f64> = h.iter().map(|&h| f64::from(h)).collect();
        (0..n).for_each(|i| a[i * n + i] += damping * mean);
        let mut diagonal = vec![0.0; n];
        for j in (0..n).rev() {
            diagonal[j] = a[j * n + j];
            (0..j).for_each(|i| a[j * n + i] /= diagonal[j]);
            for (i, c) in (0..j).flat_map(|i| (0..=i).map(move |c| (i, c))) {
                a[i * n + c] -= (a[j * n + i] * diagonal[j]) * a[j * n + c];
            }
        }
        (a, diagonal)
    }

    #[test]
    fn the_same_bits_at_every_level_width_and_thread_count() {
        for n in [1, 7, 96, 97, 130, 333] {
            let noise = |i: usize| ((i * 7919 + 13) % 101) as f32 / 50.0 - 1.0;
            let x: Vec<f32> = (0..2 * n * n).map(noise).collect();
            let at = |i: usize, j: usize| x.chunks_exact(n).map(|x| x[i] * x[j]).sum::<f32>() / n as f32;
            let h: Vec<f32> = (0..n * n).map(|ij| at(ij / n, ij % n)).collect();
            let (expected, expected_diagonal) = plain(&h, n, 0.7, 0.1);
            for level in Isa::available() {
                for threads in [1, 3] {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    let (a, diagonal) = pool.install(|| eliminate(level, &h, n, 0.7, 0.1)).unwrap();
                    assert_eq!(diagonal, expected_diagonal, "{n} {level:?} {threads}");
                    let lower = |a: &[f64]| -> Vec<f64> {
                        (0..n).flat_map(|j| a[j * n..j * n + j].iter().copied()).collect()
                    };
                    assert_eq!(lower(&a), lower(&expected), "{n} {level:?} {threads}");
                }
            }
        }
    }
}
