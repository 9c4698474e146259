//! Trellis codes: search, decoding and products. The search and the decoder give the bits of the scalar definition.

use super::vector::{load_bytes, load_half};
use crate::kernel::{BLOCK_ROWS, MOST_GROUPS, StripRows};
use crate::packing::GROUP;
use crate::{Activations, trellis::Trellis};
use gq_tensor::Encoding;
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma")]
pub(in crate::kernel) fn viterbi(
    bits: u32,
    values: &[f32],
    targets: &[f32],
    weights: &[f32],
    cost: &mut [f32],
    branch: &mut [u8],
) {
    match bits {
        2 => search::<2>(values, targets, weights, cost, branch),
        3 => search::<3>(values, targets, weights, cost, branch),
        4 => search::<4>(values, targets, weights, cost, branch),
        5 => search::<5>(values, targets, weights, cost, branch),
        _ => search::<6>(values, targets, weights, cost, branch),
    }
}

#[target_feature(enable = "avx2,fma")]
fn search<const BITS: usize>(
    values: &[f32],
    targets: &[f32],
    weights: &[f32],
    cost: &mut [f32],
    branch: &mut [u8],
) {
    let branches = 1usize << BITS;
    let groups = values.len() >> BITS;
    let mut best = [0u32; MOST_GROUPS];
    assert!(groups.is_multiple_of(8) && groups <= best.len() && cost.len() == values.len());
    assert!(targets.len() == weights.len() && branch.len() == targets.len() * groups);
    let mask = _mm256_set1_epi32(branches as i32 - 1);
    let (values, cost, best) = (values.as_ptr(), cost.as_mut_ptr(), best.as_mut_ptr());
    for ((&target, &weight), branch) in targets.iter().zip(weights).zip(branch.chunks_exact_mut(groups)) {
        let branch = branch.as_mut_ptr();
        for group in (0..groups).step_by(8) {
            // SAFETY: top * groups + group + 8 <= branches * groups, the states that `cost` has, and
            // group + 8 <= groups, the entries that `branch` and `best` have.
            unsafe {
                let tagged = |top: usize| {
                    let cost = _mm256_loadu_si256(cost.add(top * groups + group).cast());
                    _mm256_or_si256(_mm256_andnot_si256(mask, cost), _mm256_set1_epi32(top as i32))
                };
                let (mut even, mut odd) = (tagged(0), tagged(1));
                let mut top = 2;
                while top < branches {
                    even = _mm256_min_epu32(even, tagged(top));
                    odd = _mm256_min_epu32(odd, tagged(top + 1));
                    top += 2;
                }
                let least = _mm256_min_epu32(even, odd);
                _mm256_storeu_si256(best.add(group).cast(), _mm256_andnot_si256(mask, least));
                let tags = _mm256_and_si256(least, mask);
                let halves =
                    _mm_packs_epi32(_mm256_castsi256_si128(tags), _mm256_extracti128_si256::<1>(tags));
                _mm_storel_epi64(branch.add(group).cast(), _mm_packus_epi16(halves, halves));
            }
        }
        let (target, weight) = (_mm256_set1_ps(target), _mm256_set1_ps(weight));
        // SAFETY: state + 8 <= branches * groups, the states that `values` and `cost` have; `best` has `groups`.
        unsafe {
            let metric = |state: usize| {
                let error = _mm256_sub_ps(target, _mm256_loadu_ps(values.add(state)));
                _mm256_mul_ps(weight, _mm256_mul_ps(error, error))
            };
            if BITS == 2 {
                for group in (0..groups).step_by(2) {
                    let pair = _mm_castpd_ps(_mm_load_sd(best.add(group).cast()));
                    let spread = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
                    let base = _mm256_permutevar8x32_ps(_mm256_castps128_ps256(pair), spread);
                    let state = group * branches;
                    _mm256_storeu_ps(cost.add(state), _mm256_add_ps(base, metric(state)));
                }
            } else {
                for group in 0..groups {
                    let base = _mm256_broadcast_ss(&*best.add(group).cast());
                    for state in (group * branches..(group + 1) * branches).step_by(8) {
                        _mm256_storeu_ps(cost.add(state), _mm256_add_ps(base, metric(state)));
                    }
                }
            }
        }
    }
}

