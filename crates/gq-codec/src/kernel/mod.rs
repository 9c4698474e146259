//! Inner loops. `scalar` is the definition of each; other levels give the same bits, except the
//! products of [`turbo_dot`], [`trellis_dot`], [`exact_dot`], their f32 kin and [`level_multiply`], whose sums are ordered
//! as suits the level.
//!
//! Every function is defined for all inputs: lengths are checked here, once, before a level is chosen.

mod activations;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx2;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
mod avx512;
mod grid;
mod scalar;

pub use activations::Activations;
#[cfg(target_arch = "x86_64")]
use grid::SIGNED_FLOATS;
pub(crate) use grid::{FLOATS, GridKind, GridRows, Layout, Step, decode_group, power_of};

use crate::{Codebook, Trellis, codebook::LevelTables, packing::GROUP};
use gq_tensor::{DType, Encoding, Isa};

/// Calls the kernel of a level.
macro_rules! at_level {
    ($level:expr, $kernel:ident($($argument:expr),* $(,)?)) => {
        match $level {
            Isa::Scalar => scalar::$kernel($($argument),*),
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: an `Avx2` value exists only on machines where AVX2, FMA and F16C were detected.
            Isa::Avx2(_) => unsafe { avx2::$kernel($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: an `Avx512` value exists only on machines where these and AVX-512 F, BW, VBMI and VNNI were.
            Isa::Avx512(_) => unsafe { avx512::$kernel($($argument),*) },
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2(_) | Isa::Avx512(_) => scalar::$kernel($($argument),*),
        }
    };
}

/// Rows and columns of a product that one call of [`fixed_tile`] computes.
pub(crate) const TILE_ROWS: usize = 6;
pub(crate) const TILE_COLS: usize = 16;

/// `acc[i][j] = fma(a[k][i], b[k][j], acc[i][j])` for k ascending, `a [k, TILE_ROWS]` and `b [k, TILE_COLS]`.
/// The same bits at every level: a fused multiply-add is rounded once wherever it is computed.
pub(crate) fn fixed_tile(level: Isa, a: &[f32], b: &[f32], acc: &mut [[f32; TILE_COLS]; TILE_ROWS]) {
    assert!(a.len().is_multiple_of(TILE_ROWS) && a.len() / TILE_ROWS * TILE_COLS == b.len());
    at_level!(level, fixed_tile(a, b, acc));
}

/// Rows and columns of a factorization that one call of [`eliminate_tile`] updates.
pub(crate) const PIVOT_ROWS: usize = 4;
pub(crate) const PIVOT_COLS: usize = 8;

/// `acc[i][j] -= a[k][i] * b[k][j]` for k ascending, `a [k, PIVOT_ROWS]` and `b [k, PIVOT_COLS]`; products are rounded.
pub(crate) fn eliminate_tile(level: Isa, a: &[f64], b: &[f64], acc: &mut [[f64; PIVOT_COLS]; PIVOT_ROWS]) {
    assert!(a.len().is_multiple_of(PIVOT_ROWS) && a.len() / PIVOT_ROWS * PIVOT_COLS == b.len());
    at_level!(level, eliminate_tile(a, b, acc));
}

/// `x[i] *= factors[i]`.
pub(crate) fn multiply(level: Isa, x: &mut [f32], factors: &[f32]) {
    assert_eq!(x.len(), factors.len());
    at_level!(level, multiply(x, factors));
}

/// Unnormalized Walsh-Hadamard transform of each contiguous block; `block` is a power of two >= 32.
pub(crate) fn walsh_hadamard(level: Isa, x: &mut [f32], block: usize) {
    assert!(block.is_power_of_two() && block >= GROUP && x.len().is_multiple_of(block));
    at_level!(level, walsh_hadamard(x, block));
}

/// `out[o, i, c] = sum over j of matrix[i, j] x[o, j, c]` with `matrix [p, p]` and `inner` columns, a multiple of 32.
pub(crate) fn mix_blocks(level: Isa, matrix: &[f32], p: usize, inner: usize, x: &[f32], out: &mut [f32]) {
    assert!(matrix.len() == p * p && inner.is_multiple_of(GROUP));
    assert!(x.len() == out.len() && x.len().is_multiple_of(p * inner));
    at_level!(level, mix_blocks(matrix, p, inner, x, out));
}

/// Makes the rows of the matrix `[_, cols]` orthonormal, in order.
pub(crate) fn gram_schmidt(level: Isa, rows: &mut [f64], cols: usize) {
    assert!(cols > 0 && rows.len().is_multiple_of(cols));
    at_level!(level, gram_schmidt(rows, cols));
}

/// `out = matrix x`, `matrix [out.len(), x.len()]`; each product as [`dot`].
pub(crate) fn matrix_vector(level: Isa, matrix: &[f32], x: &[f32], out: &mut [f32]) {
    assert_eq!(matrix.len(), x.len() * out.len());
    at_level!(level, matrix_vector(matrix, x, out));
}

/// `out += x matrix`, `matrix [x.len(), out.len()]`, row after row.
pub(crate) fn add_vector_matrix(level: Isa, matrix: &[f32], x: &[f32], out: &mut [f32]) {
    assert_eq!(matrix.len(), x.len() * out.len());
    at_level!(level, add_vector_matrix(matrix, x, out));
}

/// Inner product in eight lanes.
pub(crate) fn dot(level: Isa, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    at_level!(level, dot(a, b))
}

/// Sum of squares in f64; finite exactly when every element is.
pub(crate) fn energy(level: Isa, x: &[f32]) -> f64 {
    at_level!(level, energy(x))
}

/// Largest absolute value of finite elements.
pub(crate) fn largest(level: Isa, x: &[f32]) -> f32 {
    at_level!(level, largest(x))
}

/// What the levels nearest to targets explain of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Fit {
    /// Sum of |target level|.
    pub(crate) product: f64,
    /// Sum of level².
    pub(crate) energy: f64,
}

/// For each inverse step, the [`Fit`] of targets `x inverse_step`. `x.len()` is a multiple of 32.
pub(crate) fn score(level: Isa, book: Codebook, x: &[f32], inverse_steps: &[f32], out: &mut [Fit]) {
    assert!(x.len().is_multiple_of(GROUP) && inverse_steps.len() == out.len());
    at_level!(level, score(book, x, inverse_steps, out));
}

/// Codes of the levels nearest to `x inverse_step`, and their [`Fit`]. `x.len()` is a multiple of 32.
pub(crate) fn round(level: Isa, book: Codebook, x: &[f32], inverse_step: f32, codes: &mut [u8]) -> Fit {
    assert!(x.len().is_multiple_of(GROUP) && x.len() == codes.len());
    at_level!(level, round(book, x, inverse_step, codes))
}

/// See [`Activations::quantize`].
pub(crate) fn quantize_activations(
    level: Isa,
    x: &[f32],
    values: &mut [i8],
    magnitudes: &mut [u8],
    scales: &mut [f32],
) {
    let groups = x.len().div_ceil(GROUP);
    assert!(values.len() == groups * GROUP && magnitudes.len() == values.len() && scales.len() == groups);
    at_level!(level, quantize_activations(x, values, magnitudes, scales));
}

/// Rows of scalar codes, contiguous, as [`crate::Encoder`] wrote them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurboRows<'a> {
    pub(crate) book: Codebook,
    pub(crate) tables: &'a LevelTables,
    pub(crate) cols: usize,
    /// Elements per scale.
    pub(crate) group_len: usize,
    pub(crate) codes: &'a [u8],
    pub(crate) scales: &'a [u8],
}

