//! f32 to blocks: the types of 32 elements as the format's reference rounds them, and plain types.
//!
//! Only IEEE operations in a fixed order decide a code: the same values give the same bytes everywhere.

use super::encode_k;
use super::rounding::{extreme, inverse};
use gq_tensor::ggml::{BlockParts, GgmlType, pack_block};
use half::{bf16, f16};

/// Whether values can be rounded to this type. MXFP4 is written of values that are on its grid alone.
pub fn is_encodable(kind: GgmlType) -> bool {
    encoder(kind).is_some() && kind != GgmlType::MXFP4
        || matches!(kind, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16)
}

/// One block: values to bytes.
type Encoder = fn(&[f32], &mut [u8]);

fn encoder(kind: GgmlType) -> Option<Encoder> {
    match kind {
        GgmlType::Q4_0 => Some(q4_0),
        GgmlType::Q4_1 => Some(q4_1),
        GgmlType::Q5_0 => Some(q5_0),
        GgmlType::Q5_1 => Some(q5_1),
        GgmlType::Q8_0 => Some(q8_0),
        GgmlType::Q4_K => Some(encode_k::q4_k),
        GgmlType::Q5_K => Some(encode_k::q5_k),
        GgmlType::Q6_K => Some(encode_k::q6_k),
        GgmlType::MXFP4 => Some(mxfp4),
        _ => None,
    }
}

/// Encodes whole blocks (one row or several) as a type into `out`; false when it cannot be written.
///
/// Values are finite. Encodes as many blocks as both sides hold.
pub fn encode_blocks(kind: GgmlType, values: &[f32], out: &mut [u8]) -> bool {
    match kind {
        GgmlType::F32 => each(values, out, f32::to_le_bytes),
        GgmlType::F16 => each(values, out, |v| f16::from_f32(v).to_le_bytes()),
        GgmlType::BF16 => each(values, out, |v| bf16::from_f32(v).to_le_bytes()),
        _ => {
            let Some(encode) = encoder(kind) else { return false };
            let blocks = values.chunks_exact(kind.block_len());
            for (values, block) in blocks.zip(out.chunks_exact_mut(kind.block_bytes())) {
                encode(values, block);
            }
        }
    }
    true
}

fn each<const N: usize>(values: &[f32], out: &mut [u8], convert: impl Fn(f32) -> [u8; N]) {
    for (value, bytes) in values.iter().zip(out.as_chunks_mut::<N>().0) {
        *bytes = convert(*value);
    }
}

fn min_max(values: &[f32]) -> (f32, f32) {
    values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), &v| (min.min(v), max.max(v)))
}

/// Rounds down a value that is not negative, to at most `top`.
fn code(value: f32, top: u8) -> u8 {
    (value as u8).min(top)
}

/// A block of 32 with a scale and a minimum of its own.
fn pack(kind: GgmlType, scale: f32, min: f32, code: impl Fn(usize) -> u8, out: &mut [u8]) {
    let mut parts =
        BlockParts { scale: f16::from_f32(scale), min: f16::from_f32(min), ..BlockParts::default() };
    parts.codes.iter_mut().take(32).enumerate().for_each(|(i, stored)| *stored = code(i));
    pack_block(kind, &parts, out);
}

fn q4_0(values: &[f32], out: &mut [u8]) {
    let d = extreme(values) / -8.0;
    let id = inverse(d);
    pack(GgmlType::Q4_0, d, 0.0, |i| code(values[i] * id + 8.5, 15), out);
}

fn q4_1(values: &[f32], out: &mut [u8]) {
    let (min, max) = min_max(values);
    let d = (max - min) / 15.0;
    let id = inverse(d);
    pack(GgmlType::Q4_1, d, min, |i| code((values[i] - min) * id + 0.5, 15), out);
}

fn q5_0(values: &[f32], out: &mut [u8]) {
    let d = extreme(values) / -16.0;
    let id = inverse(d);
    pack(GgmlType::Q5_0, d, 0.0, |i| code(values[i] * id + 16.5, 31), out);
}

fn q5_1(values: &[f32], out: &mut [u8]) {
    let (min, max) = min_max(values);
    let d = (max - min) / 31.0;
    let id = inverse(d);
    pack(GgmlType::Q5_1, d, min, |i| code((values[i] - min) * id + 0.5, 31), out);
}

/// The magnitudes of FP4 E2M1, in the order of their codes.
const FP4: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// A power of two, then 32 4-bit floats. The largest is 4 or 6: whatever is on the grid with a larger power is on it with
/// that one.
fn mxfp4(values: &[f32], out: &mut [u8]) {
    let largest = extreme(values).abs();
    let exponent = if largest == 0.0 { -127 } else { (libm::ilogbf(largest) - 2).max(-127) };
    let inverse = f64::from(libm::scalbnf(1.0, -exponent.clamp(-127, 127)));
    let code = |i: usize| {
        let scaled = (f64::from(values[i]) * inverse).abs() as f32;
        let nearest = |a: &usize, b: &usize| (FP4[*a] - scaled).abs().total_cmp(&(FP4[*b] - scaled).abs());
        let code = (0..FP4.len()).min_by(nearest).unwrap_or(0) as u8;
        code | if values[i].is_sign_negative() { 8 } else { 0 }
    };
    out[0] = (exponent + 127).clamp(0, 254) as u8;
    for (i, byte) in out[1..17].iter_mut().enumerate() {
        *byte = code(i) | code(i + 16) << 4;
    }
}

fn q8_0(values: &[f32], out: &mut [u8]) {
    let d = extreme(values).abs() / 127.0;
    let id = inverse(d);
    // Halves away from zero.
    pack(GgmlType::Q8_0, d, 0.0, |i| ((values[i] * id).round() as i8).cast_unsigned(), out);
}
