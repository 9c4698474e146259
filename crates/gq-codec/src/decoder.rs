//! Stored rows: back to f32, and multiplied by activations in place.

use crate::code::{Code, LevelCode, prepared};
use crate::error::CodecError;
use crate::kernel::Activations;
use gq_tensor::{CodedRows, Encoding, Isa, Storage};
use std::ops::Range;
use std::sync::Arc;

/// A reader of matrices of one encoding and width: its tables, without the bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    encoding: Encoding,
    cols: usize,
    code: Arc<dyn Code>,
}

impl Decoder {
    /// A decoder of rows of `cols` elements.
    ///
    /// # Errors
    /// For encodings that are not in the registry, and widths the encoding does not support.
    pub fn new(storage: Storage, cols: usize) -> Result<Decoder, CodecError> {
        Ok(Decoder::of(storage.encoding, cols, prepared(storage, cols)?))
    }

    /// With tables that are made already.
    pub(crate) fn of(encoding: Encoding, cols: usize, code: Arc<dyn Code>) -> Decoder {
        Decoder { encoding, cols, code }
    }

    /// How rows are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Elements per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Decodes rows to `out [rows.len(), cols]`, in the rotated basis (exact encodings: as they were).
    /// The same bits at every level.
    ///
    /// Trellis codes are read 32 rows at a time: ranges of few rows cost as much.
    ///
    /// # Panics
    /// When `matrix` is of another encoding or width, `rows` is out of range, or `out` has another length.
    pub fn decode_rows(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]) {
        self.check(matrix, &rows, rows.len());
        assert_eq!(out.len(), rows.len() * self.cols, "rows and output");
        self.code.decode(level, matrix, rows, out);
    }

    /// [`decode_rows`](Decoder::decode_rows) for one row.
    ///
    /// # Panics
    /// When `matrix` is of another encoding or width, `row` is out of range, or `out` is not a row long.
    pub fn decode_row(&self, level: Isa, matrix: &CodedRows<'_>, row: usize, out: &mut [f32]) {
        self.decode_rows(level, matrix, row..row.saturating_add(1), out);
    }

    /// `out[i]` = inner product of row `rows.start + i` and the activations, without decoding scalar or trellis codes.
    ///
    /// Scalar and trellis codes multiply the int8 values; other encodings multiply the dequantized activations.
    /// Sums are ordered as suits the level: results differ between levels by f32 rounding.
    ///
    /// # Panics
    /// When `matrix` is of another encoding or width, `rows` is out of range, or lengths do not match.
    pub fn dot_rows(
        &self,
        level: Isa,
        matrix: &CodedRows<'_>,
        rows: Range<usize>,
        x: &Activations,
        out: &mut [f32],
    ) {
        self.check(matrix, &rows, out.len());
        self.code.dot(level, matrix, rows, x, out);
    }

    /// [`dot_rows`](Decoder::dot_rows) with f32 activations.
    ///
    /// # Panics
    /// When `matrix` is of another encoding or width, `rows` is out of range, or lengths do not match.
    pub fn dot_rows_f32(
        &self,
        level: Isa,
        matrix: &CodedRows<'_>,
        rows: Range<usize>,
        x: &[f32],
        out: &mut [f32],
    ) {
        self.check(matrix, &rows, out.len());
        assert_eq!(x.len(), self.cols, "activations");
        self.code.dot_f32(level, matrix, rows, x, out);
    }

    /// Whether unpacking levels for many tokens pays on this machine: [`LevelTile`](crate::LevelTile) does it on all.
    pub fn multiplies_levels(&self, level: Isa) -> bool {
        matches!(level, Isa::Avx512(_)) && self.levels().is_some()
    }

    /// What it decodes.
    pub(crate) fn code(&self) -> &Arc<dyn Code> {
        &self.code
    }

    /// The levels of rows, where they are integers with one scale per row.
    pub(crate) fn levels(&self) -> Option<&dyn LevelCode> {
        self.code.levels()
    }

    /// Refuses rows of a matrix that are not there, or are read differently.
    pub(crate) fn check(&self, matrix: &CodedRows<'_>, rows: &Range<usize>, len: usize) {
        assert_eq!(matrix.encoding(), self.encoding, "encoding of the matrix");
        assert_eq!(matrix.shape().cols, self.cols, "width of the matrix");
        assert!(rows.start <= rows.end && rows.end <= matrix.shape().rows, "rows {rows:?}");
        assert_eq!(rows.len(), len, "rows and output");
    }
}