impl<'a> TurboRows<'a> {
    fn check(&self, rows: usize) {
        assert!(self.cols > 0 && self.cols.is_multiple_of(GROUP));
        assert!(self.group_len >= GROUP && self.cols.is_multiple_of(self.group_len));
        assert!(self.group_len.is_multiple_of(GROUP));
        assert_eq!(self.codes.len(), rows * self.code_bytes());
        assert_eq!(self.scales.len(), rows * self.scale_bytes());
    }

    fn code_bytes(&self) -> usize {
        self.cols / 8 * usize::from(self.book.bits())
    }

    fn scale_bytes(&self) -> usize {
        self.cols / self.group_len * 2
    }

    /// Codes and scales of each row.
    fn rows(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        self.codes.chunks_exact(self.code_bytes()).zip(self.scales.chunks_exact(self.scale_bytes()))
    }
}

/// Decodes rows.
pub(crate) fn turbo_decode(level: Isa, rows: TurboRows<'_>, out: &mut [f32]) {
    rows.check(out.len() / rows.cols.max(1));
    assert!(out.len().is_multiple_of(rows.cols));
    at_level!(level, turbo_decode(rows, out));
}

/// `out[r] = <row r, x>`.
pub(crate) fn turbo_dot(level: Isa, rows: TurboRows<'_>, x: &Activations, out: &mut [f32]) {
    rows.check(out.len());
    assert_eq!(x.len(), rows.cols);
    at_level!(level, turbo_dot(rows, x, out));
}

