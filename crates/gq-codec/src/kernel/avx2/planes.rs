//! Bit planes to levels: shifts spread a plane over 32 bytes, shuffles look levels up.

use super::vector::load_half;
use crate::{
    codebook::LevelTables,
    packing::{GROUP, planes},
};
use std::arch::x86_64::*;

/// The planes of one packed row.
#[derive(Clone, Copy)]
pub(super) struct Row<'a, const BITS: u8> {
    row: &'a [u8],
    cols: usize,
}

/// Levels of 32 elements, as suits the width of the code.
#[derive(Clone, Copy)]
pub(super) enum Levels {
    /// Levels as i8.
    Signed(__m256i),
    /// Magnitudes as u8 within 127, and bytes whose top bit is the sign, never zero.
    Split(__m256i, __m256i),
    /// Magnitudes `64 * high + low`, both within 127, and signs as above.
    Wide(__m256i, __m256i, __m256i),
}

/// Look-up tables in registers, one copy per 128-bit half.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    signed: __m256i,
    high: [__m256i; 4],
    low: [__m256i; 4],
}

impl Tables {
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    pub(super) fn new(tables: &LevelTables) -> Tables {
        let twice = |table: &[u8; 16]| _mm256_broadcastsi128_si256(load_half(table));
        let all = |tables: &[[u8; 16]; 4]| {
            let [a, b, c, d] = tables;
            [twice(a), twice(b), twice(c), twice(d)]
        };
        let signed = tables.signed.map(|level| level as u8);
        Tables { signed: twice(&signed), high: all(&tables.high), low: all(&tables.low) }
    }
}

impl<'a, const BITS: u8> Row<'a, BITS> {
    /// `row` holds the planes of `cols` codes, a multiple of 32.
    #[inline]
    pub(super) fn new(row: &'a [u8], cols: usize) -> Self {
        assert!(cols.is_multiple_of(GROUP) && row.len() == cols / 8 * usize::from(BITS));
        Row { row, cols }
    }

    /// Bytes of group `g` in plane number `plane` of width `BYTES / 4`.
    ///
    /// # Safety
    /// `g < cols / 32`, and the plane exists and has this width.
    #[inline(always)]
    unsafe fn bytes<const BYTES: usize>(&self, plane: usize, g: usize) -> [u8; BYTES] {
        let before: usize = planes(BITS).iter().take(plane).map(|&w| usize::from(w)).sum();
        // SAFETY: planes lie one after another, `cols * width / 8` bytes each, and their widths add up to
        // BITS, so by the caller's promise `BYTES` bytes from here end within the row, whose length `new` checked.
        unsafe {
            self.row.as_ptr().add(self.cols / 8 * before + g * BYTES).cast::<[u8; BYTES]>().read_unaligned()
        }
    }

    /// Codes of group `g`, one per byte. For widths of 4, 5, 6 and 8 bits.
    ///
    /// # Safety
    /// `g < cols / 32`.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    pub(super) unsafe fn codes(&self, g: usize) -> __m256i {
        // SAFETY: g is the caller's promise; planes and widths are those of `packing::planes`.
        unsafe {
            match BITS {
                4 => nibbles(self.bytes(0, g)),
                5 => {
                    let upper = _mm256_and_si256(signs(self.bytes(1, g)), _mm256_set1_epi8(i8::MIN));
                    _mm256_or_si256(nibbles(self.bytes(0, g)), _mm256_srli_epi16::<3>(upper))
                }
                6 => {
                    let upper = _mm256_slli_epi16::<4>(pairs(self.bytes(1, g)));
                    _mm256_or_si256(nibbles(self.bytes(0, g)), upper)
                }
                _ => super::vector::load_bytes(&self.bytes(0, g)),
            }
        }
    }

    /// Levels of group `g`.
    ///
    /// # Safety
    /// `g < cols / 32`.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    pub(super) unsafe fn levels(&self, tables: &Tables, g: usize) -> Levels {
        // SAFETY: g is the caller's promise; planes and widths are those of `packing::planes`.
        unsafe {
            match BITS {
                1 => Levels::Split(_mm256_set1_epi8(1), signs(self.bytes(0, g))),
                2 => Levels::Signed(_mm256_shuffle_epi8(tables.signed, pairs(self.bytes(0, g)))),
                3 => {
                    let magnitudes = _mm256_shuffle_epi8(tables.low[0], pairs(self.bytes(0, g)));
                    Levels::Split(magnitudes, signs(self.bytes(1, g)))
                }
                4 => Levels::Signed(_mm256_shuffle_epi8(tables.signed, nibbles(self.bytes(0, g)))),
                5 => {
                    let magnitudes = _mm256_shuffle_epi8(tables.low[0], nibbles(self.bytes(0, g)));
                    Levels::Split(magnitudes, signs(self.bytes(1, g)))
                }
                6 => {
                    let (index, upper) = (nibbles(self.bytes(0, g)), pairs(self.bytes(1, g)));
                    let bit = _mm256_slli_epi16::<7>(upper);
                    let pick = |t: &[__m256i; 4]| {
                        let (a, b) = (_mm256_shuffle_epi8(t[0], index), _mm256_shuffle_epi8(t[1], index));
                        _mm256_blendv_epi8(a, b, bit)
                    };
                    let sign = _mm256_or_si256(_mm256_slli_epi16::<6>(upper), _mm256_set1_epi8(1));
                    Levels::Wide(pick(&tables.high), pick(&tables.low), sign)
                }
                7 => {
                    let (index, upper) = (nibbles(self.bytes(0, g)), pairs(self.bytes(1, g)));
                    let (bit, next) = (_mm256_slli_epi16::<7>(upper), _mm256_slli_epi16::<6>(upper));
                    let pick = |t: &[__m256i; 4]| {
                        let (a, b) = (_mm256_shuffle_epi8(t[0], index), _mm256_shuffle_epi8(t[1], index));
                        let (c, d) = (_mm256_shuffle_epi8(t[2], index), _mm256_shuffle_epi8(t[3], index));
                        let (low, high) = (_mm256_blendv_epi8(a, b, bit), _mm256_blendv_epi8(c, d, bit));
                        _mm256_blendv_epi8(low, high, next)
                    };
                    Levels::Wide(pick(&tables.high), pick(&tables.low), signs(self.bytes(2, g)))
                }
                _ => Levels::Signed(super::vector::load_bytes(&self.bytes(0, g))),
            }
        }
    }
}

/// Element j: low nibble of byte j, then the high nibbles.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn nibbles(bytes: [u8; 16]) -> __m256i {
    let both = _mm256_broadcastsi128_si256(load_half(&bytes));
    let shifted = _mm256_srlv_epi32(both, _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4));
    _mm256_and_si256(shifted, _mm256_set1_epi8(15))
}

/// Element j + 8 s: bits 2 s and 2 s + 1 of byte j.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn pairs(bytes: [u8; 8]) -> __m256i {
    let all = _mm256_set1_epi64x(i64::from_le_bytes(bytes));
    _mm256_and_si256(_mm256_srlv_epi64(all, _mm256_setr_epi64x(0, 2, 4, 6)), _mm256_set1_epi8(3))
}

/// Top bit of element j + 4 s: bit s of byte j. The lowest bit is set, so that no byte is zero.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn signs(bytes: [u8; 4]) -> __m256i {
    let all = _mm256_set1_epi32(i32::from_le_bytes(bytes));
    let shifted = _mm256_sllv_epi32(all, _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0));
    _mm256_or_si256(shifted, _mm256_set1_epi8(1))
}
