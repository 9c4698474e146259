//! RMS norm.

use crate::call::{Call, MOST, bytes};
use crate::{Launch, LaunchError, Module, Parts, Span};

/// `y = x / sqrt(mean(x^2) + eps) * weight` over rows `[rows, width]` of f32; [`define::rms_norm`](crate::define::rms_norm).
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm {
    /// What is normed, or added to the residual stream first.
    pub x: Parts,
    /// `[rows, width]`, read and written: `residual += x` is normed.
    pub residual: Option<Span>,
    /// `[width]`; none: 1.
    pub weight: Option<Span>,
    /// `[rows, width]`.
    pub y: Span,
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Added to the mean square.
    pub eps: f32,
}

impl RmsNorm {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Norm, "rms_norm");
        let matrix = bytes(&[self.rows, self.width], 4);
        let rows = call.check("rows", self.rows, 1, MOST)?;
        call.parts("x", self.x, self.rows, self.width)?;
        call.optional("residual", self.residual, matrix, 4)?;
        call.optional("weight", self.weight, bytes(&[self.width], 4), 4)?;
        call.span("y", self.y, matrix, 4)?;
        call.number("width", self.width, 1, MOST)?;
        call.f32(self.eps);
        Ok(call.on([rows, 1, 1], 256, 0))
    }
}
