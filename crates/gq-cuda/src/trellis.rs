//! Products of trellis codes with int8 activations, for any number of tokens.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::layout::trellis_bytes;
use crate::{Experts, Launch, LaunchError, Module, Span};
use gq_tensor::{Encoding, States};

/// A trellis code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrellisCode {
    /// Bits per element, 2 to 6.
    pub bits: u8,
    /// L of 2^L states: 10, 12 or 14.
    pub log_states: u32,
    /// What states are multiplied by.
    pub multiplier: u32,
}

impl TrellisCode {
    /// The code of an encoding; `None` for other encodings.
    pub fn of(encoding: Encoding) -> Option<TrellisCode> {
        let Encoding::Trellis { bits, states } = encoding else { return None };
        let (log_states, multipliers) = match states {
            States::S10 => (10, [0x109, 0x083, 0x03D, 0x2A1, 0x21F]),
            States::S12 => (12, [0xBD9, 0xDF5, 0x107, 0x981, 0x33F]),
            States::S14 => (14, [0x0FA1, 0x37A1, 0x2961, 0x0A01, 0x3501]),
        };
        let multiplier = *multipliers.get(usize::from(bits).checked_sub(2)?)?;
        Some(TrellisCode { bits, log_states, multiplier })
    }

    /// As kernels take the multiplier: bits 7 to 14 of a product are the index of the level.
    fn shifted(self) -> u32 {
        self.multiplier << (15 - self.log_states)
    }

