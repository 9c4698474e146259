//! Stored rows: back to f32, and multiplied by activations in place.

use crate::{
    Activations, Codebook,
    codebook::LevelTables,
    encoder::check_width,
    error::CodecError,
    kernel,
    kernel::{GridKind, GridRows, TurboRows},
    polar::PolarCode,
    prod::ProdCode,
    trellis::Trellis,
    trellis_strip::for_strips,
};
use gq_tensor::{DType, EncodedMatrix, Encoding, Isa, RotationSpec, ScaleGroup};
use half::f16;
use std::ops::Range;

/// A reader of matrices of one encoding and width: its tables, without the bytes.
#[derive(Clone, Debug)]
pub struct Decoder {
    encoding: Encoding,
    cols: usize,
    code: Code,
}

#[derive(Clone, Debug)]
enum Code {
    Exact(DType),
    Turbo { book: Codebook, tables: Box<LevelTables>, group: ScaleGroup },
    Prod { code: ProdCode, tables: Box<LevelTables> },
    Polar(PolarCode),
    Trellis(Box<Trellis>),
    Grid(GridKind),
}

impl Decoder {
    /// A decoder of rows of `cols` elements. The seed of `rotation` also seeds the sketch of `Prod`.
    ///
    /// # Errors
    /// For encodings that are not in the registry, and widths the encoding does not support.
    pub fn new(encoding: Encoding, rotation: RotationSpec, cols: usize) -> Result<Decoder, CodecError> {
        check_width(encoding, cols)?;
        let code = match encoding {
            Encoding::Exact(dtype) => Code::Exact(dtype),
            Encoding::Turbo { bits, group } => {
                let book = Codebook::of(bits).ok_or(CodecError::Unregistered { encoding })?;
                Code::Turbo { book, tables: Box::new(LevelTables::new(book)), group }
            }
            Encoding::Prod { bits, sketch } => {
                let code = ProdCode::new(bits, sketch, rotation.seed, cols)?;
                Code::Prod { tables: Box::new(LevelTables::new(code.book())), code }
            }
            Encoding::Polar(polar) => Code::Polar(PolarCode::new(polar)),
            Encoding::Trellis { .. } => {
                Code::Trellis(Box::new(Trellis::of(encoding).ok_or(CodecError::Unregistered { encoding })?))
            }
            Encoding::Grid(_) | Encoding::Mxfp4 => {
                Code::Grid(GridKind::of(encoding).ok_or(CodecError::Unregistered { encoding })?)
            }
        };
        Ok(Decoder { encoding, cols, code })
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
    pub fn decode_rows(&self, level: Isa, matrix: &EncodedMatrix<'_>, rows: Range<usize>, out: &mut [f32]) {
        self.check(matrix, &rows, rows.len());
        assert_eq!(out.len(), rows.len() * self.cols, "rows and output");
        if let Code::Trellis(trellis) = &self.code {
            return for_strips(trellis, matrix, rows, |at, strip| {
                let out = &mut out[at * self.cols..(at + strip.steps.len()) * self.cols];
                kernel::trellis_decode(level, strip, out);
            });
        }
        for (row, out) in rows.zip(out.chunks_exact_mut(self.cols)) {
            self.decode_one(level, matrix, row, out);
        }
    }

    /// [`decode_rows`](Decoder::decode_rows) for one row.
    ///
    /// # Panics
    /// When `matrix` is of another encoding or width, `row` is out of range, or `out` is not a row long.
    pub fn decode_row(&self, level: Isa, matrix: &EncodedMatrix<'_>, row: usize, out: &mut [f32]) {
        self.decode_rows(level, matrix, row..row.saturating_add(1), out);
    }

    fn decode_one(&self, level: Isa, matrix: &EncodedMatrix<'_>, row: usize, out: &mut [f32]) {
        let (codes, scales) = (matrix.codes(row), matrix.scales(row));
        match &self.code {
            Code::Exact(dtype) => kernel::exact_decode(level, *dtype, codes, out),
            Code::Turbo { book, tables, group } => {
                kernel::turbo_decode(level, self.turbo(*book, tables, *group, codes, scales), out);
            }
            Code::Prod { code, tables } => {
                let parts = ProdRow::new(code, self.cols, codes, scales);
                let low = self.turbo(code.book(), tables, ScaleGroup::Row, parts.low, parts.scale);
                kernel::turbo_decode(level, low, out);
                code.add_residual(level, parts.signs, parts.gamma, out);
            }
            Code::Polar(code) => code.decode_row(codes, scales, out),
            Code::Grid(kind) => {
                kernel::grid_decode(level, GridRows { kind: *kind, cols: self.cols, codes, scales }, out);
            }
            Code::Trellis(_) => {}
        }
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
        matrix: &EncodedMatrix<'_>,
        rows: Range<usize>,
        x: &Activations,
        out: &mut [f32],
    ) {
        match &self.code {
            Code::Turbo { book, tables, group } => {
                self.check(matrix, &rows, out.len());
                let (codes, scales) = self.slices(matrix, &rows);
                kernel::turbo_dot(level, self.turbo(*book, tables, *group, codes, scales), x, out);
            }
            Code::Trellis(trellis) => {
                self.check(matrix, &rows, out.len());
                for_strips(trellis, matrix, rows, |at, strip| {
                    let out = &mut out[at..at + strip.steps.len()];
                    kernel::trellis_dot(level, strip, x, out);
                });
            }
            Code::Grid(kind) => {
                self.check(matrix, &rows, out.len());
                let (codes, scales) = self.slices(matrix, &rows);
                kernel::grid_dot(level, GridRows { kind: *kind, cols: self.cols, codes, scales }, x, out);
            }
            Code::Exact(_) | Code::Prod { .. } | Code::Polar(_) => {
                let mut plain = vec![0.0; self.cols];
                x.dequantize(&mut plain);
                self.dot_rows_f32(level, matrix, rows, &plain, out);
            }
        }
    }

    /// [`dot_rows`](Decoder::dot_rows) with f32 activations.
    ///
    /// # Panics
    /// When `matrix` is of another encoding or width, `rows` is out of range, or lengths do not match.
    pub fn dot_rows_f32(
        &self,
        level: Isa,
        matrix: &EncodedMatrix<'_>,
        rows: Range<usize>,
        x: &[f32],
        out: &mut [f32],
    ) {
        self.check(matrix, &rows, out.len());
        assert_eq!(x.len(), self.cols, "activations");
        if let Code::Trellis(trellis) = &self.code {
            return for_strips(trellis, matrix, rows, |at, strip| {
                let out = &mut out[at..at + strip.steps.len()];
                kernel::trellis_dot_f32(level, strip, x, out);
            });
        }
        let (codes, scales) = self.slices(matrix, &rows);
        match &self.code {
            Code::Exact(dtype) => kernel::exact_dot(level, *dtype, codes, x, out),
            Code::Grid(kind) => {
                kernel::grid_dot_f32(level, GridRows { kind: *kind, cols: self.cols, codes, scales }, x, out);
            }
            Code::Turbo { book, tables, group } => {
                kernel::turbo_dot_f32(level, self.turbo(*book, tables, *group, codes, scales), x, out);
            }
            Code::Prod { code, tables } => {
                let projected = code.project(level, x);
                for (row, out) in rows.zip(out) {
                    let parts = ProdRow::new(code, self.cols, matrix.codes(row), matrix.scales(row));
                    let low = self.turbo(code.book(), tables, ScaleGroup::Row, parts.low, parts.scale);
                    kernel::turbo_dot_f32(level, low, x, std::slice::from_mut(out));
                    *out += code.residual_dot(level, parts.signs, parts.gamma, &projected);
                }
            }
            Code::Polar(_) => {
                let mut decoded = vec![0.0; self.cols];
                for (row, out) in rows.zip(out) {
                    self.decode_row(level, matrix, row, &mut decoded);
                    *out = kernel::dot(level, &decoded, x);
                }
            }
            Code::Trellis(_) => {}
        }
    }

    /// Whether unpacking levels for many tokens pays on this machine: [`LevelTile`](crate::LevelTile) does it on all.
    pub fn multiplies_levels(&self, level: Isa) -> bool {
        matches!(level, Isa::Avx512(_)) && self.wide_levels().is_some()
    }

    /// Whether levels take more than a byte; `None`: they are no integers with one scale per row.
    pub(crate) fn wide_levels(&self) -> Option<bool> {
        match &self.code {
            Code::Turbo { book, group: ScaleGroup::Row, .. } => Some(matches!(book.bits(), 6 | 7)),
            Code::Trellis(_) => Some(false),
            _ => None,
        }
    }

    /// Levels of rows as [`LevelTile`](crate::LevelTile) has them, and what a level is worth in each row.
    pub(crate) fn read_levels(
        &self,
        level: Isa,
        matrix: &EncodedMatrix<'_>,
        rows: Range<usize>,
        (low, high): (&mut [u8], &mut [u8]),
        steps: &mut [f32],
    ) {
        self.check(matrix, &rows, steps.len());
        match &self.code {
            Code::Turbo { book, tables, group } => {
                let (codes, scales) = self.slices(matrix, &rows);
                for (step, scale) in steps.iter_mut().zip(scales.as_chunks::<2>().0) {
                    *step = f16::from_le_bytes(*scale).to_f32() * book.unit();
                }
                kernel::turbo_levels(level, self.turbo(*book, tables, *group, codes, scales), low, high);
            }
            Code::Trellis(trellis) => for_strips(trellis, matrix, rows, |at, strip| {
                steps[at..at + strip.steps.len()].copy_from_slice(strip.steps);
                kernel::trellis_levels(level, strip, at, low);
            }),
            Code::Exact(_) | Code::Prod { .. } | Code::Polar(_) | Code::Grid(_) => {}
        }
    }

    fn check(&self, matrix: &EncodedMatrix<'_>, rows: &Range<usize>, len: usize) {
        assert_eq!(matrix.encoding(), self.encoding, "encoding of the matrix");
        assert_eq!(matrix.shape().cols, self.cols, "width of the matrix");
        assert!(rows.start <= rows.end && rows.end <= matrix.shape().rows, "rows {rows:?}");
        assert_eq!(rows.len(), len, "rows and output");
    }

    /// Code and scale bytes of a range of rows already checked.
    fn slices<'a>(&self, matrix: &EncodedMatrix<'a>, rows: &Range<usize>) -> (&'a [u8], &'a [u8]) {
        let part = |bytes: &'a [u8], row_bytes: usize| {
            bytes.get(rows.start * row_bytes..rows.end * row_bytes).unwrap_or(&[])
        };
        let codes = part(matrix.all_codes(), self.encoding.codes_row_bytes(self.cols));
        (codes, part(matrix.all_scales(), self.encoding.scales_row_bytes(self.cols)))
    }

    fn turbo<'a>(
        &self,
        book: Codebook,
        tables: &'a LevelTables,
        group: ScaleGroup,
        codes: &'a [u8],
        scales: &'a [u8],
    ) -> TurboRows<'a> {
        TurboRows { book, tables, cols: self.cols, group_len: group.len(self.cols), codes, scales }
    }
}

/// The parts of one stored row of `Prod`.
struct ProdRow<'a> {
    low: &'a [u8],
    signs: &'a [u8],
    scale: &'a [u8],
    gamma: f16,
}

impl<'a> ProdRow<'a> {
    fn new(code: &ProdCode, cols: usize, codes: &'a [u8], scales: &'a [u8]) -> ProdRow<'a> {
        let (low, signs) = codes.split_at(cols / 8 * usize::from(code.book().bits()));
        let (scale, gamma) = scales.split_at(2);
        let gamma = gamma.first_chunk::<2>().map_or(f16::ZERO, |bytes| f16::from_le_bytes(*bytes));
        ProdRow { low, signs, scale, gamma }
    }
}
