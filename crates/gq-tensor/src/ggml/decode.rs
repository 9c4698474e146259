//! Blocks to f32, bit for bit as gguf-py's `dequantize`: every product and difference is one rounded f32 operation.

use super::half_at::half_at;
use super::{GgmlType, decode_iq, decode_k};
use crate::{DType, decode_f32};

/// Types that can be decoded.
pub fn is_decodable(kind: GgmlType) -> bool {
    decoder(kind).is_some() || plain(kind).is_some()
}

/// Names of the types that can be decoded.
pub fn decodable_names() -> String {
    GgmlType::all().filter(|kind| is_decodable(*kind)).map(GgmlType::name).collect::<Vec<_>>().join(", ")
}

/// The dtype of types without blocks.
pub fn plain(kind: GgmlType) -> Option<DType> {
    match kind {
        GgmlType::F32 => Some(DType::F32),
        GgmlType::F16 => Some(DType::F16),
        GgmlType::BF16 => Some(DType::BF16),
        GgmlType::F64 => Some(DType::F64),
        _ => None,
    }
}

/// One block: bytes to values.
type Decoder = fn(&[u8], &mut [f32]);

fn decoder(kind: GgmlType) -> Option<Decoder> {
    match kind {
        GgmlType::Q4_0 => Some(q4_0),
        GgmlType::Q4_1 => Some(q4_1),
        GgmlType::Q5_0 => Some(q5_0),
        GgmlType::Q5_1 => Some(q5_1),
        GgmlType::Q8_0 => Some(q8_0),
        GgmlType::Q2_K => Some(decode_k::q2_k),
        GgmlType::Q3_K => Some(decode_k::q3_k),
        GgmlType::Q4_K => Some(decode_k::q4_k),
        GgmlType::Q5_K => Some(decode_k::q5_k),
        GgmlType::Q6_K => Some(decode_k::q6_k),
        GgmlType::IQ4_NL => Some(decode_iq::iq4_nl),
        GgmlType::IQ4_XS => Some(decode_iq::iq4_xs),
        GgmlType::MXFP4 => Some(decode_iq::mxfp4),
        _ => None,
    }
}

/// Decodes whole blocks (one row or several) of a type into `out`; false when the type cannot be decoded.
///
/// Decodes as many blocks as both sides hold.
pub fn decode_blocks(kind: GgmlType, bytes: &[u8], out: &mut [f32]) -> bool {
    if let Some(dtype) = plain(kind) {
        decode_f32(dtype, bytes, out);
        return true;
    }
    let Some(decode) = decoder(kind) else { return false };
    let blocks = bytes.chunks_exact(kind.block_bytes());
    for (block, values) in blocks.zip(out.chunks_exact_mut(kind.block_len())) {
        decode(block, values);
    }
    true
}

/// Low nibbles are the first half of 32 values, high nibbles the second.
fn nibbles(qs: &[u8], out: &mut [f32], value: impl Fn(usize, u8) -> f32) {
    let (low, high) = out.split_at_mut(16);
    for (i, (byte, (low, high))) in qs.iter().zip(low.iter_mut().zip(high)).enumerate() {
        *low = value(i, byte & 0xF);
        *high = value(i + 16, byte >> 4);
    }
}

fn q4_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    nibbles(&block[2..], out, |_, q| d * (f32::from(q) - 8.0));
}

fn q4_1(block: &[u8], out: &mut [f32]) {
    let (d, m) = (half_at(block, 0), half_at(block, 2));
    nibbles(&block[4..], out, |_, q| d * f32::from(q) + m);
}

fn fifth_bits(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

fn bit(mask: u32, i: usize) -> u8 {
    (mask >> i & 1) as u8
}

fn q5_0(block: &[u8], out: &mut [f32]) {
    let (d, high) = (half_at(block, 0), fifth_bits(block, 2));
    nibbles(&block[6..], out, |i, q| d * (f32::from(q | bit(high, i) << 4) - 16.0));
}

fn q5_1(block: &[u8], out: &mut [f32]) {
    let (d, m, high) = (half_at(block, 0), half_at(block, 2), fifth_bits(block, 4));
    nibbles(&block[8..], out, |i, q| d * f32::from(q | bit(high, i) << 4) + m);
}

fn q8_0(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    for (value, &q) in out.iter_mut().zip(&block[2..]) {
        *value = f32::from(q as i8) * d;
    }
}
