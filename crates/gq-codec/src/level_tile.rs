//! Many tokens times rows of codes in integers: levels are unpacked once, to bytes, for all tokens.

use crate::code::Levels;
use crate::decoder::Decoder;
use crate::kernel::{self, Activations};
use crate::packing::GROUP;
use gq_tensor::{CodedRows, Isa};
use rayon::prelude::*;
use std::ops::Range;

/// Rows that one thread unpacks, or multiplies by few tokens, at a time.
const PIECE: usize = LevelTile::PIECE;

/// Activations of many tokens as int8, each as [`Activations::quantize`] rounds it, in blocks of
/// [`BLOCK`](ActivationBlocks::BLOCK) tokens.
#[derive(Clone, Debug, Default)]
pub struct ActivationBlocks {
    cols: usize,
    tokens: usize,
    /// `[blocks, cols / 4, BLOCK, 4]`.
    values: Vec<i8>,
    /// `[blocks, cols / 32, BLOCK]`.
    scales: Vec<f32>,
    /// What the products of a group start from, so that the bias of the levels is gone. As `scales`.
    starts: Vec<i32>,
}

impl ActivationBlocks {
    /// Tokens of a block.
    pub const BLOCK: usize = kernel::TILE_TOKENS;

    /// Rounds `x [tokens, cols]`; `cols` is a multiple of 32. The same at every level.
    ///
    /// # Panics
    /// When `x` is not whole rows of whole groups.
    pub fn quantize(level: Isa, x: &[f32], cols: usize) -> ActivationBlocks {
        assert!(cols > 0 && cols.is_multiple_of(GROUP) && x.len().is_multiple_of(cols), "rows of groups");
        let tokens = x.len() / cols;
        let (blocks, groups) = (tokens.div_ceil(Self::BLOCK), cols / GROUP);
        let mut all = ActivationBlocks {
            cols,
            tokens,
            values: vec![0; blocks * Self::BLOCK * cols],
            scales: vec![0.0; blocks * Self::BLOCK * groups],
            starts: vec![0; blocks * Self::BLOCK * groups],
        };
        let parts = all.values.par_chunks_mut(Self::BLOCK * cols);
        let parts = parts.zip(all.scales.par_chunks_mut(Self::BLOCK * groups));
        let parts = parts.zip(all.starts.par_chunks_mut(Self::BLOCK * groups));
        parts.zip(x.par_chunks(Self::BLOCK * cols)).for_each(|(((values, scales), starts), x)| {
            let mut one = Activations::default();
            for (token, x) in x.chunks_exact(cols).enumerate() {
                one.quantize_into(level, x);
                let fours = values.as_chunks_mut::<4>().0.iter_mut().skip(token).step_by(Self::BLOCK);
                for (to, from) in fours.zip(one.values.as_chunks::<4>().0) {
                    *to = *from;
                }
                let groups = one.values.as_chunks::<GROUP>().0.iter().zip(&one.scales).enumerate();
                for (group, (values, &scale)) in groups {
                    let at = group * Self::BLOCK + token;
                    scales[at] = scale;
                    starts[at] = -kernel::LEVEL_BIAS * values.iter().map(|&x| i32::from(x)).sum::<i32>();
                }
            }
        });
        all
    }

    /// Tokens.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

/// Levels of some rows of a matrix, as bytes, and what a level is worth in each row.
#[derive(Clone, Debug, Default)]
pub struct LevelTile {
    rows: usize,
    cols: usize,
    /// `[rows / 16, cols / 4, 16, 4]`, each level plus 128.
    low: Vec<u8>,
    /// The same of what levels of more than 8 bits are 64 times; empty where they have 8.
    high: Vec<u8>,
    steps: Vec<f32>,
}

impl LevelTile {
    /// Rows that a thread works on at a time: a tile of as many per thread keeps all of them busy.
    pub const PIECE: usize = 2 * kernel::TILE_LANES;

