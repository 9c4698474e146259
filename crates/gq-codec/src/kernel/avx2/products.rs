//! Decoding and inner products of stored rows.

use super::{
    planes::{Levels, Row, Tables},
    scalar,
    vector::{load, load_bytes, load_half, load_signed_bytes, store, sum},
};
use crate::{Activations, kernel::TurboRows, packing::GROUP};
use gq_tensor::{DType, decode_f32};
use std::arch::x86_64::*;

/// Calls `$kernel::<BITS>` for the width of the code.
macro_rules! by_bits {
    ($rows:expr, $kernel:ident($($argument:expr),*)) => {
        match $rows.book.bits() {
            1 => $kernel::<1>($($argument),*),
            2 => $kernel::<2>($($argument),*),
            3 => $kernel::<3>($($argument),*),
            4 => $kernel::<4>($($argument),*),
            5 => $kernel::<5>($($argument),*),
            6 => $kernel::<6>($($argument),*),
            7 => $kernel::<7>($($argument),*),
            _ => $kernel::<8>($($argument),*),
        }
    };
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn turbo_decode(rows: TurboRows<'_>, out: &mut [f32]) {
    by_bits!(rows, decode_bits(rows, out));
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn turbo_dot(rows: TurboRows<'_>, x: &Activations, out: &mut [f32]) {
    by_bits!(rows, dot_bits(rows, x, out));
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn turbo_dot_f32(rows: TurboRows<'_>, x: &[f32], out: &mut [f32]) {
    by_bits!(rows, dot_f32_bits(rows, x, out));
}

#[target_feature(enable = "avx2,fma,f16c")]
fn decode_bits<const BITS: u8>(rows: TurboRows<'_>, out: &mut [f32]) {
    let tables = Tables::new(rows.tables);
    for ((codes, scales), out) in rows.rows().zip(out.chunks_exact_mut(rows.cols)) {
        let row = Row::<BITS>::new(codes, rows.cols);
        let (groups, _) = out.as_chunks_mut::<GROUP>();
        let per_scale = rows.group_len / GROUP;
        for (s, groups) in groups.chunks_mut(per_scale).enumerate() {
            let step = _mm256_set1_ps(scale_at(scales, s) * rows.book.unit());
            for (i, group) in groups.iter_mut().enumerate() {
                // SAFETY: scales and groups cover `cols` elements, so this is below `cols / 32`.
                let values = values(unsafe { row.levels(&tables, s * per_scale + i) });
                let (octets, _) = group.as_chunks_mut::<8>();
                for (octet, value) in octets.iter_mut().zip(values) {
                    store(octet, _mm256_mul_ps(step, value));
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(in crate::kernel) fn scale_at(scales: &[u8], index: usize) -> f32 {
    let (scales, _) = scales.as_chunks::<2>();
    scales.get(index).map_or(0.0, |bytes| {
        let bits = _mm_cvtsi32_si128(i32::from(u16::from_le_bytes(*bytes)));
        _mm_cvtss_f32(_mm_cvtph_ps(bits))
    })
}

/// Levels as f32, in order.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn values(levels: Levels) -> [__m256; 4] {
    match levels {
        Levels::Signed(levels) => byte_values(levels),
        Levels::Split(magnitudes, signs) => byte_values(_mm256_sign_epi8(magnitudes, signs)),
        Levels::Wide(high, low, signs) => {
            let weights = _mm256_set1_epi16(0x0140); // 64 for the first byte of each pair, 1 for the second
            let first = _mm256_maddubs_epi16(_mm256_unpacklo_epi8(high, low), weights);
            let second = _mm256_maddubs_epi16(_mm256_unpackhi_epi8(high, low), weights);
            let first = _mm256_sign_epi16(first, _mm256_unpacklo_epi8(signs, signs));
            let second = _mm256_sign_epi16(second, _mm256_unpackhi_epi8(signs, signs));
            let float = |half: __m128i| _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(half));
            [
                float(_mm256_castsi256_si128(first)),
                float(_mm256_castsi256_si128(second)),
                float(_mm256_extracti128_si256::<1>(first)),
                float(_mm256_extracti128_si256::<1>(second)),
            ]
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn byte_values(levels: __m256i) -> [__m256; 4] {
    let float = |bytes: __m128i| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
    let (low, high) = (_mm256_castsi256_si128(levels), _mm256_extracti128_si256::<1>(levels));
    [float(low), float(_mm_srli_si128::<8>(low)), float(high), float(_mm_srli_si128::<8>(high))]
}

/// Rows whose products share each load of the activations.
const TOGETHER: usize = 4;

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_bits<const BITS: u8>(rows: TurboRows<'_>, x: &Activations, out: &mut [f32]) {
    let tables = Tables::new(rows.tables);
    let unit = rows.book.unit();
    let mut parts = rows.rows();
    if rows.group_len < rows.cols {
        let mut scales = vec![0.0; x.scales.len()];
        for ((codes, row_scales), out) in parts.zip(out) {
            combine_scales(row_scales, rows.group_len / GROUP, &x.scales, &mut scales);
            let [sum] = dot_together::<BITS, 1>(&tables, [Row::new(codes, rows.cols)], x, &scales);
            *out = unit * sum;
        }
        return;
    }
    let (together, rest) = out.as_chunks_mut::<TOGETHER>();
    for out in together {
        let mut next = || parts.next().unwrap_or((&[], &[]));
        let parts = [next(), next(), next(), next()];
        let sums = dot_together::<BITS, TOGETHER>(
            &tables,
            parts.map(|(codes, _)| Row::new(codes, rows.cols)),
            x,
            &x.scales,
        );
        for ((out, sum), (_, scales)) in out.iter_mut().zip(sums).zip(parts) {
            *out = scale_at(scales, 0) * unit * sum;
        }
    }
    for ((codes, scales), out) in parts.zip(rest) {
        let [sum] = dot_together::<BITS, 1>(&tables, [Row::new(codes, rows.cols)], x, &x.scales);
        *out = scale_at(scales, 0) * unit * sum;
    }
}

/// Scale of the activations times scale of the weights, for each 32 elements.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(in crate::kernel) fn combine_scales(
    row_scales: &[u8],
    per_scale: usize,
    x_scales: &[f32],
    out: &mut [f32],
) {
    for (s, (out, x_scales)) in out.chunks_mut(per_scale).zip(x_scales.chunks(per_scale)).enumerate() {
        let scale = scale_at(row_scales, s);
        for (out, x_scale) in out.iter_mut().zip(x_scales) {
            *out = scale * x_scale;
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn dot_together<const BITS: u8, const ROWS: usize>(
    tables: &Tables,
    rows: [Row<'_, BITS>; ROWS],
    x: &Activations,
    scales: &[f32],
) -> [f32; ROWS] {
    let (values, _) = x.values.as_chunks::<GROUP>();
    let (magnitudes, _) = x.magnitudes.as_chunks::<GROUP>();
    let mut sums = [_mm256_setzero_ps(); ROWS];
    for (g, ((value, magnitude), &scale)) in values.iter().zip(magnitudes).zip(scales).enumerate() {
        let (value, magnitude) = (load_signed_bytes(value), load_bytes(magnitude));
        let scale = _mm256_set1_ps(scale);
        for (sum, row) in sums.iter_mut().zip(&rows) {
            // SAFETY: activations and rows cover the same number of groups, checked by `turbo_dot`.
            let levels = unsafe { row.levels(tables, g) };
            let products = products::<BITS>(levels, value, magnitude);
            *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products), scale, *sum);
        }
    }
    sums.map(|lanes| sum(lanes))
}

/// Sums of four products each. Pairs of products of magnitudes within 127 (128 for one factor) fit i16.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn products<const BITS: u8>(levels: Levels, x: __m256i, magnitude: __m256i) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    match levels {
        // Eight-bit codes include -128, which has no negative: take its magnitude, as unsigned, instead.
        Levels::Signed(levels) if BITS == 8 => {
            let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(levels), _mm256_sign_epi8(x, levels));
            _mm256_madd_epi16(pairs, ones)
        }
        Levels::Signed(levels) => {
            let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(levels, x));
            _mm256_madd_epi16(pairs, ones)
        }
        Levels::Split(magnitudes, signs) => {
            let pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(x, signs));
            _mm256_madd_epi16(pairs, ones)
        }
        Levels::Wide(high, low, signs) => {
            let x = _mm256_sign_epi8(x, signs);
            let high = _mm256_madd_epi16(_mm256_maddubs_epi16(high, x), _mm256_set1_epi16(64));
            _mm256_add_epi32(high, _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), ones))
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_f32_bits<const BITS: u8>(rows: TurboRows<'_>, x: &[f32], out: &mut [f32]) {
    let tables = Tables::new(rows.tables);
    let (groups, _) = x.as_chunks::<GROUP>();
    let per_scale = rows.group_len / GROUP;
    for ((codes, scales), out) in rows.rows().zip(out) {
        let row = Row::<BITS>::new(codes, rows.cols);
        let mut total = _mm256_setzero_ps();
        for (s, groups) in groups.chunks(per_scale).enumerate() {
            let mut sums = [_mm256_setzero_ps(); 4];
            for (i, group) in groups.iter().enumerate() {
                // SAFETY: scales and groups cover `cols` elements, so this is below `cols / 32`.
                let values = values(unsafe { row.levels(&tables, s * per_scale + i) });
                let (octets, _) = group.as_chunks::<8>();
                for ((sum, octet), value) in sums.iter_mut().zip(octets).zip(values) {
                    *sum = _mm256_fmadd_ps(load(octet), value, *sum);
                }
            }
            let [a, b, c, d] = sums;
            let part = _mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d));
            total = _mm256_fmadd_ps(part, _mm256_set1_ps(scale_at(scales, s)), total);
        }
        *out = sum(total) * rows.book.unit();
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn exact_decode(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    if dtype != DType::F16 {
        return scalar::exact_decode(dtype, bytes, out);
    }
    let (sources, rest) = bytes.as_chunks::<16>();
    let (octets, tail) = out.as_chunks_mut::<8>();
    for (octet, source) in octets.iter_mut().zip(sources) {
        store(octet, _mm256_cvtph_ps(load_half(source)));
    }
    decode_f32(dtype, rest, tail);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn exact_dot(dtype: DType, bytes: &[u8], x: &[f32], out: &mut [f32]) {
    match dtype {
        DType::BF16 => dot_elements::<16>(dtype, bytes, x, out, |octet| {
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(load_half(octet))))
        }),
        DType::F16 => dot_elements::<16>(dtype, bytes, x, out, |octet| _mm256_cvtph_ps(load_half(octet))),
        DType::F32 => {
            dot_elements::<32>(dtype, bytes, x, out, |octet| _mm256_castsi256_ps(load_bytes(octet)))
        }
        DType::F64
        | DType::F8E4M3
        | DType::F8E5M2
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U8
        | DType::Bool => scalar::exact_dot(dtype, bytes, x, out),
    }
}

/// Inner products of rows of elements that eight at a time take `BYTES` bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn dot_elements<const BYTES: usize>(
    dtype: DType,
    bytes: &[u8],
    x: &[f32],
    out: &mut [f32],
    widen: impl Fn(&[u8; BYTES]) -> __m256,
) {
    let (x_octets, x_rest) = x.as_chunks::<8>();
    for (row, out) in bytes.chunks_exact((x.len() * dtype.size()).max(1)).zip(out) {
        let (octets, rest) = row.as_chunks::<BYTES>();
        let (blocks, last) = octets.as_chunks::<4>();
        let (x_blocks, x_last) = x_octets.as_chunks::<4>();
        let mut sums = [_mm256_setzero_ps(); 4];
        for (block, x_block) in blocks.iter().zip(x_blocks) {
            for ((sum, octet), x) in sums.iter_mut().zip(block).zip(x_block) {
                *sum = _mm256_fmadd_ps(widen(octet), load(x), *sum);
            }
        }
        for ((sum, octet), x) in sums.iter_mut().zip(last).zip(x_last) {
            *sum = _mm256_fmadd_ps(widen(octet), load(x), *sum);
        }
        let mut tail = [0.0; 8];
        decode_f32(dtype, rest, &mut tail);
        let [a, b, c, d] = sums;
        *out = sum(_mm256_add_ps(_mm256_add_ps(a, b), _mm256_add_ps(c, d)))
            + tail.iter().zip(x_rest).map(|(w, x)| w * x).sum::<f32>();
    }
}
