//! Activations times stored weights.
//!
//! One token meets codes directly. Many tokens meet tiles of rows: of levels as bytes, in int8 mode, where the machine
//! multiplies bytes well (experts excepted), else decoded to f32 for a matrix product. In int8 mode their activations are
//! rounded to the same int8 grid whichever way they go, so all of them agree.

use super::ActivationMode;
use crate::arithmetic::in_pieces;
use crate::input::Input;
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::product::{Arithmetic, View, ViewMut, multiply_transposed};
use gq_codec::{ActivationBlocks, Activations, LevelTile, Parallelism};
use gq_tensor::{Isa, RotationSpec};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Weights multiplied by one token that are worth another thread.
const PARALLEL: usize = 1 << 16;

/// Elements of a decoded tile: 1 MiB of f32.
const TILE: usize = 1 << 18;

/// Elements of a tile of levels: 1 MiB.
const LEVELS: usize = 1 << 20;

/// Rows that trellis codes are read in; work is cut at multiples of it.
const BLOCK_ROWS: usize = 32;

/// The basis an input must be in, and whether codes meet it as int8.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Basis {
    rotation: RotationSpec,
    int8: bool,
}

impl Basis {
    pub(super) fn of(weight: &Linear, mode: ActivationMode) -> Basis {
        let codes = !weight.precise && !weight.encoding().is_exact();
        let int8 = mode == ActivationMode::Int8 && codes;
        Basis { rotation: weight.rotation, int8 }
    }
}

pub(super) fn linear<const N: usize>(
    level: Isa,
    mode: ActivationMode,
    x: &Matrix,
    weights: [&Linear; N],
) -> [Matrix; N] {
    let tokens = x.rows();
    let mut out = weights.map(|weight| Matrix::zeros(tokens, weight.shape.rows));
    // One preparation for all weights of a basis; almost always there is one.
    let bases = weights.map(|weight| Basis::of(weight, mode));
    let first_of = |basis: &Basis| bases.iter().position(|other| other == basis).unwrap_or(0);
    if tokens == 1 {
        let inputs = std::array::from_fn::<_, N, _>(|index| {
            let first = first_of(&bases[index]) == index;
            if first { input(level, bases[index], weights[index], &x.data) } else { Input::default() }
        });
        let jobs = out.iter_mut().enumerate().map(|(index, out)| Job {
            weight: weights[index],
            rows: 0..weights[index].shape.rows,
            input: &inputs[first_of(&bases[index])],
            out: &mut out.data,
        });
        run(level, jobs.collect());
    } else {
        let (mut prepared, mut blocks) = (None, None);
        for (index, out) in out.iter_mut().enumerate() {
            let (weight, basis) = (weights[index], bases[index]);
            if index > 0 && basis != bases[index - 1] {
                (prepared, blocks) = (None, None);
            }
            if basis.int8 && weight.decoder.multiplies_levels(level) {
                let blocks = blocks.get_or_insert_with(|| int8_blocks(level, weight, x));
                multiply_levels(level, weight, blocks, out);
            } else {
                let x = prepared.get_or_insert_with(|| inputs(level, basis, weight, x));
                multiply_rows(level, weight, 0..weight.shape.rows, x, out);
            }
        }
    }
    for (out, bias) in out.iter_mut().zip(weights).filter_map(|(out, weight)| Some((out, weight.bias()?))) {
        for row in out.data.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    out
}

/// One token's activations in the basis of `weight`.
pub(super) fn input(level: Isa, basis: Basis, weight: &Linear, x: &[f32]) -> Input {
    let mut values = x.to_vec();
    if let Some(transform) = &weight.transform {
        transform.forward(level, &mut values, &mut Vec::new());
    }
    let int8 = basis.int8.then(|| Activations::quantize(level, &values));
    Input { values, int8 }
}

/// Many tokens' activations in the basis of `weight`, on the int8 grid where that is asked for.
pub(super) fn inputs<'x>(level: Isa, basis: Basis, weight: &Linear, x: &'x Matrix) -> Cow<'x, Matrix> {
    if weight.transform.is_none() && !basis.int8 {
        return Cow::Borrowed(x);
    }
    let mut x = x.clone();
    in_pieces(&mut x.data, x.width, |_, part| {
        let (mut scratch, mut int8) = (Vec::new(), Activations::default());
        for row in part.chunks_exact_mut(x.width) {
            if let Some(transform) = &weight.transform {
                transform.forward(level, row, &mut scratch);
            }
            if basis.int8 {
                int8.quantize_into(level, row);
                int8.dequantize(row);
            }
        }
    });
    Cow::Owned(x)
}

