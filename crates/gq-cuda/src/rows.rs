//! Rows of tables in planes, such as embeddings.

use crate::call::{Call, MOST, bytes};
use crate::{Launch, LaunchError, Module, PlaneCode, ScaleForm, Span};
use gq_tensor::Rounding;

/// Rows of a table, in the rotated basis: `[tokens, cols]` of f32, as `gq_codec::Decoder` decodes them.
#[derive(Clone, Copy, Debug)]
pub struct PlaneRows {
    /// What codes stand for.
    pub code: PlaneCode,
    /// Where scales are.
    pub form: ScaleForm,
    /// What values of a grid are rounded to.
    pub rounding: Rounding,
    /// [`layout::planes_upload`](crate::layout::planes_upload).
    pub codes: Span,
    /// Scales as they are stored.
    pub scales: Span,
    /// u32 `[tokens]`, each below `rows`.
    pub ids: Span,
    /// f32 `[tokens, cols]`.
    pub y: Span,
    /// Rows of the table.
    pub rows: usize,
    /// Elements of a row, a multiple of 32.
    pub cols: usize,
    /// Rows wanted.
    pub tokens: usize,
}

impl PlaneRows {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let bits = usize::from(self.code.bits());
        let name = match self.code {
            PlaneCode::Scalar(1) => "embed_tq1",
            PlaneCode::Scalar(2) => "embed_tq2",
            PlaneCode::Scalar(3) => "embed_tq3",
            PlaneCode::Scalar(4) => "embed_tq4",
            PlaneCode::Scalar(5) => "embed_tq5",
            PlaneCode::Scalar(6) => "embed_tq6",
            PlaneCode::Scalar(7) => "embed_tq7",
            PlaneCode::Scalar(8) | PlaneCode::Grid(8) => "embed_bytes",
            PlaneCode::Mxfp4 => "embed_mxfp4",
            PlaneCode::Grid(4) => "embed_grid4",
            PlaneCode::Grid(5) => "embed_grid5",
            PlaneCode::Grid(6) => "embed_grid6",
            PlaneCode::GridFromMinimum(4) => "embed_grid4m",
            PlaneCode::GridFromMinimum(5) => "embed_grid5m",
            _ => {
                let kernel = "embed";
                return Err(LaunchError::Range { kernel, what: "bits", actual: bits, least: 1, most: 8 });
            }
        };
        let mut call = Call::new(Module::Embed, name);
        let tokens = call.check("tokens", self.tokens, 1, MOST)?;
        let (form, shift) = self.form.number();
        call.multiple("cols", self.cols, 32 << shift)?;
        call.span("codes", self.codes, bytes(&[self.rows, self.cols / 8, bits], 1), 16)?;
        let scales = bytes(&[self.rows, self.form.row_bytes(self.cols)], 1);
        call.span("scales", self.scales, scales, 8)?;
        call.u32(form);
        call.u32(shift);
        call.f32(self.code.unit());
        call.u32(match self.rounding {
            Rounding::F32 => 0,
            Rounding::F16 => 1,
            Rounding::BF16 => 2,
        });
        call.span("ids", self.ids, bytes(&[self.tokens], 4), 4)?;
        call.span("y", self.y, bytes(&[self.tokens, self.cols], 4), 16)?;
        call.number("rows", self.rows, 1, MOST)?;
        call.number("cols", self.cols, 32, MOST)?;
        Ok(call.on([tokens, 1, 1], 128, 0))
    }
}
