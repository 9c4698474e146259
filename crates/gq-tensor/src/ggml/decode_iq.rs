//! Types with a table of levels: IQ4_NL, IQ4_XS, MXFP4.

use super::half_at::half_at;

/// Levels of the IQ4 types.
pub const IQ4_LEVELS: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// FP4 E2M1, doubled (OCP Microscaling Formats 1.0, table 5).
const FP4_LEVELS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn levels(levels: &[i8; 16], d: f32, codes: &[u8], out: &mut [f32]) {
    let (low, high) = out.split_at_mut(16);
    for (byte, (low, high)) in codes.iter().zip(low.iter_mut().zip(high)) {
        *low = d * f32::from(levels[usize::from(byte & 0xF)]);
        *high = d * f32::from(levels[usize::from(byte >> 4)]);
    }
}

pub(super) fn iq4_nl(block: &[u8], out: &mut [f32]) {
    levels(&IQ4_LEVELS, half_at(block, 0), &block[2..], out);
}

/// 8 sub-blocks of 32 with 6-bit signed scales.
pub(super) fn iq4_xs(block: &[u8], out: &mut [f32]) {
    let d = half_at(block, 0);
    let high = u16::from_le_bytes([block[2], block[3]]);
    for (s, (values, codes)) in out.chunks_exact_mut(32).zip(block[8..].chunks_exact(16)).enumerate() {
        let low = block[4 + s / 2] >> (s % 2 * 4) & 0xF;
        let scale = (low | ((high >> (2 * s) & 3) as u8) << 4) as i8 - 32;
        levels(&IQ4_LEVELS, d * f32::from(scale), codes, values);
    }
}

/// A power of two (E8M0, halved because the levels are doubled) and 32 FP4 values.
pub(super) fn mxfp4(block: &[u8], out: &mut [f32]) {
    let exponent = u32::from(block[0]);
    // 2^-127 and 2^-128 are subnormal.
    let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (exponent - 1) << 23 };
    levels(&FP4_LEVELS, f32::from_bits(bits), &block[1..], out);
}
