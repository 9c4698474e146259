//! Decoding and inner products of rows on a grid.

use super::{LANES, sum_lanes};
use crate::{
    Activations,
    kernel::{GridRows, Step, decode_group},
    packing::{GROUP, group_codes},
};

#[inline(always)]
pub(crate) fn grid_decode(rows: GridRows<'_>, out: &mut [f32]) {
    let kind = rows.kind;
    for ((codes, scales), out) in rows.rows().zip(out.chunks_exact_mut(rows.cols)) {
        let (groups, _) = out.as_chunks_mut::<GROUP>();
        for (g, out) in groups.iter_mut().enumerate() {
            *out = decode_group(kind, kind.step(scales, g), &group_codes(kind.bits, codes, rows.cols, g));
        }
    }
}

#[inline(always)]
pub(crate) fn grid_dot(rows: GridRows<'_>, x: &Activations, out: &mut [f32]) {
    let kind = rows.kind;
    for ((codes, scales), out) in rows.rows().zip(out) {
        let mut sum = 0.0;
        for (g, (x, x_scale)) in x.values.chunks_exact(GROUP).zip(&x.scales).enumerate() {
            let codes = group_codes(kind.bits, codes, rows.cols, g);
            let products = codes.iter().zip(x).map(|(&code, &x)| i32::from(kind.level(code)) * i32::from(x));
            let Step { scale, minimum } = kind.step(scales, g);
            let levels = scale * kind.unit() * products.sum::<i32>() as f32;
            sum += x_scale * (levels + minimum * x.iter().map(|&x| i32::from(x)).sum::<i32>() as f32);
        }
        *out = sum;
    }
}

#[inline(always)]
pub(crate) fn grid_dot_f32(rows: GridRows<'_>, x: &[f32], out: &mut [f32]) {
    let kind = rows.kind;
    for ((codes, scales), out) in rows.rows().zip(out) {
        let mut lanes = [0.0; LANES];
        let (groups, _) = x.as_chunks::<GROUP>();
        for (g, x) in groups.iter().enumerate() {
            let values =
                decode_group(kind, kind.step(scales, g), &group_codes(kind.bits, codes, rows.cols, g));
            let (values, _) = values.as_chunks::<LANES>();
            let (x, _) = x.as_chunks::<LANES>();
            for (values, x) in values.iter().zip(x) {
                for ((lane, &a), &b) in lanes.iter_mut().zip(values).zip(x) {
                    *lane += a * b;
                }
            }
        }
        *out = sum_lanes(lanes);
    }
}
