//! Tiles of levels times many tokens.

use super::turbo::{Row, Tables};
use super::vector::load;
use crate::kernel::{TILE_LANES, TILE_TOKENS, TileRows, TileTokens, TurboRows, tile_place};
use crate::packing::GROUP;
use std::arch::x86_64::*;

/// Bytes that 16 rows have of four columns.
const FOUR: usize = 4 * TILE_LANES;

/// The same of 32 columns, and what all tokens have of these.
const LEVELS: usize = GROUP * TILE_LANES;
const VALUES: usize = GROUP * TILE_TOKENS;

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
pub(in crate::kernel) fn turbo_levels(rows: TurboRows<'_>, low: &mut [u8], high: &mut [u8]) {
    match rows.book.bits() {
        1 => levels::<1>(rows, low, high),
        2 => levels::<2>(rows, low, high),
        3 => levels::<3>(rows, low, high),
        4 => levels::<4>(rows, low, high),
        5 => levels::<5>(rows, low, high),
        6 => levels::<6>(rows, low, high),
        7 => levels::<7>(rows, low, high),
        _ => levels::<8>(rows, low, high),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vbmi,avx512vnni")]
fn levels<const BITS: usize>(rows: TurboRows<'_>, low: &mut [u8], high: &mut [u8]) {
    let tables = Tables::new::<BITS>(&rows.tables.levels);
    let (pairs, cols) = (rows.cols / (2 * GROUP), rows.cols);
    for (index, (codes, _)) in rows.rows().enumerate() {
        let row = Row::<BITS>::new(codes, cols);
        for pair in 0..cols.div_ceil(2 * GROUP) {
            let codes = if pair < pairs { row.codes(pair) } else { row.last_codes(pair) };
            let at = tile_place(cols, index, pair * 2 * GROUP);
            let fours = if pair < pairs { 16 } else { 8 };
            put(tables.low(codes), fours, &mut low[at..]);
            if let Some(levels) = tables.high(codes) {
                put(levels, fours, &mut high[at..]);
            }
        }
    }
}

/// Writes one row's levels of `4 * fours` columns.
#[target_feature(enable = "avx512f")]
#[inline]
fn put(levels: __m512i, fours: usize, tile: &mut [u8]) {
    let mut bytes = [0u8; 64];
    // SAFETY: `bytes` is 64 writable bytes; the store needs no alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), levels) };
    for (to, from) in tile.chunks_mut(FOUR).zip(bytes.as_chunks::<4>().0).take(fours) {
        if let Some(to) = to.first_chunk_mut() {
            *to = *from;
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
pub(in crate::kernel) fn level_multiply(
    tile: TileRows<'_>,
    x: TileTokens<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let block = TILE_LANES * tile.cols;
    for (index, low) in tile.low.chunks_exact(block).enumerate() {
        let sums = match tile.high.and_then(|high| high.get(index * block..(index + 1) * block)) {
            Some(high) => sums::<true>(low, high, x),
            None => sums::<false>(low, low, x),
        };
        let first = index * TILE_LANES;
        let steps = tile.steps.get(first..).unwrap_or(&[]);
        let mask = if steps.len() < TILE_LANES { (1u16 << steps.len()) - 1 } else { u16::MAX };
        // SAFETY: as many elements are read as the mask has bits, those that `steps` has.
        let steps = unsafe { _mm512_maskz_loadu_ps(mask, steps.as_ptr()) };
        for (out, sum) in out.chunks_mut(stride).zip(sums) {
            let Some(to) = out.get_mut(first..first + mask.count_ones() as usize) else { continue };
            // SAFETY: as many elements are written as the mask has bits, which is the length of `to`.
            unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, _mm512_mul_ps(steps, sum)) };
        }
    }
}

/// Products of 16 rows with every token, in levels.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn sums<const WIDE: bool>(low: &[u8], high: &[u8], x: TileTokens<'_>) -> [__m512; TILE_TOKENS] {
    let mut sums = [_mm512_setzero_ps(); TILE_TOKENS];
    let levels = low.as_chunks::<LEVELS>().0.iter().zip(high.as_chunks::<LEVELS>().0);
    let tokens = x.values.as_chunks::<VALUES>().0.iter();
    let scales = x.scales.as_chunks::<TILE_TOKENS>().0.iter().zip(x.starts.as_chunks::<TILE_TOKENS>().0);
    for (((low, high), values), (scales, starts)) in levels.zip(tokens).zip(scales) {
        let mut products = [_mm512_setzero_si512(); TILE_TOKENS];
        if WIDE {
            add_products(&mut products, high, values);
            products = products.map(|product| _mm512_slli_epi32::<6>(product));
        }
        add_products(&mut products, low, values);
        // Both parts have the bias, one of them 64 times.
        let bias = if WIDE { 65 } else { 1 };
        for (((sum, product), scale), start) in sums.iter_mut().zip(products).zip(scales).zip(starts) {
            let product = _mm512_add_epi32(product, _mm512_set1_epi32(bias * start));
            *sum = _mm512_fmadd_ps(_mm512_set1_ps(*scale), _mm512_cvtepi32_ps(product), *sum);
        }
    }
    sums
}

#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
fn add_products(products: &mut [__m512i; TILE_TOKENS], levels: &[u8; LEVELS], values: &[i8; VALUES]) {
    let fours = values.as_chunks::<4>().0.as_chunks::<TILE_TOKENS>().0;
    for (levels, values) in levels.as_chunks::<FOUR>().0.iter().zip(fours) {
        let levels = load(levels);
        for (product, value) in products.iter_mut().zip(values) {
            let value = _mm512_set1_epi32(i32::from_ne_bytes(value.map(i8::cast_unsigned)));
            *product = _mm512_dpbusd_epi32(*product, levels, value);
        }
    }
}
