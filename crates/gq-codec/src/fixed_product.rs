//! Matrix product with one fixed arithmetic: every element of C is a single chain of fused multiply-adds
//! over k, ascending. The result does not depend on instruction set, blocking or threads, so it may decide codes.

use crate::kernel::{self, TILE_COLS as NR, TILE_ROWS as MR};
use crate::parallelism::Parallelism;
use gq_tensor::Isa;
use rayon::prelude::*;

/// Depth and height of the packed blocks: KC x NR and KC x MR panels stay in the first-level cache.
const KC: usize = 256;
const MC: usize = 96;
const NC: usize = 1024;

/// A matrix operand: element (i, j) is `data[i * row_stride + j * col_stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Operand<'a> {
    /// Elements.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
}

impl<'a> Operand<'a> {
    /// Row-major `[_, cols]`.
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        Operand { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose of this operand.
    pub fn t(self) -> Self {
        Operand { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }
}

/// The shape of a product `C[rows, cols] += A[rows, depth] B[depth, cols]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductShape {
    /// Rows of A and C.
    pub rows: usize,
    /// Columns of B and C.
    pub cols: usize,
    /// Columns of A, rows of B: products in each sum.
    pub depth: usize,
}

/// `C[m, n] += A[m, k] B[k, n]`, m, n and k the rows, columns and depth of `shape`; `c` is row-major with rows `c_stride` apart.
///
/// Element (i, j) becomes `fma(a[i][k-1], b[k-1][j], … fma(a[i][0], b[0][j], c[i][j]))` in f32.
/// Threads share the rows of C where `parallelism` says so.
///
/// # Panics
/// When an operand does not reach as far as the shape says, or rows of C overlap.
pub fn fixed_product(
    level: Isa,
    parallelism: Parallelism,
    shape: ProductShape,
    a: Operand<'_>,
    b: Operand<'_>,
    c: &mut [f32],
    c_stride: usize,
) {
    FixedProducts { level, parallelism, panels: Vec::new() }.add(shape, a, b, c, c_stride);
}

/// Products one after the other that share the memory of their packed panels.
pub(crate) struct FixedProducts {
    level: Isa,
    parallelism: Parallelism,
    panels: Vec<f32>,
}

impl FixedProducts {
    /// For products of at most so many columns and so much depth. Panels have their pages at once, see
    /// [`crate::ldlq`].
    pub(crate) fn of(level: Isa, parallelism: Parallelism, cols: usize, depth: usize) -> FixedProducts {
        FixedProducts { level, parallelism, panels: vec![f32::NAN; panels_len(cols, depth)] }
    }

    /// `C += A B`, as [`fixed_product`].
    pub(crate) fn add(
        &mut self,
        shape: ProductShape,
        a: Operand<'_>,
        b: Operand<'_>,
        c: &mut [f32],
        c_stride: usize,
    ) {
        let ProductShape { rows: m, cols: n, depth: k } = shape;
        if m == 0 || n == 0 || k == 0 {
            return;
        }
        assert!(n <= c_stride && (m - 1) * c_stride + n <= c.len(), "rows of the product");
        let FixedProducts { level, parallelism, panels: packed_b } = self;
        let serial = parallelism.is_serial();
        if packed_b.len() < panels_len(n, k) {
            packed_b.resize(panels_len(n, k), 0.0);
        }
        for j0 in (0..n).step_by(NC) {
            let nc = NC.min(n - j0);
            for k0 in (0..k).step_by(KC) {
                let kc = KC.min(k - k0);
                let panels = nc.div_ceil(NR);
                let pack_panel =
                    |(panel, out): (usize, &mut [f32])| pack(b.t(), j0 + panel * NR, n, k0, kc, NR, out);
                if serial {
                    packed_b.chunks_mut(NR * kc).take(panels).enumerate().for_each(pack_panel);
                } else {
                    packed_b.par_chunks_mut(NR * kc).take(panels).enumerate().for_each(pack_panel);
                }
                let packed_b = &*packed_b;
                // Few rows are cut finer, so that every thread has some; no element's sum depends on the cut.
                let shared = if serial { m } else { m.div_ceil(rayon::current_num_threads()) };
                let rows = shared.next_multiple_of(MR).min(MC);
                let multiply = |(block, c): (usize, &mut [f32])| {
                    let i0 = block * rows;
                    let mc = rows.min(m - i0);
                    let mut packed_a = vec![0.0f32; MR * kc];
                    for i in (0..mc).step_by(MR) {
                        pack(a, i0 + i, m, k0, kc, MR, &mut packed_a);
                        for panel in 0..panels {
                            let j = panel * NR;
                            let b = &packed_b[panel * NR * kc..(panel + 1) * NR * kc];
                            let c = &mut c[i * c_stride + j0 + j..];
                            tile(*level, &packed_a, b, c, c_stride, MR.min(mc - i), NR.min(nc - j));
                        }
                    }
                };
                let blocks = m.div_ceil(rows);
                if serial {
                    c.chunks_mut(rows * c_stride).take(blocks).enumerate().for_each(multiply);
                } else {
                    c.par_chunks_mut(rows * c_stride).take(blocks).enumerate().for_each(multiply);
                }
            }
        }
    }
}

/// Packs `width` rows of `x` from `first` (zeros past `limit`), `kc` deep, k-major.
fn pack(x: Operand<'_>, first: usize, limit: usize, k0: usize, kc: usize, width: usize, out: &mut [f32]) {
    for w in 0..width {
        let row = first + w;
        if row >= limit {
            for k in 0..kc {
                out[k * width + w] = 0.0;
            }
            continue;
        }
        let base = row * x.row_stride + k0 * x.col_stride;
        for k in 0..kc {
            out[k * width + w] = x.data[base + k * x.col_stride];
        }
    }
}

/// Numbers in the packed panels of a product with `n` columns, `k` deep.
fn panels_len(n: usize, k: usize) -> usize {
    NC.min(n.next_multiple_of(NR)) * KC.min(k)
}

/// Bytes of them.
pub(crate) fn packed_bytes(n: usize, k: usize) -> u64 {
    4 * panels_len(n, k) as u64
}

fn tile(level: Isa, a: &[f32], b: &[f32], c: &mut [f32], c_stride: usize, rows: usize, cols: usize) {
    let mut acc = [[0.0f32; NR]; MR];
    for (row, acc) in acc.iter_mut().enumerate().take(rows) {
        acc[..cols].copy_from_slice(&c[row * c_stride..][..cols]);
    }
    kernel::fixed_tile(level, a, b, &mut acc);
    for (row, acc) in acc.iter().enumerate().take(rows) {
        c[row * c_stride..][..cols].copy_from_slice(&acc[..cols]);
    }
}
