//! What a code is, and which one each encoding has.
//!
//! A code is a file here and a line of [`code_of`]. Whoever plans, estimates or promises memory asks a [`Code`], so that
//! nothing else lists them.

mod exact;
mod grid;
mod polar;
mod prod;
mod trellis;
mod turbo;

use crate::error::CodecError;
use crate::factor::Factor;
use crate::kernel::Activations;
use crate::ldlq::{StripOutcome, round_strip_bytes};
use crate::parallelism::Parallelism;
use gq_tensor::{CodedRows, Encoding, Isa, Storage};
pub use grid::on_grid;
use half::f16;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// A way of storing rows.
///
/// A code is made at no cost; [`prepare`](Code::prepare) makes what takes time or memory. [`Encoder`](crate::Encoder) and
/// [`Decoder`](crate::Decoder) do that, and check widths and lengths before they call.
pub trait Code: Debug + Send + Sync {
    /// Expected squared error of a weight of unit variance, scales aside, which more scales only lower; 0 where rows are
    /// stored without loss, `None` where it is not known.
    fn distortion(&self) -> Option<f64>;

    /// Bytes that a thread takes to encode rows of `cols` elements, in addition to the rows and their codes.
    fn scratch_bytes(&self, cols: usize) -> u64 {
        2 * 4 * cols as u64
    }

    /// Bytes of tables that grow with the width.
    fn tables(&self, _cols: usize) -> TableBytes {
        TableBytes::default()
    }

    /// Makes the tables for rows of `cols` elements; called before rows are encoded, decoded or multiplied.
    ///
    /// # Errors
    /// When there are none for this width.
    fn prepare(&self, _cols: usize) -> Result<(), CodecError> {
        Ok(())
    }

    /// Rounds the rotated rows of a strip, or one row: all that [`Encoding::strip_rows`] says are coded together.
    fn encode(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    );

    /// Decodes rows to `out [rows.len(), cols]`. The same bits at every level.
    fn decode(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]);

    /// `out[i]` = inner product of row `rows.start + i` and `x`. Sums are ordered as suits the level.
    fn dot_f32(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &[f32], out: &mut [f32]);

    /// The same with int8 activations; dequantized where the code has no product of its own.
    fn dot(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &Activations, out: &mut [f32]) {
        let mut plain = vec![0.0; matrix.shape().cols];
        x.dequantize(&mut plain);
        self.dot_f32(level, matrix, rows, &plain, out);
    }

    /// How it rounds column after column; `None` for a code that rounds rows as they are.
    fn columns(self: Arc<Self>) -> Option<Arc<dyn ColumnCode>> {
        None
    }

    /// Its levels, where they are integers with one scale per row.
    fn levels(&self) -> Option<&dyn LevelCode> {
        None
    }

    /// Whether each row is what one f16 scale is multiplied by: a factor on that is a factor on the row.
    fn has_row_scale(&self) -> bool {
        false
    }

    /// Whether all of these stored scales are finite numbers.
    fn finite_scales(&self, scales: &[u8]) -> bool {
        scales.as_chunks::<2>().0.iter().all(|&scale| f16::from_le_bytes(scale).is_finite())
    }
}

/// A code that rounds column after column, with the inputs' second moments in view.
pub trait ColumnCode: Send + Sync {
    /// Rounds the rows of a strip of at most [`Encoding::STRIP_ROWS`] rows, and writes their codes and
    /// scales.
    ///
    /// A row (or scale group) without energy is coded as zeros; one with a value that is not finite as well,
    /// with scales that are no numbers. The same bytes at every level.
    ///
    /// # Panics
    /// When a slice's length is not what rows, width and encoding say.
    fn encode(
        &self,
        level: Isa,
        parallelism: Parallelism,
        factor: &Factor,
        strip: Strip<'_>,
        codes: &mut [u8],
        scales: &mut [u8],
    ) -> StripOutcome;

    /// Bytes at most while a strip of `rows` rows of `cols` elements is rounded, its weights among them; its codes and
    /// scales and [`scratch_bytes`](Code::scratch_bytes) come in addition.
    fn strip_bytes(&self, rows: usize, cols: usize) -> u64 {
        round_strip_bytes(rows, cols)
    }