    fn kernel(self, kernels: [&'static str; 5]) -> Result<&'static str, LaunchError> {
        let place = usize::from(self.bits).checked_sub(2).and_then(|place| kernels.get(place));
        let (actual, kernel) = (usize::from(self.bits), "gemv_tt");
        place.copied().ok_or(LaunchError::Range { kernel, what: "bits", actual, least: 2, most: 6 })
    }
}

/// Bytes of dynamic shared memory: the table of levels, and what lies before the next multiple of its size.
const TABLE: u32 = 56 * 1024;

/// Parts of the columns that different blocks take: as many as keep a GPU busy, of at least 16 groups of 32 columns.
/// Chosen by shape alone, so that results are the same on every card.
pub fn column_splits(rows: usize, cols: usize, slots: usize) -> usize {
    let strips = rows.div_ceil(256) * slots;
    (128 / strips.max(1)).clamp(1, 16).min((cols / 32 / 16).max(1))
}

/// `y[t, row] = <row, x[t]>` in [`parts`](TrellisProduct::parts) partial sums;
/// [`define::trellis_product`](crate::define::trellis_product), above 8 tokens
/// [`define::trellis_product_of_many`](crate::define::trellis_product_of_many).
#[derive(Clone, Copy, Debug)]
pub struct TrellisProduct {
    /// The code.
    pub code: TrellisCode,
    /// [`layout::trellis_upload`](crate::layout::trellis_upload) of all matrices.
    pub codes: Span,
    /// Scales as they are stored, f16 `[matrices, rows]`.
    pub scales: Span,
    /// Activations in int8 `[tokens, cols]`; with experts `[slots / per, cols]`.
    pub values: Span,
    /// Their scales, f32 `[tokens, cols / 32]`.
    pub steps: Span,
    /// f32 `[parts, tokens, rows]`; with experts `[parts, slots, rows]`.
    pub y: Span,
    /// Rows of a matrix.
    pub rows: usize,
    /// Elements of a row, a multiple of 32.
    pub cols: usize,
    /// Any number; 1 with experts.
    pub tokens: usize,
    /// Chosen matrices of several.
    pub experts: Option<Experts>,
}

impl TrellisProduct {
    /// Partial sums that the output has.
    pub fn parts(&self) -> usize {
        match (self.experts, self.tokens) {
            (Some(experts), _) => column_splits(self.rows, self.cols, experts.slots),
            (None, ..=8) => column_splits(self.rows, self.cols, 1),
            (None, _) => 1,
        }
    }

    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let alone = self.tokens == 1 || self.experts.is_some();
        let many = self.tokens > 8;
        let name = self.code.kernel(match (alone, many) {
            (true, _) => ["gemv_tt2", "gemv_tt3", "gemv_tt4", "gemv_tt5", "gemv_tt6"],
            (false, false) => ["gemm_tt2", "gemm_tt3", "gemm_tt4", "gemm_tt5", "gemm_tt6"],
            (false, true) => ["prefill_tt2", "prefill_tt3", "prefill_tt4", "prefill_tt5", "prefill_tt6"],
        })?;
        let mut call = Call::new(if many { Module::Prefill } else { Module::Trellis }, name);
        let most_tokens = if self.experts.is_some() { 1 } else { 64 * MOST_OTHER };
        let tokens = call.check("tokens", self.tokens, 1, most_tokens)?;
        call.multiple("cols", self.cols, 32)?;
        let (slots, per, stacked) = self.experts.map_or((1, 1, 1), |e| (e.slots, e.per, e.stacked));
        call.check("slots", slots, 1, MOST_OTHER)?;
        call.check("slots of a token", per, 1, slots)?;
        call.multiple("slots", slots, per)?;
        call.check("rows of all matrices", self.rows.saturating_mul(stacked), 1, MOST)?;
        call.check("cols", self.cols, 32, MOST)?;
        let inputs = if self.experts.is_some() { slots / per } else { self.tokens };
        let codes = trellis_bytes(self.code.bits, self.rows, self.cols, stacked) as u64;
        call.span("codes", self.codes, codes, 4)?;
        call.span("scales", self.scales, bytes(&[stacked, self.rows], 2), 2)?;
        call.u32(self.code.shifted());
        call.span("values", self.values, bytes(&[inputs, self.cols], 1), 16)?;
        call.span("steps", self.steps, bytes(&[inputs, self.cols / 32], 4), 4)?;
        let (parts, outputs) = (self.parts(), self.tokens.max(slots));
        call.span("y", self.y, bytes(&[parts, outputs, self.rows], 4), 4)?;
        call.u32(self.rows as u32);
        call.u32(self.cols as u32);
        let strips = self.rows.div_ceil(256) as u32;
        if !alone {
            call.u32(tokens);
            let grid = if many { [strips, tokens.div_ceil(64), 1] } else { [strips, parts as u32, 1] };
            return Ok(call.on(grid, 256, TABLE));
        }
        call.optional("experts", self.experts.map(|e| e.ids), bytes(&[slots], 4), 4)?;
        call.u32(per as u32);
        Ok(call.on([strips, parts as u32, slots as u32], 256, TABLE))
    }
}

/// Rows of a table in a trellis code, in the rotated basis: `[ids, cols]` of f32.
#[derive(Clone, Copy, Debug)]
pub struct TrellisRows {
    /// The code.
    pub code: TrellisCode,
    /// [`layout::trellis_upload`](crate::layout::trellis_upload).
    pub codes: Span,
    /// f16 `[rows]`.
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

impl TrellisRows {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let kernels = ["embed_tt2", "embed_tt3", "embed_tt4", "embed_tt5", "embed_tt6"];
        let mut call = Call::new(Module::Trellis, self.code.kernel(kernels)?);
        let tokens = call.check("tokens", self.tokens, 1, MOST)?;
        call.check("rows", self.rows, 1, MOST)?;
        call.check("cols", self.cols, 32, MOST)?;
        call.multiple("cols", self.cols, 32)?;
        let codes = trellis_bytes(self.code.bits, self.rows, self.cols, 1) as u64;
        call.span("codes", self.codes, codes, 4)?;
        call.span("scales", self.scales, bytes(&[self.rows], 2), 2)?;
        call.u32(self.code.shifted());
        call.span("ids", self.ids, bytes(&[self.tokens], 4), 4)?;
        call.span("y", self.y, bytes(&[self.tokens, self.cols], 4), 4)?;
        call.u32(self.cols as u32);
        Ok(call.on([tokens, 1, 1], 256, 0))
    }
}
