//! Inner products of rows on a grid with int8 activations.

use super::{
    planes::Row,
    vector::{load_half, load_signed_bytes, sum},
};
use crate::{
    Activations,
    kernel::{GridKind, GridRows, Layout, SIGNED_FLOATS, Step},
    packing::GROUP,
};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn grid_dot(rows: GridRows<'_>, x: &Activations, out: &mut [f32]) {
    match rows.kind.bits {
        4 => dot_bits::<4>(rows, x, out),
        5 => dot_bits::<5>(rows, x, out),
        6 => dot_bits::<6>(rows, x, out),
        _ => dot_bits::<8>(rows, x, out),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_bits<const BITS: u8>(rows: GridRows<'_>, x: &Activations, out: &mut [f32]) {
    let kind = rows.kind;
    let (values, _) = x.values.as_chunks::<GROUP>();
    let total = |x: &[i8; GROUP]| x.iter().map(|&x| i32::from(x)).sum::<i32>() as f32;
    let totals: Vec<f32> = match kind.has_minimum() {
        true => values.iter().zip(&x.scales).map(|(x, scale)| scale * total(x)).collect(),
        false => vec![0.0; values.len()],
    };
    for ((codes, scales), out) in rows.rows().zip(out) {
        let row = Row::<BITS>::new(codes, rows.cols);
        let (mut sums, mut minima) = (_mm256_setzero_ps(), 0.0);
        for (g, ((x, x_scale), total)) in values.iter().zip(&x.scales).zip(&totals).enumerate() {
            let Step { scale, minimum } = kind.step(scales, g);
            // SAFETY: activations and rows cover the same number of groups, checked by `kernel::grid_dot`.
            let levels = levels::<BITS>(kind, unsafe { row.codes(g) });
            // Levels include -128, which has no negative: its magnitude is taken as unsigned. Pairs of products
            // of magnitudes within 128 and 127 fit i16.
            let x = _mm256_sign_epi8(load_signed_bytes(x), levels);
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(levels), x);
            let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            sums = _mm256_fmadd_ps(products, _mm256_set1_ps(scale * x_scale), sums);
            minima += minimum * total;
        }
        *out = sum(sums) * kind.unit() + minima;
    }
}

/// Levels of 32 codes as i8.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn levels<const BITS: u8>(kind: GridKind, codes: __m256i) -> __m256i {
    match kind.layout {
        Layout::Minimum | Layout::Wide => codes,
        Layout::Scale | Layout::Row if BITS == 8 => codes,
        Layout::Scale | Layout::Row => {
            let half = _mm256_set1_epi8(1 << (BITS - 1));
            _mm256_sub_epi8(_mm256_xor_si256(codes, half), half)
        }
        Layout::Power => {
            let table = SIGNED_FLOATS.map(|level| level as u8);
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load_half(&table)), codes)
        }
    }
}