/// Columns between two looks at another block of rows: their codes stay in the first level of cache.
const CHUNK_GROUPS: usize = 8;

/// Blocks of rows that a strip can be cut into, wherever the first begins.
const MOST_BLOCKS: usize = Encoding::STRIP_ROWS / BLOCK_ROWS;

/// Turns codes of blocks of rows into levels.
struct Blocks<'a> {
    codes: &'a [u8],
    column_bytes: usize,
    bits: usize,
    /// First byte of the first block in a column.
    start: usize,
    /// Which bytes of 16 make the window of each of 8 rows, and how far it is shifted.
    pick: __m256i,
    shift: __m256i,
    multiplier: __m256i,
    down: __m128i,
    /// Magnitudes, 16 each; each but the first is added to the ones before, without carry.
    tables: [__m256i; 8],
}

impl<'a> Blocks<'a> {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn new(strip: &StripRows<'a>) -> Blocks<'a> {
        let Trellis { bits, log_states, multiplier, magnitudes, .. } = strip.trellis;
        let bits = *bits as usize;
        // Two bytes come before those of the group: row r sees the bits up to 16 + (r + 1) * bits.
        let (mut pick, mut shift) = ([0u8; 32], [0i32; 8]);
        for (row, (pick, shift)) in pick.as_chunks_mut::<4>().0.iter_mut().zip(&mut shift).enumerate() {
            let end = 16 + (row + 1) * bits;
            let last = (end - 1) / 8;
            *pick = [last as u8, last as u8 - 1, last as u8 - 2, 0x80];
            *shift = ((last + 1) * 8 - end) as i32;
        }
        let mut tables = [_mm256_setzero_si256(); 8];
        let (mut before, (parts, _)) = ([0u8; 16], magnitudes.as_chunks::<16>());
        for (table, part) in tables.iter_mut().zip(parts) {
            let part = part.map(|magnitude| magnitude as u8);
            let step: [u8; 16] = std::array::from_fn(|i| part[i] ^ before[i]);
            *table = _mm256_broadcastsi128_si256(load_half(&step));
            before = part;
        }
        let [s0, s1, s2, s3, s4, s5, s6, s7] = shift;
        Blocks {
            codes: strip.codes,
            column_bytes: strip.column_bytes,
            bits,
            start: strip.first / 8 * bits,
            pick: load_bytes(&pick),
            shift: _mm256_setr_epi32(s0, s1, s2, s3, s4, s5, s6, s7),
            multiplier: _mm256_set1_epi32((*multiplier).into()),
            down: _mm_cvtsi32_si128(*log_states as i32 - 8),
            tables,
        }
    }

    /// Levels of the 32 rows of a block of a column; those beyond the strip's rows are anything.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn levels(&self, col: usize, block: usize) -> __m256i {
        let (column, offset, stride) =
            (col * self.column_bytes, self.start + block * 4 * self.bits, self.bits);
        let at = column + offset;
        if offset >= 2 && at + 3 * stride + 14 <= self.codes.len() {
            // SAFETY: at - 2 >= column >= 0, and the last of the 16 bytes of the last load is before
            // at - 2 + 3 * stride + 16, which was just seen to be within `codes`.
            let windows = unsafe {
                let from = self.codes.as_ptr().add(at - 2);
                [0, 1, 2, 3].map(|group: usize| _mm_loadu_si128(from.add(group * stride).cast()))
            };
            return self.decode(windows);
        }
        self.decode(self.edge(column, offset))
    }