/// Many tokens' activations in the basis of `weight`, as int8.
fn int8_blocks(level: Isa, weight: &Linear, x: &Matrix) -> ActivationBlocks {
    let Some(transform) = &weight.transform else {
        return ActivationBlocks::quantize(level, &x.data, x.width);
    };
    let mut x = x.clone();
    in_pieces(&mut x.data, x.width, |_, part| {
        let mut scratch = Vec::new();
        part.chunks_exact_mut(x.width).for_each(|row| transform.forward(level, row, &mut scratch));
    });
    ActivationBlocks::quantize(level, &x.data, x.width)
}

/// `out = x W^T` in integers, a tile of levels at a time.
fn multiply_levels(level: Isa, weight: &Linear, x: &ActivationBlocks, out: &mut Matrix) {
    let (cols, rows) = (weight.shape.cols, weight.shape.rows);
    let busy = rayon::current_num_threads() * LevelTile::PIECE;
    let step = (LEVELS / cols).next_multiple_of(LevelTile::PIECE).max(busy);
    let (matrix, mut tile) = (weight.matrix(), LevelTile::default());
    for start in (0..rows).step_by(step) {
        let has_levels = tile.read(level, &weight.decoder, &matrix, start..(start + step).min(rows));
        assert!(has_levels, "`multiplies_levels` said so");
        tile.multiply(level, x, &mut out.data, rows, start);
    }
}

/// One token's product with some rows of a matrix.
#[derive(Debug)]
pub(super) struct Job<'a> {
    pub(super) weight: &'a Linear,
    pub(super) rows: Range<usize>,
    pub(super) input: &'a Input,
    /// `[rows.len()]`.
    pub(super) out: &'a mut [f32],
}

/// Runs products of single tokens in one parallel region.
pub(super) fn run(level: Isa, jobs: Vec<Job<'_>>) {
    let elements = |job: &Job<'_>| job.rows.len() * job.weight.shape.cols;
    let total: usize = jobs.iter().map(elements).sum();
    let work = |job: Job<'_>| job.weight.dot_rows(level, job.rows, job.input, job.out);
    let threads = rayon::current_num_threads();
    if total < 2 * PARALLEL || threads == 1 {
        return jobs.into_iter().for_each(work);
    }
    // A few pieces per thread, so that a thread that was late finds less to do.
    let piece = (total / (4 * threads)).max(PARALLEL / 2);
    let mut pieces = Vec::with_capacity(5 * threads + jobs.len());
    for Job { weight, rows, input, out } in jobs {
        let step = piece.div_ceil(weight.shape.cols).next_multiple_of(BLOCK_ROWS);
        for (start, out) in rows.clone().step_by(step).zip(out.chunks_mut(step)) {
            pieces.push(Job { weight, rows: start..start + out.len(), input, out });
        }
    }
    pieces.into_par_iter().with_max_len(1).for_each(work);
}

/// `out [tokens, rows.len()] = x W[rows]^T`, a tile of rows at a time.
pub(super) fn multiply_rows(level: Isa, weight: &Linear, rows: Range<usize>, x: &Matrix, out: &mut Matrix) {
    let (cols, tokens, width) = (weight.shape.cols, x.rows(), out.width);
    let step = (TILE / cols).next_multiple_of(BLOCK_ROWS).min(rows.len());
    let mut tile = vec![0.0; step * cols];
    for start in rows.clone().step_by(step.max(1)) {
        let end = (start + step).min(rows.end);
        let tile = &mut tile[..(end - start) * cols];
        in_pieces(tile, BLOCK_ROWS * cols, |first, part| {
            let row = start + first / cols;
            weight.read_rotated_rows(level, row..row + part.len() / cols, part);
        });
        let x = View::new(&x.data, tokens, cols, cols);
        let y = ViewMut::new(&mut out.data[start - rows.start..], tokens, end - start, width);
        multiply_transposed(
            x,
            View::new(tile, end - start, cols, cols),
            y,
            Arithmetic::Fastest(Parallelism::Threads),
        );
    }
}