    /// Unpacks rows; `false`: `decoder` is of an encoding whose levels are no integers with one scale per row.
    ///
    /// # Panics
    /// When `matrix` is of another encoding or width than `decoder`, or `rows` is out of range.
    pub fn read(
        &mut self,
        level: Isa,
        decoder: &Decoder,
        matrix: &CodedRows<'_>,
        rows: Range<usize>,
    ) -> bool {
        let Some(code) = decoder.levels() else { return false };
        decoder.check(matrix, &rows, rows.len());
        let wide = code.are_wide();
        let cols = decoder.cols();
        (self.rows, self.cols) = (rows.len(), cols);
        let padded = rows.len().next_multiple_of(kernel::TILE_LANES) * cols;
        self.low.resize(padded, 0);
        self.high.resize(if wide { padded } else { 0 }, 0);
        self.steps.resize(rows.len(), 0.0);
        let low = self.low.par_chunks_mut((PIECE * cols).max(1)).enumerate();
        // A piece of nothing where there is no second part.
        let pieces = rows.len().div_ceil(PIECE);
        let mut high: Vec<&mut [u8]> = self.high.chunks_mut((PIECE * cols).max(1)).collect();
        high.resize_with(pieces, Default::default);
        let parts = low.zip(high.into_par_iter()).zip(self.steps.par_chunks_mut(PIECE));
        parts.for_each(|(((piece, low), high), steps)| {
            let first = rows.start + piece * PIECE;
            code.read_levels(level, matrix, first..first + steps.len(), Levels { low, high, steps });
        });
        true
    }

    /// `out[t, first + r] = <row r, token t>` with `out [tokens, stride]`; sums are ordered as suits the level.
    ///
    /// # Panics
    /// When widths or lengths do not match.
    pub fn multiply(&self, level: Isa, x: &ActivationBlocks, out: &mut [f32], stride: usize, first: usize) {
        assert!(x.cols == self.cols && first + self.rows <= stride, "width");
        assert_eq!(out.len(), x.tokens * stride, "output");
        let block = ActivationBlocks::BLOCK;
        if x.tokens.div_ceil(block) >= rayon::current_num_threads() {
            return out.par_chunks_mut((block * stride).max(1)).enumerate().for_each(|(index, out)| {
                kernel::level_multiply(
                    level,
                    self.part(0..self.rows),
                    x.block(index),
                    &mut out[first..],
                    stride,
                );
            });
        }
        // With fewer blocks than threads, rows are spread.
        let pieces = (0..self.rows.div_ceil(PIECE)).into_par_iter().map(|piece| {
            let rows = piece * PIECE..((piece + 1) * PIECE).min(self.rows);
            let mut part = vec![0.0; x.tokens * rows.len()];
            for (index, out) in part.chunks_mut(block * rows.len()).enumerate() {
                kernel::level_multiply(level, self.part(rows.clone()), x.block(index), out, rows.len());
            }
            (rows, part)
        });
        for (rows, part) in pieces.collect::<Vec<_>>() {
            let at = first + rows.start;
            for (out, part) in out.chunks_exact_mut(stride).zip(part.chunks_exact(rows.len())) {
                out[at..at + rows.len()].copy_from_slice(part);
            }
        }
    }

    /// Some rows, the first of them a multiple of 16.
    fn part(&self, rows: Range<usize>) -> kernel::TileRows<'_> {
        let bytes = rows.start * self.cols..rows.end.next_multiple_of(kernel::TILE_LANES) * self.cols;
        kernel::TileRows {
            cols: self.cols,
            low: &self.low[bytes.clone()],
            high: self.high.get(bytes),
            steps: &self.steps[rows],
        }
    }
}

impl ActivationBlocks {
    fn block(&self, index: usize) -> kernel::TileTokens<'_> {
        let (values, groups) = (Self::BLOCK * self.cols, Self::BLOCK * self.cols / GROUP);
        kernel::TileTokens {
            values: &self.values[index * values..(index + 1) * values],
            scales: &self.scales[index * groups..(index + 1) * groups],
            starts: &self.starts[index * groups..(index + 1) * groups],
        }
    }
}