/// `out[r] = <row r, x>`.
pub(crate) fn turbo_dot_f32(level: Isa, rows: TurboRows<'_>, x: &[f32], out: &mut [f32]) {
    rows.check(out.len());
    assert_eq!(x.len(), rows.cols);
    at_level!(level, turbo_dot_f32(rows, x, out));
}

/// Rows of a tile of levels that are multiplied at once.
pub(crate) const TILE_LANES: usize = 16;

/// Tokens that a tile of levels is multiplied by at once.
pub(crate) const TILE_TOKENS: usize = 12;

/// What levels in a tile are stored as, so that they have no sign.
pub(crate) const LEVEL_BIAS: i32 = 128;

/// Where in a tile of levels an element is.
fn tile_place(cols: usize, row: usize, col: usize) -> usize {
    (row / TILE_LANES * (cols / 4) + col / 4) * 4 * TILE_LANES + row % TILE_LANES * 4 + col % 4
}

/// Levels of rows of scalar codes to a tile: plus [`LEVEL_BIAS`] where `high` is empty, else as `low + 64 * high`, both
/// of the level's sign, each plus the bias.
pub(crate) fn turbo_levels(level: Isa, rows: TurboRows<'_>, low: &mut [u8], high: &mut [u8]) {
    let count = rows.scales.len() / rows.scale_bytes().max(1);
    rows.check(count);
    let padded = count.next_multiple_of(TILE_LANES) * rows.cols;
    let wide = matches!(rows.book.bits(), 6 | 7);
    assert!(low.len() == padded && high.len() == if wide { padded } else { 0 });
    at_level!(level, turbo_levels(rows, low, high));
}

/// Levels plus [`LEVEL_BIAS`] of rows of a strip, to rows `at ..` of a tile. Called in the order of rows: what follows
/// them in their block of rows may be overwritten.
pub(crate) fn trellis_levels(level: Isa, strip: StripRows<'_>, at: usize, low: &mut [u8]) {
    strip.check();
    assert!((at + strip.steps.len()).next_multiple_of(TILE_LANES) * strip.cols <= low.len());
    at_level!(level, trellis_levels(strip, at, low));
}

/// A tile of levels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileRows<'a> {
    pub(crate) cols: usize,
    pub(crate) low: &'a [u8],
    pub(crate) high: Option<&'a [u8]>,
    /// Value of level 1 in each row.
    pub(crate) steps: &'a [f32],
}

/// A block of tokens to multiply a tile by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TileTokens<'a> {
    /// `[cols / 4, TILE_TOKENS, 4]`.
    pub(crate) values: &'a [i8],
    /// `[cols / 32, TILE_TOKENS]`.
    pub(crate) scales: &'a [f32],
    /// `-LEVEL_BIAS` times the sum of a group's values, as `scales`.
    pub(crate) starts: &'a [i32],
}

/// `out[t * stride + r] = <row r, token t>` for as many tokens as `out` has rows, which begin `stride` apart.
pub(crate) fn level_multiply(
    level: Isa,
    tile: TileRows<'_>,
    x: TileTokens<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let padded = tile.steps.len().next_multiple_of(TILE_LANES) * tile.cols;
    assert!(tile.cols.is_multiple_of(GROUP) && tile.low.len() == padded);
    assert!(tile.high.is_none_or(|high| high.len() == padded));
    assert!(x.values.len() == tile.cols * TILE_TOKENS && x.scales.len() == x.starts.len());
    assert_eq!(x.scales.len(), tile.cols / GROUP * TILE_TOKENS);
    assert!(out.len() <= TILE_TOKENS * stride && tile.steps.len() <= stride);
    at_level!(level, level_multiply(tile, x, out, stride));
}

/// Decodes rows on a grid.
pub(crate) fn grid_decode(level: Isa, rows: GridRows<'_>, out: &mut [f32]) {
    rows.check(out.len() / rows.cols.max(1));
    assert!(out.len().is_multiple_of(rows.cols));
    at_level!(level, grid_decode(rows, out));
}

