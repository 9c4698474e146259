//! Norms, nearest codes, and activations to int8.

use super::{
    scalar::{SMALLEST, sum_lanes, sum_lanes_f64},
    vector::{abs, lanes, load, load_signed_bytes, narrow, store_bytes},
};
use crate::{Codebook, kernel::Fit, packing::GROUP};
use std::arch::x86_64::*;

/// Runs `$body` with the quantizer of a codebook. Magnitudes are searched as 1 to 8 segments of equal length.
macro_rules! by_bits {
    ($book:expr, |$quantizer:ident| $body:expr) => {
        match $book.bits() {
            1 => by_bits!(Segments::<1, 1>::new($book), $quantizer, $body),
            2 => by_bits!(Segments::<2, 1>::new($book), $quantizer, $body),
            3 => by_bits!(Segments::<4, 1>::new($book), $quantizer, $body),
            4 => by_bits!(Segments::<8, 1>::new($book), $quantizer, $body),
            5 => by_bits!(Segments::<8, 2>::new($book), $quantizer, $body),
            6 => by_bits!(Segments::<8, 4>::new($book), $quantizer, $body),
            7 => by_bits!(Segments::<8, 8>::new($book), $quantizer, $body),
            _ => by_bits!(Uniform, $quantizer, $body),
        }
    };
    ($value:expr, $quantizer:ident, $body:expr) => {{
        let $quantizer = &$value;
        $body
    }};
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn energy(x: &[f32]) -> f64 {
    let (octets, rest) = x.as_chunks::<8>();
    let (mut low, mut high) = (_mm256_setzero_pd(), _mm256_setzero_pd());
    for octet in octets {
        let x = load(octet);
        let first = _mm256_cvtps_pd(_mm256_castps256_ps128(x));
        let second = _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(x));
        low = _mm256_add_pd(low, _mm256_mul_pd(first, first));
        high = _mm256_add_pd(high, _mm256_mul_pd(second, second));
    }
    let mut sums = [0.0; 8];
    // SAFETY: the array is two vectors of 32 writable bytes; the stores need no alignment.
    unsafe {
        _mm256_storeu_pd(sums.as_mut_ptr(), low);
        _mm256_storeu_pd(sums.as_mut_ptr().add(4), high);
    }
    for (sum, &value) in sums.iter_mut().zip(rest) {
        *sum += f64::from(value) * f64::from(value);
    }
    sum_lanes_f64(sums)
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn score(book: Codebook, x: &[f32], inverse_steps: &[f32], out: &mut [Fit]) {
    let outputs = inverse_steps.iter().zip(out);
    by_bits!(book, |quantizer| {
        for (&inverse_step, fit) in outputs {
            *fit = round_with::<false>(quantizer, x, inverse_step, &mut []);
        }
    });
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn round(book: Codebook, x: &[f32], inverse_step: f32, codes: &mut [u8]) -> Fit {
    by_bits!(book, |quantizer| round_with::<true>(quantizer, x, inverse_step, codes))
}

/// `SEGMENTS * STEPS` magnitudes, laid out for a search in two stages. Counting thresholds below a target is
/// what the scalar loop does; as thresholds ascend, counting the segment first gives the same number.
struct Segments<const SEGMENTS: usize, const STEPS: usize> {
    /// Threshold below each segment but the first, in all lanes.
    bounds: [__m256; 8],
    /// First magnitude of segment `lane`.
    first: __m256,
    /// Threshold below magnitude `k` of segment `lane`, and its step over magnitude `k - 1`.
    inner: [(__m256, __m256); 8],
}

impl<const SEGMENTS: usize, const STEPS: usize> Segments<SEGMENTS, STEPS> {
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn new(book: Codebook) -> Self {
        let magnitudes = book.magnitudes();
        let magnitude = |i: usize| magnitudes.get(i).map_or(0.0, |&m| f32::from(m));
        let threshold = |i: usize| (magnitude(i - 1) + magnitude(i)) * 0.5;
        let mut bounds = [_mm256_setzero_ps(); 8];
        for (segment, bound) in bounds.iter_mut().enumerate().take(SEGMENTS).skip(1) {
            *bound = _mm256_set1_ps(threshold(segment * STEPS));
        }
        let first: [f32; 8] = std::array::from_fn(|lane| magnitude(lane * STEPS));
        let mut inner = [(_mm256_setzero_ps(), _mm256_setzero_ps()); 8];
        for (k, (bound, step)) in inner.iter_mut().enumerate().take(STEPS).skip(1) {
            let at = |lane: usize| lane * STEPS + k;
            let bounds: [f32; 8] = std::array::from_fn(|lane| threshold(at(lane)));
            let steps: [f32; 8] = std::array::from_fn(|lane| magnitude(at(lane)) - magnitude(at(lane) - 1));
            (*bound, *step) = (load(&bounds), load(&steps));
        }
        Segments { bounds, first: load(&first), inner }
    }

    /// Index and magnitude nearest to each target >= 0.
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    fn nearest_magnitude(&self, target: __m256) -> (__m256i, __m256) {
        let above = |bound: __m256| _mm256_cmp_ps::<_CMP_GT_OQ>(target, bound);
        let mut segment = _mm256_setzero_si256();
        for &bound in self.bounds.iter().take(SEGMENTS).skip(1) {
            segment = _mm256_sub_epi32(segment, _mm256_castps_si256(above(bound)));
        }
        let mut magnitude = _mm256_permutevar8x32_ps(self.first, segment);
        let mut index = _mm256_mullo_epi32(segment, _mm256_set1_epi32(STEPS as i32));
        for &(bounds, steps) in self.inner.iter().take(STEPS).skip(1) {
            let mask = above(_mm256_permutevar8x32_ps(bounds, segment));
            let step = _mm256_permutevar8x32_ps(steps, segment);
            magnitude = _mm256_add_ps(magnitude, _mm256_and_ps(mask, step));
            index = _mm256_sub_epi32(index, _mm256_castps_si256(mask));
        }
        (index, magnitude)
    }
}

/// Nearest levels of eight targets at a time.
trait Nearest {
    /// Codes as i32, and magnitudes of levels.
    ///
    /// # Safety
    /// Needs AVX2.
    unsafe fn nearest(&self, signed: __m256) -> (__m256i, __m256);
}

impl<const SEGMENTS: usize, const STEPS: usize> Nearest for Segments<SEGMENTS, STEPS> {
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn nearest(&self, signed: __m256) -> (__m256i, __m256) {
        let (index, magnitude) = self.nearest_magnitude(abs(signed));
        let negative = _mm256_cmp_ps::<_CMP_LT_OQ>(signed, _mm256_setzero_ps());
        let sign_bit = _mm256_set1_epi32((SEGMENTS * STEPS) as i32);
        (_mm256_or_si256(index, _mm256_and_si256(_mm256_castps_si256(negative), sign_bit)), magnitude)
    }
}

/// The uniform code of 8 bits.
struct Uniform;

impl Nearest for Uniform {
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn nearest(&self, signed: __m256) -> (__m256i, __m256) {
        let rounded = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(signed);
        let level = _mm256_min_ps(rounded, _mm256_set1_ps(127.0));
        let level = _mm256_max_ps(level, _mm256_set1_ps(-127.0));
        (_mm256_cvtps_epi32(level), abs(level))
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn round_with<const ROUND: bool>(
    quantizer: &impl Nearest,
    x: &[f32],
    inverse_step: f32,
    codes: &mut [u8],
) -> Fit {
    let inverse_step = _mm256_set1_ps(inverse_step);
    let (mut product, mut energy) = (_mm256_setzero_ps(), _mm256_setzero_ps());
    let (groups, _) = x.as_chunks::<GROUP>();
    let (codes, _) = codes.as_chunks_mut::<GROUP>();
    let mut codes = codes.iter_mut();
    for group in groups {
        let mut parts = [_mm256_setzero_si256(); 4];
        let (octets, _) = group.as_chunks::<8>();
        for (octet, part) in octets.iter().zip(&mut parts) {
            let target = _mm256_mul_ps(load(octet), inverse_step);
            // SAFETY: this function has the features, so its caller has proved them.
            let (code, magnitude) = unsafe { quantizer.nearest(target) };
            product = _mm256_add_ps(product, _mm256_mul_ps(abs(target), magnitude));
            energy = _mm256_add_ps(energy, _mm256_mul_ps(magnitude, magnitude));
            *part = code;
        }
        if ROUND && let Some(codes) = codes.next() {
            store_bytes(codes, narrow(parts));
        }
    }
    Fit { product: f64::from(sum_lanes(lanes(product))), energy: f64::from(sum_lanes(lanes(energy))) }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(in crate::kernel) fn quantize_activations(
    x: &[f32],
    values: &mut [i8],
    magnitudes: &mut [u8],
    scales: &mut [f32],
) {
    let (groups, rest) = x.as_chunks::<GROUP>();
    let (values, _) = values.as_chunks_mut::<GROUP>();
    let (magnitudes, _) = magnitudes.as_chunks_mut::<GROUP>();
    let mut last = [0.0; GROUP];
    for (to, &from) in last.iter_mut().zip(rest) {
        *to = from;
    }
    let padded = (!rest.is_empty()).then_some(&last);
    let outputs = values.iter_mut().zip(magnitudes).zip(scales);
    for (x, ((values, magnitudes), scale)) in groups.iter().chain(padded).zip(outputs) {
        *scale = quantize_group(x, values, magnitudes);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn quantize_group(x: &[f32; GROUP], values: &mut [i8; GROUP], magnitudes: &mut [u8; GROUP]) -> f32 {
    let (octets, _) = x.as_chunks::<8>();
    let mut largest = _mm256_setzero_ps();
    let mut finite = _mm256_castsi256_ps(_mm256_set1_epi32(-1));
    for octet in octets {
        let size = abs(load(octet));
        largest = _mm256_max_ps(largest, size);
        finite = _mm256_and_ps(finite, _mm256_cmp_ps::<_CMP_LE_OQ>(size, _mm256_set1_ps(f32::MAX)));
    }
    let finite = _mm256_movemask_ps(finite) == 0xFF;
    let half = _mm_max_ps(_mm256_castps256_ps128(largest), _mm256_extractf128_ps::<1>(largest));
    let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
    let amax = _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
    if !finite || amax < SMALLEST {
        (*values, *magnitudes) = ([0; GROUP], [0; GROUP]);
        return if finite { 0.0 } else { f32::NAN };
    }
    let inverse = _mm256_set1_ps(127.0 / amax);
    let mut parts = [_mm256_setzero_si256(); 4];
    for (octet, part) in octets.iter().zip(&mut parts) {
        *part = _mm256_cvtps_epi32(_mm256_mul_ps(load(octet), inverse));
    }
    store_bytes(magnitudes, narrow(parts));
    *values = magnitudes.map(|byte| byte as i8);
    let rounded = load_signed_bytes(values);
    store_bytes(magnitudes, _mm256_abs_epi8(rounded));
    amax / 127.0
}
