//! Decoding and inner products of stored rows.

use super::dot;
use crate::{
    Activations,
    kernel::TurboRows,
    packing::{GROUP, group_codes},
};
use gq_tensor::{DType, decode_f32};
use half::f16;

#[inline(always)]
pub(crate) fn turbo_decode(rows: TurboRows<'_>, out: &mut [f32]) {
    for ((codes, scales), out) in rows.rows().zip(out.chunks_exact_mut(rows.cols)) {
        for (g, out) in out.chunks_exact_mut(GROUP).enumerate() {
            let step = group_scale(&rows, scales, g) * rows.book.unit();
            for (out, code) in out.iter_mut().zip(group_codes(rows.book.bits(), codes, rows.cols, g)) {
                *out = step * f32::from(rows.tables.levels[usize::from(code)]);
            }
        }
    }
}

#[inline(always)]
pub(crate) fn turbo_dot(rows: TurboRows<'_>, x: &Activations, out: &mut [f32]) {
    for ((codes, scales), out) in rows.rows().zip(out) {
        let mut sum = 0.0;
        for (g, (x, x_scale)) in x.values.chunks_exact(GROUP).zip(&x.scales).enumerate() {
            let codes = group_codes(rows.book.bits(), codes, rows.cols, g);
            let products = codes
                .iter()
                .zip(x)
                .map(|(&code, &x)| i32::from(rows.tables.levels[usize::from(code)]) * i32::from(x));
            sum += group_scale(&rows, scales, g) * x_scale * products.sum::<i32>() as f32;
        }
        *out = sum * rows.book.unit();
    }
}

#[inline(always)]
pub(crate) fn turbo_dot_f32(rows: TurboRows<'_>, x: &[f32], out: &mut [f32]) {
    for ((codes, scales), out) in rows.rows().zip(out) {
        let mut sum = 0.0;
        for (g, x) in x.chunks_exact(GROUP).enumerate() {
            let codes = group_codes(rows.book.bits(), codes, rows.cols, g);
            let levels = codes.map(|code| f32::from(rows.tables.levels[usize::from(code)]));
            sum += group_scale(&rows, scales, g) * dot(&levels, x);
        }
        *out = sum * rows.book.unit();
    }
}

/// The scale that covers packing group `g`.
#[inline(always)]
fn group_scale(rows: &TurboRows<'_>, scales: &[u8], g: usize) -> f32 {
    let (scales, _) = scales.as_chunks::<2>();
    scales.get(g * GROUP / rows.group_len).map_or(0.0, |bytes| f16::from_le_bytes(*bytes).to_f32())
}

#[inline(always)]
pub(crate) fn exact_decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    decode_f32(dtype, bytes, out);
}

/// Elements decoded at a time.
const CHUNK: usize = 256;

#[inline(always)]
pub(crate) fn exact_dot(dtype: DType, bytes: &[u8], x: &[f32], out: &mut [f32]) {
    let mut buffer = [0.0; CHUNK];
    for (row, out) in bytes.chunks_exact((x.len() * dtype.size()).max(1)).zip(out) {
        *out = 0.0;
        for (bytes, x) in row.chunks(CHUNK * dtype.size()).zip(x.chunks(CHUNK)) {
            decode_f32(dtype, bytes, &mut buffer);
            *out += dot(&buffer[..x.len()], x);
        }
    }
}
