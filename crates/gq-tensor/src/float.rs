//! Exact conversions of stored floats to f32, little-endian.

use crate::DType;
use half::{bf16, f16};

/// Decodes `bytes` (little-endian elements of `dtype`) into `out`, one f32 per element.
///
/// Every dtype but `F64` converts exactly; `F64` is rounded to nearest even.
/// Integers convert by value. Decodes `min(out.len(), bytes.len() / dtype.size())` elements.
pub fn decode_f32(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F64 => each(bytes, out, |b: [u8; 8]| f64::from_le_bytes(b) as f32),
        DType::F32 => each(bytes, out, f32::from_le_bytes),
        DType::F16 => each(bytes, out, |b: [u8; 2]| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => each(bytes, out, |b: [u8; 2]| bf16::from_le_bytes(b).to_f32()),
        DType::F8E4M3 => each(bytes, out, |[b]: [u8; 1]| f8_e4m3_to_f32(b)),
        DType::F8E5M2 => each(bytes, out, |[b]: [u8; 1]| f8_e5m2_to_f32(b)),
        DType::I64 => each(bytes, out, |b: [u8; 8]| i64::from_le_bytes(b) as f32),
        DType::I32 => each(bytes, out, |b: [u8; 4]| i32::from_le_bytes(b) as f32),
        DType::I16 => each(bytes, out, |b: [u8; 2]| f32::from(i16::from_le_bytes(b))),
        DType::I8 => each(bytes, out, |[b]: [u8; 1]| f32::from(b as i8)),
        DType::U8 | DType::Bool => each(bytes, out, |[b]: [u8; 1]| f32::from(b)),
    }
}

/// Encodes values as little-endian elements of `dtype`, rounded to nearest even; the inverse of [`decode_f32`].
///
/// Gives false and writes nothing for dtypes of less than 16 bits and for integers.
pub fn encode_f32(dtype: DType, values: &[f32], out: &mut [u8]) -> bool {
    match dtype {
        DType::F64 => each_out(values, out, |v| f64::from(v).to_le_bytes()),
        DType::F32 => each_out(values, out, f32::to_le_bytes),
        DType::F16 => each_out(values, out, |v| f16::from_f32(v).to_le_bytes()),
        DType::BF16 => each_out(values, out, |v| bf16::from_f32(v).to_le_bytes()),
        _ => return false,
    }
    true
}

fn each_out<const N: usize>(values: &[f32], out: &mut [u8], convert: impl Fn(f32) -> [u8; N]) {
    let (elements, _) = out.as_chunks_mut::<N>();
    for (element, value) in elements.iter_mut().zip(values) {
        *element = convert(*value);
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], convert: impl Fn([u8; N]) -> f32) {
    let (elements, _) = bytes.as_chunks::<N>();
    for (value, element) in out.iter_mut().zip(elements) {
        *value = convert(*element);
    }
}

/// FP8 E4M3 ("FN": no infinities, one NaN pattern per sign, bias 7; OCP 8-bit floating point, table 1).
pub fn f8_e4m3_to_f32(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(byte >> 3 & 0xF);
    let mantissa = f32::from(byte & 7);
    match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => sign * mantissa * 2f32.powi(-9),
        _ => sign * (1.0 + mantissa / 8.0) * 2f32.powi(exponent - 7),
    }
}

/// FP8 E5M2 (IEEE-like: infinities and NaNs, bias 15): the upper byte of an f16.
pub fn f8_e5m2_to_f32(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decoded_is_encoded_again() {
        for (dtype, bytes) in [
            (DType::F64, 8u64.to_le_bytes().to_vec()),
            (DType::F32, 1.5f32.to_le_bytes().to_vec()),
            (DType::F16, vec![0x01, 0x3c]),
            (DType::BF16, vec![0x81, 0x3f]),
        ] {
            let (mut value, mut again) = ([0.0], bytes.clone());
            decode_f32(dtype, &bytes, &mut value);
            again.fill(0xff);
            assert!(encode_f32(dtype, &value, &mut again));
            assert!(again == bytes || dtype == DType::F64 && value == [0.0], "{dtype}");
        }
        let mut rounded = [0; 2];
        assert!(encode_f32(DType::BF16, &[1.0 + 1.0 / 256.0], &mut rounded)); // half way: to even
        assert_eq!(rounded, [0x80, 0x3f]);
        assert!(!encode_f32(DType::F8E4M3, &[1.0], &mut [0]) && !encode_f32(DType::I8, &[1.0], &mut [0]));
    }

    #[test]
    fn f8_values_of_the_standard() {
        assert_eq!(f8_e4m3_to_f32(0x7E), 448.0);
        assert_eq!(f8_e4m3_to_f32(0x01), 2f32.powi(-9));
        assert_eq!(f8_e4m3_to_f32(0xB8), -1.0);
        assert!(f8_e4m3_to_f32(0x7F).is_nan());
        assert_eq!(f8_e5m2_to_f32(0x7B), 57344.0);
        assert_eq!(f8_e5m2_to_f32(0x7C), f32::INFINITY);
        assert_eq!(f8_e5m2_to_f32(0x01), 2f32.powi(-16));
    }

    #[test]
    fn decodes_little_endian_and_stops_at_the_shorter_side() {
        let mut out = [9.0; 3];
        decode_f32(DType::BF16, &[0x80, 0x3F, 0x00, 0xC0, 0xFF], &mut out);
        assert_eq!(out, [1.0, -2.0, 9.0]);
    }
}
