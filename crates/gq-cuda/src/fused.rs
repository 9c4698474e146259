//! What comes before a product, and activations to int8, in one launch.

use crate::call::{Call, MOST, bytes};
use crate::rotate::{MOST_ROTATED, threads};
use crate::{HeadNorm, Launch, LaunchError, Module, Parts, RotationTables, Span};

/// The residual stream that a row joins.
#[derive(Clone, Copy, Debug)]
pub struct Joined {
    /// Norm of what joins, over the whole row.
    pub norm: Option<HeadNorm>,
    /// f32 `[rows, cols]`, read and written: `(residual + x) * scale`.
    pub residual: Span,
    /// Factor.
    pub scale: f32,
}

/// An RMS norm of rows and what [`Rotate`](crate::Rotate) does, of up to 24,576 columns: the results of
/// [`RmsNorm`](crate::RmsNorm), [`AddScaled`](crate::AddScaled), [`RmsNorm`](crate::RmsNorm) and
/// [`Rotate`](crate::Rotate), one after the other.
#[derive(Clone, Copy, Debug)]
pub struct NormRotate {
    /// What is normed, or joins the residual stream first.
    pub x: Parts,
    /// The residual stream, which is then what is normed.
    pub joined: Option<Joined>,
    /// Norm of a whole row.
    pub norm: HeadNorm,
    /// [`RotationTables::signs`].
    pub signs: Span,
    /// [`RotationTables::factors`].
    pub factors: Span,
    /// Int8 `[rows, cols]`.
    pub values: Span,
    /// f32 `[rows, cols / 32]`.
    pub steps: Span,
    /// Rows.
    pub rows: usize,
}

impl NormRotate {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self, tables: &RotationTables) -> Result<Launch, LaunchError> {
        let (mut call, cols) = (Call::new(Module::Rotate, "norm_rotate"), tables.cols);
        let matrix = bytes(&[self.rows, cols], 4);
        call.parts("x", self.x, self.rows, cols)?;
        let post = self.joined.and_then(|joined| joined.norm);
        call.u32(u32::from(post.is_some()));
        let weight = post.and_then(|norm| norm.weight);
        call.optional("weight of what joins", weight, bytes(&[cols], 4), 4)?;
        call.f32(post.map_or(0.0, |norm| norm.eps));
        call.optional("residual", self.joined.map(|joined| joined.residual), matrix, 4)?;
        call.f32(self.joined.map_or(1.0, |joined| joined.scale));
        call.optional("weight", self.norm.weight, bytes(&[cols], 4), 4)?;
        call.f32(self.norm.eps);
        rotated(call, tables, self.rows, self.signs, self.factors, self.values, self.steps)
    }
}

/// `activation(gate) * up` as [`Gated`](crate::Gated) has it, and what [`Rotate`](crate::Rotate) does.
#[derive(Clone, Copy, Debug)]
pub struct GatedRotate {
    /// `[rows, width]`: gates are columns 0 and on.
    pub x: Parts,
    /// Elements of a row.
    pub width: usize,
    /// The first column of the other factor.
    pub up: usize,
    /// GELU by tanh; else SiLU.
    pub gelu: bool,
    /// [`RotationTables::signs`].
    pub signs: Span,
    /// [`RotationTables::factors`].
    pub factors: Span,
    /// Int8 `[rows, cols]`.
    pub values: Span,
    /// f32 `[rows, cols / 32]`.
    pub steps: Span,
    /// Rows.
    pub rows: usize,
}

impl GatedRotate {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self, tables: &RotationTables) -> Result<Launch, LaunchError> {
        let mut call = Call::new(Module::Rotate, "gated_rotate");
        call.parts("x", self.x, self.rows, self.width)?;
        call.number("width", self.width, self.up.saturating_add(tables.cols), MOST)?;
        call.u32(self.up as u32);
        call.u32(u32::from(self.gelu));
        rotated(call, tables, self.rows, self.signs, self.factors, self.values, self.steps)
    }
}

/// The rest of a launch, whose last parameters are those of a rotation.
fn rotated(
    mut call: Call,
    tables: &RotationTables,
    rows: usize,
    signs: Span,
    factors: Span,
    values: Span,
    steps: Span,
) -> Result<Launch, LaunchError> {
    let cols = tables.cols;
    let blocks = call.check("rows", rows, 1, MOST)?;
    call.check("cols", cols, 32, MOST_ROTATED)?;
    call.multiple("cols", cols, 32)?;
    call.span("signs", signs, bytes(&[tables.signs.len()], 4), 4)?;
    call.f32(tables.factor);
    call.span("factors", factors, bytes(&[tables.factors.len()], 4), 4)?;
    call.u32(cols as u32);
    call.u32(tables.block as u32);
    call.span("values", values, bytes(&[rows, cols], 1), 16)?;
    call.span("steps", steps, bytes(&[rows, cols / 32], 4), 4)?;
    Ok(call.on([blocks, 1, 1], threads(cols), 4 * cols as u32))
}
