//! Rows as the source has them.

use super::{Code, EncodeScratch, Family};
use crate::kernel;
use gq_tensor::{CodedRows, DType, Isa, encode_f32};
use std::ops::Range;

/// What people read of these codes.
pub(super) const FAMILIES: &[Family] =
    &[Family { names: "f32, f16, bf16, exact", text: "the source's own bytes" }];

/// Little-endian elements.
#[derive(Debug)]
pub(super) struct Exact {
    pub(super) dtype: DType,
}

impl Code for Exact {
    fn distortion(&self) -> Option<f64> {
        Some(0.0)
    }

    /// For values that the dtype holds: what is stored is copied, and [`Encoder`](crate::Encoder) refuses it.
    fn encode(&self, _: Isa, rotated: &[f32], codes: &mut [u8], _: &mut [u8], _: &mut EncodeScratch) {
        encode_f32(self.dtype, rotated, codes);
    }

    fn decode(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, out: &mut [f32]) {
        kernel::exact_decode(level, self.dtype, matrix.part(rows).0, out);
    }

    fn dot_f32(&self, level: Isa, matrix: &CodedRows<'_>, rows: Range<usize>, x: &[f32], out: &mut [f32]) {
        kernel::exact_dot(level, self.dtype, matrix.part(rows).0, x, out);
    }

    /// There are none.
    fn finite_scales(&self, _: &[u8]) -> bool {
        true
    }
}