    /// The windows of a block that begins with the strip or ends with the codes.
    #[target_feature(enable = "avx2,fma,f16c")]
    fn edge(&self, column: usize, offset: usize) -> [__m128i; 4] {
        let mut near = [0u8; 64];
        let column = &self.codes[column..column + self.column_bytes];
        // The bits before the first row are those of the last ones.
        let before = (if offset >= 2 { offset } else { column.len() }) - 2;
        near[..2].copy_from_slice(&column[before..before + 2]);
        let part = &column[offset..(offset + 4 * self.bits).min(column.len())];
        near[2..2 + part.len()].copy_from_slice(part);
        let mut windows = [_mm_setzero_si128(); 4];
        for (group, window) in windows.iter_mut().enumerate() {
            if let Some(bytes) = near[group * self.bits..].first_chunk() {
                *window = load_half(bytes);
            }
        }
        windows
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn decode(&self, windows: [__m128i; 4]) -> __m256i {
        let mut index = [_mm256_setzero_si256(); 4];
        for (index, window) in index.iter_mut().zip(windows) {
            let picked = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(window), self.pick);
            // Only the lower L bits of the product count, so bits of the window above L do no harm.
            let mixed = _mm256_mullo_epi16(_mm256_srlv_epi32(picked, self.shift), self.multiplier);
            *index = _mm256_and_si256(_mm256_srl_epi32(mixed, self.down), _mm256_set1_epi32(0xFF));
        }
        let (low, high) = (_mm256_packus_epi32(index[0], index[1]), _mm256_packus_epi32(index[2], index[3]));
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let index = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
        // Below 128 the levels are negative, and the magnitudes mirrored.
        let signed = _mm256_xor_si256(index, _mm256_set1_epi8(-128));
        let negative = _mm256_cmpgt_epi8(_mm256_setzero_si256(), signed);
        let mut left = _mm256_xor_si256(signed, negative);
        let mut level = _mm256_setzero_si256();
        for table in self.tables {
            // A negative `left` picks zero: the table that the index is in was the one before.
            level = _mm256_xor_si256(level, _mm256_shuffle_epi8(table, left));
            left = _mm256_sub_epi8(left, _mm256_set1_epi8(16));
        }
        _mm256_sub_epi8(_mm256_xor_si256(level, negative), negative)
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn trellis_decode(strip: StripRows<'_>, out: &mut [f32]) {
    let blocks = Blocks::new(&strip);
    let skip = strip.first % 8;
    let (cols, rows) = (strip.cols, skip + strip.steps.len());
    for chunk in (0..cols).step_by(CHUNK_GROUPS * GROUP) {
        for block in 0..rows.div_ceil(BLOCK_ROWS) {
            for col in (chunk..(chunk + CHUNK_GROUPS * GROUP).min(cols)).step_by(16) {
                let mut columns = [_mm256_setzero_si256(); 16];
                for (i, column) in columns.iter_mut().enumerate() {
                    *column = blocks.levels(col + i, block);
                }
                // Rows 0 to 15 of the block are now in the lower halves, rows 16 to 31 in the upper ones.
                for (i, row) in transpose(columns).into_iter().enumerate() {
                    let halves = [_mm256_castsi256_si128(row), _mm256_extracti128_si256::<1>(row)];
                    for (half, levels) in halves.into_iter().enumerate() {
                        let row = (block * BLOCK_ROWS + 16 * half + i).wrapping_sub(skip);
                        let Some(&step) = strip.steps.get(row) else { continue };
                        let Some(to) = out[row * cols + col..].first_chunk_mut::<16>() else { continue };
                        let low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(levels));
                        let high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128::<8>(levels)));
                        let step = _mm256_set1_ps(step);
                        // SAFETY: `to` has 16 elements.
                        unsafe {
                            _mm256_storeu_ps(to.as_mut_ptr(), _mm256_mul_ps(step, low));
                            _mm256_storeu_ps(to.as_mut_ptr().add(8), _mm256_mul_ps(step, high));
                        }
                    }
                }
            }
        }
    }
}

