//! Operators that look at one element at a time.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::{Launch, LaunchError, Module, Parts, Span};

/// `activation(gate) * up`, of columns of the same rows; [`define::gated`](crate::define::gated).
#[derive(Clone, Copy, Debug)]
pub struct Gated {
    /// `[rows, width]`: gates are columns 0 and on.
    pub x: Parts,
    /// Elements of a row.
    pub width: usize,
    /// The first column of the other factor.
    pub up: usize,
    /// Columns.
    pub columns: usize,
    /// GELU by tanh; else SiLU.
    pub gelu: bool,
    /// f32 `[rows, columns]`.
    pub y: Span,
    /// Rows.
    pub rows: usize,
}

impl Gated {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Elements, "gated");
        let rows = call.check("rows", self.rows, 1, MOST_OTHER)?;
        call.parts("x", self.x, self.rows, self.width)?;
        call.number("width", self.width, self.up.saturating_add(self.columns), MOST)?;
        call.u32(self.up as u32);
        let columns = call.number("columns", self.columns, 1, MOST)?;
        call.u32(u32::from(self.gelu));
        call.span("y", self.y, bytes(&[self.rows, self.columns], 4), 4)?;
        Ok(call.on([columns.div_ceil(256), rows, 1], 256, 0))
    }
}

/// `y = (residual + x) * factor`, or `x * factor`.
#[derive(Clone, Copy, Debug)]
pub struct AddScaled {
    /// `[count]`.
    pub x: Parts,
    /// f32 `[count]`.
    pub residual: Option<Span>,
    /// Factor.
    pub factor: f32,
    /// f32 `[count]`; may be the residual.
    pub y: Span,
    /// Elements.
    pub count: usize,
}

impl AddScaled {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Elements, "add_scaled");
        call.parts("x", self.x, 1, self.count)?;
        call.optional("residual", self.residual, bytes(&[self.count], 4), 4)?;
        call.f32(self.factor);
        call.span("y", self.y, bytes(&[self.count], 4), 4)?;
        let count = call.number("elements", self.count, 1, MOST)?;
        Ok(call.on([count.div_ceil(256), 1, 1], 256, 0))
    }
}

/// `y = cap * tanh(x / cap)`.
#[derive(Clone, Copy, Debug)]
pub struct Softcap {
    /// `[count]`.
    pub x: Parts,
    /// Largest value.
    pub cap: f32,
    /// f32 `[count]`.
    pub y: Span,
    /// Elements.
    pub count: usize,
}

impl Softcap {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Elements, "softcap");
        call.parts("x", self.x, 1, self.count)?;
        call.f32(self.cap);
        call.span("y", self.y, bytes(&[self.count], 4), 4)?;
        let count = call.number("elements", self.count, 1, MOST)?;
        Ok(call.on([count.div_ceil(256), 1, 1], 256, 0))
    }
}
