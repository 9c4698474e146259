//! Numbers of a block to bytes: what [`decode_blocks`](super::decode_blocks) reads.

use super::GgmlType;
use half::f16;

/// The numbers of one block, in the order of its elements.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockParts {
    /// Its scale, or that of its sub-blocks' scales.
    pub scale: f16,
    /// Its minimum (Q4_1, Q5_1: added), or the scale of its sub-blocks' minima (subtracted).
    pub min: f16,
    /// Scales of sub-blocks.
    pub scales: [i8; 16],
    /// Minima of sub-blocks.
    pub mins: [u8; 16],
    /// Codes, counted from the lowest level; of Q8_0 the level itself, as a byte.
    pub codes: [u8; 256],
}

impl Default for BlockParts {
    /// A block of zeros, whatever the type but for codes of levels that are counted from below zero.
    fn default() -> BlockParts {
        BlockParts { scale: f16::ZERO, min: f16::ZERO, scales: [0; 16], mins: [0; 16], codes: [0; 256] }
    }
}

/// Writes a block; false for a type that has no codes or none that are written here.
///
/// # Panics
/// When `out` is shorter than a block of this type.
pub fn pack_block(kind: GgmlType, parts: &BlockParts, out: &mut [u8]) -> bool {
    let BlockParts { scale, min, scales, mins, codes } = parts;
    match kind {
        GgmlType::Q4_0 | GgmlType::IQ4_NL => {
            half(out, 0, *scale);
            nibbles(codes, &mut out[2..18]);
        }
        GgmlType::Q4_1 => {
            half(out, 0, *scale);
            half(out, 2, *min);
            nibbles(codes, &mut out[4..20]);
        }
        GgmlType::Q5_0 => {
            half(out, 0, *scale);
            out[2..6].copy_from_slice(&fifth_bits(codes));
            nibbles(codes, &mut out[6..22]);
        }
        GgmlType::Q5_1 => {
            half(out, 0, *scale);
            half(out, 2, *min);
            out[4..8].copy_from_slice(&fifth_bits(codes));
            nibbles(codes, &mut out[8..24]);
        }
        GgmlType::Q8_0 => {
            half(out, 0, *scale);
            out[2..34].copy_from_slice(&codes[..32]);
        }
        GgmlType::Q2_K => {
            for (byte, (&scale, min)) in out.iter_mut().zip(scales.iter().zip(mins)) {
                *byte = scale as u8 & 0xF | min << 4;
            }
            two_bits(codes, &mut out[16..80]);
            half(out, 80, *scale);
            half(out, 82, *min);
        }
        GgmlType::Q3_K => {
            for (place, byte) in out[..32].iter_mut().enumerate() {
                *byte = (0..8).fold(0, |bits, s| bits | (codes[s * 32 + place] >> 2 & 1) << s);
            }
            two_bits(codes, &mut out[32..96]);
            let stored: [u8; 16] = scales.map(|scale| (scale + 32) as u8);
            for i in 0..8 {
                out[96 + i] = stored[i] & 0xF | (stored[i + 8] & 0xF) << 4;
            }
            for i in 0..4 {
                out[104 + i] = (0..4).fold(0, |bits, s| bits | (stored[4 * s + i] >> 4) << (2 * s));
            }
            half(out, 108, *scale);
        }
        GgmlType::Q4_K => {
            scales_and_mins(*scale, *min, scales, mins, out);
            paired_nibbles(codes, &mut out[16..144]);
        }
        GgmlType::Q5_K => {
            scales_and_mins(*scale, *min, scales, mins, out);
            for (place, byte) in out[16..48].iter_mut().enumerate() {
                *byte = (0..8).fold(0, |bits, s| bits | (codes[s * 32 + place] >> 4 & 1) << s);
            }
            paired_nibbles(codes, &mut out[48..176]);
        }
        GgmlType::Q6_K => {
            for (i, byte) in out.iter_mut().enumerate().take(128) {
                let at = i / 64 * 128 + i % 64;
                *byte = codes[at] & 0xF | (codes[at + 64] & 0xF) << 4;
            }
            for i in 0..64 {
                let at = i / 32 * 128 + i % 32;
                out[128 + i] = (0..4).fold(0, |bits, s| bits | (codes[at + 32 * s] >> 4 & 3) << (2 * s));
            }
            for (byte, &scale) in out[192..208].iter_mut().zip(scales) {
                *byte = scale as u8;
            }
            half(out, 208, *scale);
        }
        GgmlType::IQ4_XS => {
            half(out, 0, *scale);
            let stored: [u8; 8] = std::array::from_fn(|s| (scales[s] + 32) as u8);
            let high = (0..8).fold(0u16, |bits, s| bits | u16::from(stored[s] >> 4) << (2 * s));
            out[2..4].copy_from_slice(&high.to_le_bytes());
            for i in 0..4 {
                out[4 + i] = stored[2 * i] & 0xF | (stored[2 * i + 1] & 0xF) << 4;
            }
            for (codes, out) in codes.chunks_exact(32).zip(out[8..136].chunks_exact_mut(16)) {
                nibbles(codes, out);
            }
        }
        _ => return false,
    }
    true
}

