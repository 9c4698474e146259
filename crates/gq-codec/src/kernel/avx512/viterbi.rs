//! The search of trellis codes: the bits of the scalar definition.

use crate::kernel::MOST_GROUPS;
use std::arch::x86_64::*;

#[target_feature(enable = "avx512f,avx512bw")]
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

#[target_feature(enable = "avx512f,avx512bw")]
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
    assert!(groups.is_multiple_of(16) && groups <= best.len() && cost.len() == values.len());
    assert!(targets.len() == weights.len() && branch.len() == targets.len() * groups);
    let mask = _mm512_set1_epi32(branches as i32 - 1);
    let (values, cost, best) = (values.as_ptr(), cost.as_mut_ptr(), best.as_mut_ptr());
    for ((&target, &weight), branch) in targets.iter().zip(weights).zip(branch.chunks_exact_mut(groups)) {
        let branch = branch.as_mut_ptr();
        for group in (0..groups).step_by(16) {
            // SAFETY: top * groups + group + 16 <= branches * groups, the states that `cost` has, and
            // group + 16 <= groups, the entries that `branch` and `best` have.
            unsafe {
                let tagged = |top: usize| {
                    let cost = _mm512_loadu_si512(cost.add(top * groups + group).cast());
                    // cost & !mask | top
                    _mm512_ternarylogic_epi32::<0xAE>(mask, cost, _mm512_set1_epi32(top as i32))
                };
                let (mut even, mut odd) = (tagged(0), tagged(1));
                let mut top = 2;
                while top < branches {
                    even = _mm512_min_epu32(even, tagged(top));
                    odd = _mm512_min_epu32(odd, tagged(top + 1));
                    top += 2;
                }
                let least = _mm512_min_epu32(even, odd);
                _mm512_storeu_si512(best.add(group).cast(), _mm512_andnot_si512(mask, least));
                let tags = _mm512_cvtepi32_epi8(_mm512_and_si512(least, mask));
                _mm_storeu_si128(branch.add(group).cast(), tags);
            }
        }
        let (target, weight) = (_mm512_set1_ps(target), _mm512_set1_ps(weight));
        // SAFETY: state + 16 <= branches * groups, the states that `values` and `cost` have; `best` has `groups`.
        unsafe {
            let metric = |state: usize| {
                let error = _mm512_sub_ps(target, _mm512_loadu_ps(values.add(state)));
                _mm512_mul_ps(weight, _mm512_mul_ps(error, error))
            };
            let put = |state: usize, base: __m512| {
                _mm512_storeu_ps(cost.add(state), _mm512_add_ps(base, metric(state)));
            };
            match BITS {
                2 => {
                    let spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
                    for group in (0..groups).step_by(4) {
                        let four = _mm512_castsi128_si512(_mm_loadu_si128(best.add(group).cast()));
                        put(group * branches, _mm512_castsi512_ps(_mm512_permutexvar_epi32(spread, four)));
                    }
                }
                3 => {
                    let spread = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
                    for group in (0..groups).step_by(2) {
                        let pair = _mm512_castsi128_si512(_mm_loadl_epi64(best.add(group).cast()));
                        put(group * branches, _mm512_castsi512_ps(_mm512_permutexvar_epi32(spread, pair)));
                    }
                }
                _ => {
                    for group in 0..groups {
                        let base = _mm512_set1_ps(*best.add(group).cast());
                        for state in (group * branches..(group + 1) * branches).step_by(16) {
                            put(state, base);
                        }
                    }
                }
            }
        }
    }
}
