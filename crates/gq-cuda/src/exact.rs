//! Weights that are stored as f32, f16 or bf16: products with f32 activations, and rows.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::product::row_split;
use crate::{Experts, Launch, LaunchError, Module, Span};
use gq_tensor::DType;

fn refused(kernel: &'static str, dtype: DType) -> LaunchError {
    LaunchError::Range { kernel, what: "bytes of an element", actual: dtype.size(), least: 2, most: 4 }
}

/// `y[t, row] = <row, x[t]>`; [`define::exact_product`](crate::define::exact_product).
#[derive(Clone, Copy, Debug)]
pub struct ExactProduct {
    /// f32, f16 or bf16.
    pub dtype: DType,
    /// `[matrices, rows, cols]`.
    pub weights: Span,
    /// f32 `[tokens, cols]`; with experts `[slots / per, cols]`.
    pub x: Span,
    /// f32 `[tokens, rows]`; with experts `[slots, rows]`.
    pub y: Span,
    /// Rows of a matrix.
    pub rows: usize,
    /// Elements of a row, a multiple of 4.
    pub cols: usize,
    /// 1 to 8; 1 with experts.
    pub tokens: usize,
    /// Chosen matrices of several.
    pub experts: Option<Experts>,
}

impl ExactProduct {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range, or for other dtypes.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let names = match self.dtype {
            DType::F32 => ["gemv_f32_x1", "gemv_f32_x4", "gemv_f32_x8"],
            DType::F16 => ["gemv_f16_x1", "gemv_f16_x4", "gemv_f16_x8"],
            DType::BF16 => ["gemv_bf16_x1", "gemv_bf16_x4", "gemv_bf16_x8"],
            other => return Err(refused("gemv", other)),
        };
        let name = names[usize::from(self.tokens > 1) + usize::from(self.tokens > 4)];
        let mut call = Call::new(Module::Exact, name);
        call.check("tokens", self.tokens, 1, if self.experts.is_some() { 1 } else { 8 })?;
        call.multiple("cols", self.cols, 4)?;
        let (slots, per, stacked) = self.experts.map_or((1, 1, 1), |e| (e.slots, e.per, e.stacked));
        call.check("slots", slots, 1, MOST_OTHER)?;
        call.check("slots of a token", per, 1, slots)?;
        call.multiple("slots", slots, per)?;
        let inputs = if self.experts.is_some() { slots / per } else { self.tokens };
        let size = self.dtype.size() as u64;
        call.span("weights", self.weights, bytes(&[stacked, self.rows, self.cols], size), 16)?;
        call.span("x", self.x, bytes(&[inputs, self.cols], 4), 16)?;
        call.span("y", self.y, bytes(&[self.tokens.max(slots), self.rows], 4), 4)?;
        let rows = call.number("rows", self.rows, 1, MOST)?;
        call.number("cols", self.cols, 4, MOST)?;
        call.u32(self.tokens as u32);
        let split = row_split(self.rows, self.cols) as u32;
        call.u32(split);
        call.optional("experts", self.experts.map(|e| e.ids), bytes(&[slots], 4), 4)?;
        call.u32(per as u32);
        Ok(call.on([rows.div_ceil(4 / split), slots as u32, 1], 128, 0))
    }
}

/// Rows of a table times a factor: `[tokens, cols]` of f32.
#[derive(Clone, Copy, Debug)]
pub struct ExactRows {
    /// f32, f16 or bf16.
    pub dtype: DType,
    /// `[rows, cols]`.
    pub table: Span,
    /// u32 `[tokens]`, each below `rows`.
    pub ids: Span,
    /// f32 `[tokens, cols]`.
    pub y: Span,
    /// Rows of the table.
    pub rows: usize,
    /// Elements of a row, a multiple of 4.
    pub cols: usize,
    /// Rows wanted.
    pub tokens: usize,
    /// What elements are multiplied by.
    pub factor: f32,
}

impl ExactRows {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range, or for other dtypes.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let name = match self.dtype {
            DType::F32 => "embed_f32",
            DType::F16 => "embed_f16",
            DType::BF16 => "embed_bf16",
            other => return Err(refused("embed", other)),
        };
        let mut call = Call::new(Module::Exact, name);
        let tokens = call.check("tokens", self.tokens, 1, MOST)?;
        call.multiple("cols", self.cols, 4)?;
        let size = self.dtype.size() as u64;
        call.span("table", self.table, bytes(&[self.rows, self.cols], size), 16)?;
        call.span("ids", self.ids, bytes(&[self.tokens], 4), 4)?;
        call.span("y", self.y, bytes(&[self.tokens, self.cols], 4), 16)?;
        call.number("cols", self.cols, 4, MOST)?;
        call.f32(self.factor);
        Ok(call.on([tokens, 1, 1], 256, 0))
    }
}
