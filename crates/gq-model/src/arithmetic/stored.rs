//! Products with stored weights in deterministic arithmetic, a tile of decoded rows at a time.

use super::{Routes, in_pieces, scatter};
use crate::linear::Linear;
use crate::matrix::Matrix;
use gq_codec::{Operand, Parallelism, ProductShape, fixed_product};
use gq_tensor::Isa;
use std::ops::Range;

/// Elements of a decoded tile: 1 MiB of f32.
const TILE: usize = 1 << 18;

/// Rows of a table.
pub fn embed(level: Isa, table: &Linear, tokens: &[u32]) -> Matrix {
    let width = table.shape.cols;
    let mut out = Matrix::zeros(tokens.len(), width);
    in_pieces(&mut out.data, width, |first, part| {
        for (row, &token) in part.chunks_exact_mut(width).zip(tokens.iter().skip(first / width)) {
            table.read_rows(level, token as usize..token as usize + 1, row);
        }
    });
    out
}

/// `x W^T + bias`, every row of W.
pub fn linear(level: Isa, weight: &Linear, x: &Matrix) -> Matrix {
    let mut y = rows(level, weight, 0..weight.shape.rows, x);
    if let Some(bias) = weight.bias() {
        for row in y.data.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    y
}

/// `x W[rows]^T`: `[tokens, cols]` to `[tokens, rows.len()]`.
pub fn rows(level: Isa, weight: &Linear, rows: Range<usize>, x: &Matrix) -> Matrix {
    let width = rows.len();
    let mut y = Matrix { width, data: vec![0.0; x.rows() * width] };
    tiles(level, weight, rows, |first, tile, count| {
        let (a, b) = (Operand::rows(&x.data, x.width), Operand::rows(tile, x.width).t());
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows: x.rows(), cols: count, depth: x.width },
            a,
            b,
            &mut y.data[first..],
            width,
        );
    });
    y
}

/// `x W_e^T + bias_e` for each token's experts e; `seen(e, inputs)` is called before each expert's product.
pub fn grouped(
    level: Isa,
    weight: &Linear,
    x: &Matrix,
    routes: &Routes,
    seen: &mut dyn FnMut(usize, &Matrix),
) -> Matrix {
    let mut out = Matrix::zeros(routes.choices.len(), weight.shape.rows_each());
    for (expert, places) in routes.by_expert() {
        let input = routes.gather(x, &places);
        seen(expert, &input);
        let first = expert * weight.shape.rows_each();
        scatter(&rows(level, weight, first..first + weight.shape.rows_each(), &input), &places, &mut out);
    }
    routes.add_biases(weight, &mut out);
    out
}

/// `dx += dy W[rows]`: `[tokens, rows.len()]` to `[tokens, cols]`.
pub fn back(level: Isa, weight: &Linear, rows: Range<usize>, dy: &Matrix, dx: &mut Matrix) {
    let cols = dx.width;
    tiles(level, weight, rows, |first, tile, count| {
        let a = Operand { data: &dy.data[first..], row_stride: dy.width, col_stride: 1 };
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows: dy.rows(), cols, depth: count },
            a,
            Operand::rows(tile, cols),
            &mut dx.data,
            cols,
        );
    });
}

/// Calls `work(first, rows, count)` with decoded tiles; `first` counts from the range's start.
fn tiles(level: Isa, weight: &Linear, rows: Range<usize>, mut work: impl FnMut(usize, &[f32], usize)) {
    let cols = weight.shape.cols;
    let step = (TILE / cols).next_multiple_of(16).min(rows.len()).max(1);
    let mut tile = vec![0.0; step * cols];
    for start in rows.clone().step_by(step) {
        let count = step.min(rows.end - start);
        let tile = &mut tile[..count * cols];
        in_pieces(tile, cols, |first, part| {
            let row = start + first / cols;
            weight.read_rows(level, row..row + part.len() / cols, part);
        });
        work(start - rows.start, tile, count);
    }
}
