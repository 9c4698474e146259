//! Trellis codes decoded and multiplied. Decoding gives the bits of the scalar definition.
//!
//! One vector holds the windows of 16 rows of two columns as 16-bit words; two of them make the level indices of
//! 16 rows of four columns, in the order in which a dot product of bytes wants them.

use super::vector::{load, load_quarter};
use crate::kernel::{LEVEL_BIAS, StripRows, TILE_LANES, scalar};
use crate::packing::GROUP;
use crate::{Activations, trellis::Trellis};
use gq_tensor::Encoding;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a block.
const ROWS: usize = 16;

/// Columns of a block.
const COLS: usize = 4;

/// Blocks of rows that a strip can be cut into, wherever the first begins.
const MOST_BLOCKS: usize = Encoding::STRIP_ROWS / ROWS + 1;

/// Turns codes of blocks into levels.
struct Blocks<'a> {
    codes: &'a [u8],
    column_bytes: usize,
    bits: usize,
    /// First byte of the first block in a column.
    start: usize,
    /// Which bytes make the 64 bits that four rows' windows are in, and where in them each window begins.
    pick: __m512i,
    shift: __m512i,
    multiplier: __m512i,
    down: __m128i,
    /// Brings the lower bytes of 64 words to `[row][column]`.
    order: __m512i,
    /// Level plus [`LEVEL_BIAS`] of every index.
    tables: [__m512i; 4],
}

impl<'a> Blocks<'a> {
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn new(strip: &StripRows<'a>) -> Blocks<'a> {
        let Trellis { bits, log_states, multiplier, magnitudes, .. } = strip.trellis;
        let bits = *bits as usize;
        let (mut pick, mut shift) = ([0u8; 64], [0u8; 64]);
        for (four, (pick, shift)) in
            pick.as_chunks_mut::<8>().0.iter_mut().zip(shift.as_chunks_mut::<8>().0).enumerate()
        {
            let (column, first) = (four / COLS, four % COLS * 4);
            // Two bytes come before those of the block: row r sees the bits up to 16 + (r + 1) * bits.
            let end = (16 + (first + 4) * bits).div_ceil(8);
            for (byte, pick) in pick.iter_mut().enumerate() {
                // Bits further than that up belong to no window.
                *pick = (column * 16 + end.saturating_sub(1 + byte)) as u8;
            }
            for (row, shift) in shift.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let from = (end * 8 - 16 - (first + row + 1) * bits) as u8;
                *shift = [from, from + 8];
            }
        }
        let order: [u8; 64] = std::array::from_fn(|byte| {
            let (row, column) = (byte / COLS, byte % COLS);
            (column / 2 * 64 + 2 * (column % 2 * ROWS + row)) as u8
        });
        // Below 128 the levels are negative, and the magnitudes mirrored.
        let level = |index: usize| match index.checked_sub(128) {
            Some(index) => LEVEL_BIAS + i32::from(magnitudes[index]),
            None => LEVEL_BIAS - i32::from(magnitudes[127 - index]),
        };
        let tables = [0, 1, 2, 3].map(|part| load(&std::array::from_fn(|i| level(part * 64 + i) as u8)));
        Blocks {
            codes: strip.codes,
            column_bytes: strip.column_bytes,
            bits,
            start: strip.first / 8 * bits,
            pick: load(&pick),
            shift: load(&shift),
            multiplier: _mm512_set1_epi16(multiplier.cast_signed()),
            down: _mm_cvtsi32_si128(*log_states as i32 - 8),
            order: load(&order),
            tables,
        }
    }

    /// A block of rows of `count` columns from `col` on.
    fn part(&self, block: usize, col: usize, count: usize) -> Part {
        let offset = self.start + block * 2 * self.bits;
        let end = (col + count - 1) * self.column_bytes + offset + 14;
        Part { offset, inside: offset >= 2 && end <= self.codes.len(), cols: col..col + count }
    }