/// Transposes the 16 x 16 bytes of each half: four times, the first half of the bytes is interleaved with the second.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn transpose(mut bytes: [__m256i; 16]) -> [__m256i; 16] {
    for _ in 0..4 {
        let from = bytes;
        for i in 0..8 {
            bytes[2 * i] = _mm256_unpacklo_epi8(from[i], from[i + 8]);
            bytes[2 * i + 1] = _mm256_unpackhi_epi8(from[i], from[i + 8]);
        }
    }
    bytes
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn trellis_dot(strip: StripRows<'_>, x: &Activations, out: &mut [f32]) {
    let blocks = Blocks::new(&strip);
    let rows = strip.first % 8 + strip.steps.len();
    // Per block, four vectors of rows 4k, .., 4k + 3, 16 + 4k, .., 16 + 4k + 3.
    let mut sums = [[_mm256_setzero_ps(); 4]; MOST_BLOCKS + 1];
    let (values, magnitudes) = (x.values.as_chunks::<GROUP>().0, x.magnitudes.as_chunks::<GROUP>().0);
    for chunk in (0..values.len()).step_by(CHUNK_GROUPS) {
        let groups = chunk..(chunk + CHUNK_GROUPS).min(values.len());
        for (block, sums) in sums.iter_mut().enumerate().take(rows.div_ceil(BLOCK_ROWS)) {
            for group in groups.clone() {
                let mut products = [_mm256_setzero_si256(); 4];
                let fours = values[group].as_chunks::<4>().0.iter().zip(magnitudes[group].as_chunks::<4>().0);
                for (four, (x, magnitude)) in fours.enumerate() {
                    let col = group * GROUP + 4 * four;
                    let x = _mm256_set1_epi32(i32::from_ne_bytes(x.map(|x| x as u8)));
                    let magnitude = _mm256_set1_epi32(i32::from_ne_bytes(*magnitude));
                    let [a, b, c, d] = [0, 1, 2, 3].map(|i| blocks.levels(col + i, block));
                    let (ab, cd) = (_mm256_unpacklo_epi8(a, b), _mm256_unpacklo_epi8(c, d));
                    let (ab_high, cd_high) = (_mm256_unpackhi_epi8(a, b), _mm256_unpackhi_epi8(c, d));
                    let parts = [
                        _mm256_unpacklo_epi16(ab, cd),
                        _mm256_unpackhi_epi16(ab, cd),
                        _mm256_unpacklo_epi16(ab_high, cd_high),
                        _mm256_unpackhi_epi16(ab_high, cd_high),
                    ];
                    for (product, part) in products.iter_mut().zip(parts) {
                        // At most 2 * 127 * 127 per pair: within i16.
                        let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(part, x));
                        let fours = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
                        *product = _mm256_add_epi32(*product, fours);
                    }
                }
                let scale = _mm256_set1_ps(x.scales[group]);
                for (sum, product) in sums.iter_mut().zip(products) {
                    *sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(product), *sum);
                }
            }
        }
    }
    finish(&strip, &sums, |lanes, row| lanes[row / 4 % 4][row % 4 + row / 16 * 4], out);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn trellis_dot_f32(strip: StripRows<'_>, x: &[f32], out: &mut [f32]) {
    let blocks = Blocks::new(&strip);
    let rows = strip.first % 8 + strip.steps.len();
    // Per block, four vectors of rows 8k, .., 8k + 7.
    let mut sums = [[_mm256_setzero_ps(); 4]; MOST_BLOCKS + 1];
    for (chunk, x) in x.chunks(CHUNK_GROUPS * GROUP).enumerate() {
        for (block, sums) in sums.iter_mut().enumerate().take(rows.div_ceil(BLOCK_ROWS)) {
            for (col, &x) in (chunk * CHUNK_GROUPS * GROUP..).zip(x) {
                let levels = blocks.levels(col, block);
                let (low, high) = (_mm256_castsi256_si128(levels), _mm256_extracti128_si256::<1>(levels));
                let parts = [low, _mm_srli_si128::<8>(low), high, _mm_srli_si128::<8>(high)];
                for (sum, part) in sums.iter_mut().zip(parts) {
                    let levels = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(part));
                    *sum = _mm256_fmadd_ps(_mm256_set1_ps(x), levels, *sum);
                }
            }
        }
    }
    finish(&strip, &sums, |lanes, row| lanes[row / 8][row % 8], out);
}

/// Sums times steps, for the rows that were asked for.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn finish(
    strip: &StripRows<'_>,
    sums: &[[__m256; 4]],
    place: impl Fn(&[[f32; 8]; 4], usize) -> f32,
    out: &mut [f32],
) {
    let skip = strip.first % 8;
    for (block, sums) in sums.iter().enumerate().take((skip + out.len()).div_ceil(BLOCK_ROWS)) {
        let [a, b, c, d] = *sums;
        let lanes = [
            super::vector::lanes(a),
            super::vector::lanes(b),
            super::vector::lanes(c),
            super::vector::lanes(d),
        ];
        for row in 0..BLOCK_ROWS {
            let at = (block * BLOCK_ROWS + row).wrapping_sub(skip);
            if let (Some(out), Some(step)) = (out.get_mut(at), strip.steps.get(at)) {
                *out = step * place(&lanes, row);
            }
        }
    }
}