/// `out[r] = <row r, x>`, without rounding the values of the grid to the source's dtype.
pub(crate) fn grid_dot(level: Isa, rows: GridRows<'_>, x: &Activations, out: &mut [f32]) {
    rows.check(out.len());
    assert_eq!(x.len(), rows.cols);
    at_level!(level, grid_dot(rows, x, out));
}

/// `out[r] = <row r, x>`, of decoded values, in eight lanes: the same bits at every level.
pub(crate) fn grid_dot_f32(level: Isa, rows: GridRows<'_>, x: &[f32], out: &mut [f32]) {
    rows.check(out.len());
    assert_eq!(x.len(), rows.cols);
    at_level!(level, grid_dot_f32(rows, x, out));
}

/// Exact elements to f32; see [`gq_tensor::decode_f32`].
pub(crate) fn exact_decode(level: Isa, dtype: DType, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * dtype.size());
    at_level!(level, exact_decode(dtype, bytes, out));
}

/// `out[r] = <row r, x>` for contiguous rows of exact elements.
pub(crate) fn exact_dot(level: Isa, dtype: DType, bytes: &[u8], x: &[f32], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * x.len() * dtype.size());
    at_level!(level, exact_dot(dtype, bytes, x, out));
}

/// States of the largest trellis over the smallest number of branches.
pub(crate) const MOST_GROUPS: usize = 1 << 12;

/// Rows that trellis kernels work on at once, at most.
pub(crate) const BLOCK_ROWS: usize = 32;

/// Runs the search of a trellis code over `targets`, in levels.
///
/// `cost [2^L]` holds the cost of every state before the first row, and after the last on return.
/// `branch [rows, 2^(L - bits)]` receives, for each group of states that have the same predecessors, the upper bits
/// of the best one. Costs are compared with their lowest `bits` bits replaced by those upper bits, which makes
/// every comparison strict and the result the same at every level.
pub(crate) fn viterbi(
    level: Isa,
    bits: u32,
    values: &[f32],
    targets: &[f32],
    weights: &[f32],
    cost: &mut [f32],
    branch: &mut [u8],
) {
    assert!(
        (2..=6).contains(&bits)
            && values.len() == cost.len()
            && (1024..=4 * MOST_GROUPS).contains(&values.len())
    );
    assert!(targets.len() == weights.len() && branch.len() == targets.len() * (values.len() >> bits));
    at_level!(level, viterbi(bits, values, targets, weights, cost, branch));
}

/// Some rows of a strip of a trellis code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StripRows<'a> {
    pub(crate) trellis: &'a Trellis,
    pub(crate) cols: usize,
    /// Codes of the strip, column after column.
    pub(crate) codes: &'a [u8],
    pub(crate) column_bytes: usize,
    /// The first row wanted.
    pub(crate) first: usize,
    /// Value of level 1 in each row wanted.
    pub(crate) steps: &'a [f32],
}

impl<'a> StripRows<'a> {
    fn check(&self) {
        let rows = self.column_bytes / self.trellis.bits() * 8;
        assert!((8..=Encoding::STRIP_ROWS).contains(&rows) && self.first + self.steps.len() <= rows);
        assert!(self.cols.is_multiple_of(GROUP) && self.codes.len() == self.cols * self.column_bytes);
    }

    fn column(&self, col: usize) -> &'a [u8] {
        &self.codes[col * self.column_bytes..(col + 1) * self.column_bytes]
    }
}

/// Decodes rows.
pub(crate) fn trellis_decode(level: Isa, strip: StripRows<'_>, out: &mut [f32]) {
    strip.check();
    assert_eq!(out.len(), strip.steps.len() * strip.cols);
    at_level!(level, trellis_decode(strip, out));
}

/// `out[r] = <row r, x>`.
pub(crate) fn trellis_dot(level: Isa, strip: StripRows<'_>, x: &Activations, out: &mut [f32]) {
    strip.check();
    assert!(x.len() == strip.cols && out.len() == strip.steps.len());
    at_level!(level, trellis_dot(strip, x, out));
}

/// `out[r] = <row r, x>`.
pub(crate) fn trellis_dot_f32(level: Isa, strip: StripRows<'_>, x: &[f32], out: &mut [f32]) {
    strip.check();
    assert!(x.len() == strip.cols && out.len() == strip.steps.len());
    at_level!(level, trellis_dot_f32(strip, x, out));
}