    /// Levels plus [`LEVEL_BIAS`] of 16 rows of four columns; those beyond the strip's rows are anything.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    #[inline]
    fn levels(&self, part: &Part, col: usize) -> __m512i {
        let words = |col: usize| {
            let [first, second] = [self.window(part, col), self.window(part, col + 1)];
            let pair =
                _mm512_castsi256_si512(_mm256_inserti128_si256::<1>(_mm256_castsi128_si256(first), second));
            let bits = _mm512_permutexvar_epi8(self.pick, pair);
            // Only the lower L bits of the product count, so bits of the window above L do no harm.
            let mixed = _mm512_mullo_epi16(_mm512_multishift_epi64_epi8(self.shift, bits), self.multiplier);
            _mm512_srl_epi16(mixed, self.down)
        };
        let index = _mm512_permutex2var_epi8(words(col), self.order, words(col + 2));
        let [a, b, c, d] = self.tables;
        let (low, high) = (_mm512_permutex2var_epi8(a, index, b), _mm512_permutex2var_epi8(c, index, d));
        _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), low, high)
    }

    /// The 16 bytes of a column from two before a block on.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    #[inline]
    fn window(&self, part: &Part, col: usize) -> __m128i {
        let column = col * self.column_bytes;
        debug_assert!(part.cols.contains(&col), "columns of the part");
        if part.inside {
            // SAFETY: offset >= 2, and `part` saw that 14 bytes from `offset` on are within `codes` in the last of its
            // columns, of which this is one.
            return unsafe { _mm_loadu_si128(self.codes.as_ptr().add(column + part.offset - 2).cast()) };
        }
        self.edge(column, part.offset)
    }

    /// The bytes of a block that begins with the strip or ends with the codes.
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn edge(&self, column: usize, offset: usize) -> __m128i {
        // The bits before the first row are those of the last ones.
        let before = column + if offset >= 2 { offset } else { self.column_bytes } - 2;
        let before = self
            .codes
            .get(before..)
            .and_then(|bytes| bytes.first_chunk())
            .map_or(0, |b| u16::from_le_bytes(*b));
        let rest = self.codes.get(column + offset..).unwrap_or(&[]);
        let bytes = match rest.first_chunk::<16>() {
            Some(bytes) => *bytes,
            None => {
                let mut bytes = [0; 16];
                bytes[..rest.len()].copy_from_slice(rest);
                bytes
            }
        };
        _mm_insert_epi16::<0>(_mm_bslli_si128::<2>(load_quarter(&bytes)), before.into())
    }
}

/// Where a block of rows is in its columns.
#[derive(Clone)]
struct Part {
    /// Its first byte in a column.
    offset: usize,
    /// Whether 16 bytes can be read in every one of `cols`, from two before `offset` on.
    inside: bool,
    cols: Range<usize>,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in crate::kernel) fn trellis_decode(strip: StripRows<'_>, out: &mut [f32]) {
    let blocks = Blocks::new(&strip);
    let (cols, skip) = (strip.cols, strip.first % 8);
    for block in 0..(skip + strip.steps.len()).div_ceil(ROWS) {
        for col in (0..cols).step_by(ROWS) {
            let part = blocks.part(block, col, ROWS);
            let fours = [0, 1, 2, 3].map(|four| blocks.levels(&part, col + COLS * four));
            for (i, rows) in transpose(fours).into_iter().enumerate() {
                let rows = _mm512_xor_si512(rows, _mm512_set1_epi8(i8::MIN));
                let quarters = [
                    _mm512_extracti32x4_epi32::<0>(rows),
                    _mm512_extracti32x4_epi32::<1>(rows),
                    _mm512_extracti32x4_epi32::<2>(rows),
                    _mm512_extracti32x4_epi32::<3>(rows),
                ];
                for (quarter, levels) in quarters.into_iter().enumerate() {
                    let row = (block * ROWS + 4 * quarter + i).wrapping_sub(skip);
                    let Some(&step) = strip.steps.get(row) else { continue };
                    let Some(to) = out[row * cols + col..].first_chunk_mut::<16>() else { continue };
                    let values = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(levels));
                    // SAFETY: `to` has 16 elements.
                    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), _mm512_mul_ps(_mm512_set1_ps(step), values)) };
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in crate::kernel) fn trellis_levels(strip: StripRows<'_>, at: usize, low: &mut [u8]) {
    if !strip.first.is_multiple_of(8) || !at.is_multiple_of(TILE_LANES) {
        return scalar::trellis_levels(strip, at, low);
    }
    let blocks = Blocks::new(&strip);
    let rows = low.chunks_exact_mut(ROWS * strip.cols).skip(at / ROWS);
    for (block, low) in rows.enumerate().take(strip.steps.len().div_ceil(ROWS)) {
        for (group, low) in low.as_chunks_mut::<{ GROUP * ROWS }>().0.iter_mut().enumerate() {
            let part = blocks.part(block, group * GROUP, GROUP);
            for (four, to) in low.as_chunks_mut::<{ COLS * ROWS }>().0.iter_mut().enumerate() {
                let levels = blocks.levels(&part, group * GROUP + COLS * four);
                // SAFETY: `to` is 64 writable bytes; the store needs no alignment.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), levels) };
            }
        }
    }
}

