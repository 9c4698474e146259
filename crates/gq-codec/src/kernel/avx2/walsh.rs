//! Walsh-Hadamard transform: the butterflies of `scalar::linear`, eight at a time.

use super::{
    scalar::wide_butterflies,
    vector::{load, store},
};
use std::arch::x86_64::*;

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn walsh_hadamard(x: &mut [f32], block: usize) {
    let (octets, _) = x.as_chunks_mut::<8>();
    for octet in octets {
        let value = butterflies_of_eight(load(octet));
        store(octet, value);
    }
    wide_butterflies(x, block);
}

/// Stages 1, 2 and 4 within a vector; `a - b` is computed as `a + (-b)`, which is the same number.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn butterflies_of_eight(x: __m256) -> __m256 {
    let (p, n) = (0.0, -0.0);
    let (even, odd) = (_mm256_moveldup_ps(x), _mm256_movehdup_ps(x));
    let x = _mm256_add_ps(even, _mm256_xor_ps(odd, _mm256_setr_ps(p, n, p, n, p, n, p, n)));
    let (low, high) = (_mm256_permute_ps::<0b01_00_01_00>(x), _mm256_permute_ps::<0b11_10_11_10>(x));
    let x = _mm256_add_ps(low, _mm256_xor_ps(high, _mm256_setr_ps(p, p, n, n, p, p, n, n)));
    let (low, high) = (_mm256_permute2f128_ps::<0x00>(x, x), _mm256_permute2f128_ps::<0x11>(x, x));
    _mm256_add_ps(low, _mm256_xor_ps(high, _mm256_setr_ps(p, p, p, p, n, n, n, n)))
}
