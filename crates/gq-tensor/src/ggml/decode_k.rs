//! K-quants: superblocks of 256 with coded scales.

use super::half_at::half_at;

/// Six-bit scales and minima of the eight sub-blocks of Q4_K and Q5_K, from their 12 bytes.
pub(super) fn scales_and_mins(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|i| match i {
        0..4 => (packed[i] & 63, packed[i + 4] & 63),
        _ => (packed[i + 4] & 0xF | packed[i - 4] >> 2 & 0x30, packed[i + 4] >> 4 | packed[i] >> 2 & 0x30),
    })
}

/// 16 sub-blocks of 16: 4-bit scale and minimum each, 2-bit codes.
pub(super) fn q2_k(block: &[u8], out: &mut [f32]) {
    let (scales, codes) = (&block[..16], &block[16..80]);
    let (d, dmin) = (half_at(block, 80), half_at(block, 82));
    for (i, value) in out.iter_mut().enumerate() {
        let scale = scales[i / 16];
        let q = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        *value = d * f32::from(scale & 0xF) * f32::from(q) - dmin * f32::from(scale >> 4);
    }
}

/// 16 sub-blocks of 16: 6-bit signed scale each, 3-bit codes with the third bit in a mask.
pub(super) fn q3_k(block: &[u8], out: &mut [f32]) {
    let (mask, codes, packed) = (&block[..32], &block[32..96], &block[96..108]);
    let d = half_at(block, 108);
    for (i, value) in out.iter_mut().enumerate() {
        let s = i / 16;
        let low = if s < 8 { packed[s] & 0xF } else { packed[s - 8] >> 4 };
        let scale = (low | (packed[8 + s % 4] >> (s / 4 * 2) & 3) << 4) as i8 - 32;
        let low = codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        let offset = if mask[i % 32] >> (i / 32) & 1 == 1 { 0 } else { 4 };
        *value = d * f32::from(scale) * f32::from(low as i8 - offset);
    }
}

/// 8 sub-blocks of 32: 6-bit scale and minimum each, 4-bit codes.
pub(super) fn q4_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let scales = scales_and_mins(&block[4..16]);
    let codes = &block[16..144];
    for (s, (values, (scale, min))) in out.chunks_exact_mut(32).zip(scales).enumerate() {
        let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
        for (value, byte) in values.iter_mut().zip(&codes[s / 2 * 32..]) {
            *value = d * f32::from(byte >> (s % 2 * 4) & 0xF) - m;
        }
    }
}

/// As Q4_K, with the fifth bit of each code in a mask.
pub(super) fn q5_k(block: &[u8], out: &mut [f32]) {
    let (d, dmin) = (half_at(block, 0), half_at(block, 2));
    let scales = scales_and_mins(&block[4..16]);
    let (mask, codes) = (&block[16..48], &block[48..176]);
    for (s, (values, (scale, min))) in out.chunks_exact_mut(32).zip(scales).enumerate() {
        let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
        for ((value, byte), high) in values.iter_mut().zip(&codes[s / 2 * 32..]).zip(mask) {
            let q = byte >> (s % 2 * 4) & 0xF | (high >> s & 1) << 4;
            *value = d * f32::from(q) - m;
        }
    }
}

/// 16 sub-blocks of 16: 8-bit signed scale each, 6-bit codes.
pub(super) fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = half_at(block, 208);
    for (i, value) in out.iter_mut().enumerate() {
        let (half, place) = (i / 128, i % 128);
        let four = low[half * 64 + place % 64] >> (place / 64 * 4) & 0xF;
        let two = high[half * 32 + place % 32] >> (place / 32 * 2) & 3;
        let q = (four | two << 4) as i8 - 32;
        *value = d * f32::from(scales[i / 16] as i8) * f32::from(q);
    }
}
