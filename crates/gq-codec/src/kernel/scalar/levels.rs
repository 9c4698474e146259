//! Tiles of levels: the definition.

use crate::kernel::{LEVEL_BIAS, TILE_LANES, TILE_TOKENS, TileRows, TileTokens, TurboRows, tile_place};
use crate::packing::{GROUP, group_codes};

#[inline(always)]
pub(crate) fn turbo_levels(rows: TurboRows<'_>, low: &mut [u8], high: &mut [u8]) {
    for (row, (codes, _)) in rows.rows().enumerate() {
        for group in 0..rows.cols / GROUP {
            let codes = group_codes(rows.book.bits(), codes, rows.cols, group);
            for (col, code) in (group * GROUP..).zip(codes) {
                let level = i32::from(rows.tables.levels[usize::from(code)]);
                let at = tile_place(rows.cols, row, col);
                if high.is_empty() {
                    low[at] = (LEVEL_BIAS + level) as u8;
                } else {
                    (low[at], high[at]) = ((LEVEL_BIAS + level % 64) as u8, (LEVEL_BIAS + level / 64) as u8);
                }
            }
        }
    }
}

#[inline(always)]
pub(crate) fn level_multiply(tile: TileRows<'_>, x: TileTokens<'_>, out: &mut [f32], stride: usize) {
    let block = TILE_LANES * tile.cols;
    for (row, step) in tile.steps.iter().enumerate() {
        let part = row / TILE_LANES * block..(row / TILE_LANES + 1) * block;
        let lane = row % TILE_LANES;
        for (token, out) in out.iter_mut().skip(row).step_by(stride).enumerate() {
            let mut sum = 0.0f32;
            for group in 0..tile.cols / GROUP {
                let products = |levels: &[u8]| {
                    let fours = levels[part.clone()].as_chunks::<4>().0.iter().skip(lane).step_by(TILE_LANES);
                    let values = x.values.as_chunks::<4>().0.iter().skip(token).step_by(TILE_TOKENS);
                    let fours = fours.zip(values).skip(group * (GROUP / 4)).take(GROUP / 4);
                    let four = |(levels, values): (&[u8; 4], &[i8; 4])| -> i32 {
                        levels
                            .iter()
                            .zip(values)
                            .map(|(&l, &x)| (i32::from(l) - LEVEL_BIAS) * i32::from(x))
                            .sum()
                    };
                    fours.map(four).sum::<i32>()
                };
                let products = products(tile.low) + 64 * tile.high.map_or(0, products);
                sum += x.scales[group * TILE_TOKENS + token] * products as f32;
            }
            *out = step * sum;
        }
    }
}
