//! Loads and stores of whole vectors from arrays, whose types prove their length.

use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: the array is 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn store(to: &mut [f32; 8], value: __m256) {
    // SAFETY: the array is 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn load_bytes(x: &[u8; 32]) -> __m256i {
    // SAFETY: the array is 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn load_signed_bytes(x: &[i8; 32]) -> __m256i {
    // SAFETY: the array is 32 readable bytes; the load needs no alignment.
    unsafe { _mm256_loadu_si256(x.as_ptr().cast()) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn store_bytes(to: &mut [u8; 32], value: __m256i) {
    // SAFETY: the array is 32 writable bytes; the store needs no alignment.
    unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), value) }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn load_half(x: &[u8; 16]) -> __m128i {
    // SAFETY: the array is 16 readable bytes; the load needs no alignment.
    unsafe { _mm_loadu_si128(x.as_ptr().cast()) }
}

/// The lanes as an array.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn lanes(value: __m256) -> [f32; 8] {
    let mut lanes = [0.0; 8];
    store(&mut lanes, value);
    lanes
}

/// Sum of the lanes, in an order that suits the level.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn sum(value: __m256) -> f32 {
    let halves = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps::<1>(value));
    let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
    _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
}

/// Clears the sign of each lane.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn abs(value: __m256) -> __m256 {
    _mm256_andnot_ps(_mm256_set1_ps(-0.0), value)
}

/// Narrows four vectors of i32 within i8 to 32 bytes in order.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn narrow(parts: [__m256i; 4]) -> __m256i {
    let low = _mm256_packs_epi32(parts[0], parts[1]);
    let high = _mm256_packs_epi32(parts[2], parts[3]);
    // Packing works within 128-bit halves; dwords come out as 0 2 4 6 of each half.
    _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7))
}