    /// Multiplications that a code of one weight takes, those of the feedback aside.
    fn multiplications(&self) -> f64;
}

/// Rows that are rounded together.
#[derive(Clone, Copy, Debug)]
pub struct Strip<'a> {
    /// Rotated weights `[rows, n]`.
    pub rotated: &'a [f32],
    /// What an error in each row costs, in addition to its size, where rows are coded together; `None`: all the same.
    pub row_weights: Option<&'a [f32]>,
}

/// A code whose levels can be multiplied as integers.
pub trait LevelCode: Send + Sync {
    /// Whether levels take more than a byte.
    fn are_wide(&self) -> bool;

    /// Unpacks the levels of some rows.
    fn read_levels(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: Levels<'_>);
}

/// Room for the levels of some rows, as [`LevelTile`](crate::LevelTile) has them.
#[derive(Debug)]
pub struct Levels<'a> {
    /// Levels, or their lower parts.
    pub low: &'a mut [u8],
    /// Upper parts; empty where levels take a byte.
    pub high: &'a mut [u8],
    /// What a level is worth in each row.
    pub steps: &'a mut [f32],
}

/// Bytes of tables that grow with the width.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableBytes {
    /// As long as the code is used.
    pub kept: u64,
    /// In addition, while they are made.
    pub making: u64,
}

/// Encodings that differ in a number, as people are told of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    /// Their names, or the first and the last.
    pub names: &'static str,
    /// What they are.
    pub text: &'static str,
}

/// All encodings, the closest at their bits first.
pub fn families() -> impl Iterator<Item = Family> {
    [trellis::FAMILIES, turbo::FAMILIES, prod::FAMILIES, polar::FAMILIES, grid::FAMILIES, exact::FAMILIES]
        .into_iter()
        .flatten()
        .copied()
}

/// What [`Code::encode`] works with: threads, and buffers; keep one per thread.
#[derive(Clone, Debug, Default)]
pub struct EncodeScratch {
    parallelism: Parallelism,
    codes: Vec<u8>,
    residual: Vec<f32>,
    sketch: Vec<f32>,
}

impl EncodeScratch {
    /// Without buffers yet. By default, searches of strips are spread over threads.
    pub fn new(parallelism: Parallelism) -> EncodeScratch {
        EncodeScratch { parallelism, ..EncodeScratch::default() }
    }
}

/// The code of an encoding. The seed of the rotation also seeds the sketch of `Prod`.
///
/// # Errors
/// For encodings that are not in the registry.
pub fn code_of(storage: Storage) -> Result<Arc<dyn Code>, CodecError> {
    let encoding = storage.encoding;
    let unregistered = CodecError::Unregistered { encoding };
    if Encoding::from_code(encoding.code()) != Some(encoding) {
        return Err(unregistered);
    }
    Ok(match encoding {
        Encoding::Exact(dtype) => Arc::new(exact::Exact { dtype }),
        Encoding::Turbo { bits, group } => Arc::new(turbo::Turbo::new(bits, group).ok_or(unregistered)?),
        Encoding::Prod { bits, sketch } => {
            Arc::new(prod::Prod::new(bits, sketch, storage.rotation.seed).ok_or(unregistered)?)
        }
        Encoding::Polar(polar) => Arc::new(polar::PolarCode::new(polar)),
        Encoding::Trellis { bits, states } => {
            Arc::new(trellis::TrellisCode::new(bits, states).ok_or(unregistered)?)
        }
        Encoding::Grid(_) | Encoding::Mxfp4 => Arc::new(grid::GridCode::new(encoding).ok_or(unregistered)?),
    })
}

/// The code of an encoding for rows of this width, with its tables.
///
/// # Errors
/// For encodings that are not in the registry, and widths the encoding does not support.
pub(crate) fn prepared(storage: Storage, cols: usize) -> Result<Arc<dyn Code>, CodecError> {
    let code = code_of(storage)?;
    if !storage.encoding.supports_cols(cols) {
        return Err(CodecError::Width { encoding: storage.encoding, cols });
    }
    code.prepare(cols)?;
    Ok(code)
}