fn half(out: &mut [u8], at: usize, value: f16) {
    out[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Low nibbles are the first half of 32 codes, high nibbles the second.
fn nibbles(codes: &[u8], out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate().take(16) {
        *byte = codes[i] & 0xF | (codes[i + 16] & 0xF) << 4;
    }
}

fn fifth_bits(codes: &[u8]) -> [u8; 4] {
    let bits = codes[..32].iter().enumerate();
    bits.fold(0u32, |bits, (i, code)| bits | u32::from(code >> 4 & 1) << i).to_le_bytes()
}

fn two_bits(codes: &[u8], out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        let at = i / 32 * 128 + i % 32;
        *byte = (0..4).fold(0, |bits, s| bits | (codes[at + 32 * s] & 3) << (2 * s));
    }
}

/// Nibbles of two sub-blocks of 32 share bytes.
fn paired_nibbles(codes: &[u8], out: &mut [u8]) {
    for (i, byte) in out.iter_mut().enumerate() {
        let (pair, place) = (i / 32, i % 32);
        *byte = codes[pair * 64 + place] & 0xF | (codes[pair * 64 + 32 + place] & 0xF) << 4;
    }
}

/// The 16 bytes in front of Q4_K and Q5_K: two halves, then six bits for the scale and six for the minimum of each of
/// eight sub-blocks.
fn scales_and_mins(scale: f16, min: f16, scales: &[i8; 16], mins: &[u8; 16], out: &mut [u8]) {
    half(out, 0, scale);
    half(out, 2, min);
    let packed = &mut out[4..16];
    packed.fill(0);
    for i in 0..8 {
        let (scale, min) = (scales[i] as u8 & 63, mins[i] & 63);
        if i < 4 {
            packed[i] |= scale;
            packed[i + 4] |= min;
        } else {
            packed[i + 4] = scale & 0xF | (min & 0xF) << 4;
            packed[i - 4] |= (scale >> 4) << 6;
            packed[i] |= (min >> 4) << 6;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ggml::{IQ4_LEVELS, decode_blocks};

    /// Every number of a block arrives where its decoder looks for it.
    #[test]
    fn what_is_packed_decodes_to_the_numbers() {
        // Type, elements of a sub-block, levels, lowest and highest scale and minimum of sub-blocks.
        let table = [
            (GgmlType::Q4_0, 32, 16, -8, (1, 1), 0),
            (GgmlType::Q4_1, 32, 16, 0, (1, 1), 0),
            (GgmlType::Q5_0, 32, 32, -16, (1, 1), 0),
            (GgmlType::Q5_1, 32, 32, 0, (1, 1), 0),
            (GgmlType::Q2_K, 16, 4, 0, (0, 15), 15),
            (GgmlType::Q3_K, 16, 8, -4, (-32, 31), 0),
            (GgmlType::Q4_K, 32, 16, 0, (0, 63), 63),
            (GgmlType::Q5_K, 32, 32, 0, (0, 63), 63),
            (GgmlType::Q6_K, 16, 64, -32, (-128, 127), 0),
            (GgmlType::IQ4_NL, 32, 16, 0, (1, 1), 0),
            (GgmlType::IQ4_XS, 32, 16, 0, (-32, 31), 0),
        ];
        let (scale, min) = (0.125f32, 0.25f32);
        for (kind, sub, levels, low, (least, most), top) in table {
            let mut parts =
                BlockParts { scale: f16::from_f32(scale), min: f16::from_f32(min), ..BlockParts::default() };
            for i in 0..16 {
                parts.scales[i] = (least + (i as i32 * 37) % (most - least + 1)) as i8;
                parts.mins[i] = ((i * 5) % (top + 1)) as u8;
            }
            for i in 0..256 {
                parts.codes[i] = ((i * 7 + i / 16) % levels) as u8;
            }
            let mut bytes = vec![0xA5; kind.block_bytes()];
            assert!(pack_block(kind, &parts, &mut bytes));
            let mut values = vec![0.0; kind.block_len()];
            decode_blocks(kind, &bytes, &mut values);
            for (i, &value) in values.iter().enumerate() {
                let code = parts.codes[i];
                let level = match kind {
                    GgmlType::IQ4_NL | GgmlType::IQ4_XS => i32::from(IQ4_LEVELS[usize::from(code)]),
                    _ => low + i32::from(code),
                };
                let own = i32::from(parts.scales[i / sub]);
                let expected = match kind {
                    GgmlType::Q4_1 | GgmlType::Q5_1 => scale * level as f32 + min,
                    _ => scale * own as f32 * level as f32 - min * f32::from(parts.mins[i / sub]),
                };
                assert_eq!(value, expected, "{kind} {i}");
            }
        }
        let (mut parts, mut bytes, mut values) = (BlockParts::default(), [0; 34], [0.0; 32]);
        (parts.scale, parts.codes[3]) = (f16::ONE, (-7i8) as u8);
        assert!(pack_block(GgmlType::Q8_0, &parts, &mut bytes));
        decode_blocks(GgmlType::Q8_0, &bytes, &mut values);
        assert_eq!(values[3], -7.0);
        assert!(!pack_block(GgmlType::F16, &parts, &mut bytes));
    }
}