/// From four columns of 16 rows each to 16 columns of four rows each: row 4k + i in quarter k of vector i.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab, cd) = (_mm512_unpacklo_epi32(a, b), _mm512_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm512_unpackhi_epi32(a, b), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab, cd),
        _mm512_unpackhi_epi64(ab, cd),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(in crate::kernel) fn trellis_dot(strip: StripRows<'_>, x: &Activations, out: &mut [f32]) {
    let blocks = Blocks::new(&strip);
    let count = (strip.first % 8 + strip.steps.len()).div_ceil(ROWS);
    let mut sums = [_mm512_setzero_ps(); MOST_BLOCKS];
    for (group, (x, &scale)) in x.values.as_chunks::<GROUP>().0.iter().zip(&x.scales).enumerate() {
        let bias = LEVEL_BIAS * x.iter().map(|&x| i32::from(x)).sum::<i32>();
        for (block, sum) in sums.iter_mut().enumerate().take(count) {
            let part = blocks.part(block, group * GROUP, GROUP);
            let mut products = _mm512_set1_epi32(-bias);
            for (four, x) in x.as_chunks::<COLS>().0.iter().enumerate() {
                let levels = blocks.levels(&part, group * GROUP + COLS * four);
                let x = _mm512_set1_epi32(i32::from_ne_bytes(x.map(i8::cast_unsigned)));
                products = _mm512_dpbusd_epi32(products, levels, x);
            }
            *sum = _mm512_fmadd_ps(_mm512_set1_ps(scale), _mm512_cvtepi32_ps(products), *sum);
        }
    }
    finish(&strip, &sums, out);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(in crate::kernel) fn trellis_dot_f32(strip: StripRows<'_>, x: &[f32], out: &mut [f32]) {
    let blocks = Blocks::new(&strip);
    let count = (strip.first % 8 + strip.steps.len()).div_ceil(ROWS);
    let mut sums = [_mm512_setzero_ps(); MOST_BLOCKS];
    for (group, x) in x.as_chunks::<GROUP>().0.iter().enumerate() {
        for (block, sum) in sums.iter_mut().enumerate().take(count) {
            let part = blocks.part(block, group * GROUP, GROUP);
            for (four, &[a, b, c, d]) in x.as_chunks::<COLS>().0.iter().enumerate() {
                let levels = blocks.levels(&part, group * GROUP + COLS * four);
                let levels = _mm512_xor_si512(levels, _mm512_set1_epi8(i8::MIN));
                // The byte of each column, with its sign, as the upper one of a lane.
                let parts = [
                    _mm512_slli_epi32::<24>(levels),
                    _mm512_slli_epi32::<16>(levels),
                    _mm512_slli_epi32::<8>(levels),
                    levels,
                ];
                for (part, x) in parts.into_iter().zip([a, b, c, d]) {
                    let levels = _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(part));
                    *sum = _mm512_fmadd_ps(_mm512_set1_ps(x), levels, *sum);
                }
            }
        }
    }
    finish(&strip, &sums, out);
}

/// Sums times steps, for the rows that were asked for.
#[target_feature(enable = "avx512f")]
#[inline]
fn finish(strip: &StripRows<'_>, sums: &[__m512; MOST_BLOCKS], out: &mut [f32]) {
    let mut lanes = [[0.0; ROWS]; MOST_BLOCKS];
    for (lanes, sum) in lanes.iter_mut().zip(sums) {
        // SAFETY: `lanes` has 16 elements.
        unsafe { _mm512_storeu_ps(lanes.as_mut_ptr(), *sum) };
    }
    let sums = lanes.as_flattened().iter().skip(strip.first % 8);
    for ((out, step), sum) in out.iter_mut().zip(strip.steps).zip(sums) {
        *out = step * sum;
    }
}
