//! e^x of numbers up to 0, a block at a time.
//!
//! The standard library's function is a call per element; this one is a dozen multiplications that the compiler
//! vectorizes, and the same bits on every machine.

/// 1.5 * 2^52: adding it rounds to an integer, which is then in the low bits.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln(2) in two parts; the first has 33 bits, so that its product with an exponent is exact.
const LN_2_HIGH: f64 = 0.693_147_180_369_123_8;
const LN_2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// e^-708 is about 3e-308; what lies below counts as that.
const LOWEST: f64 = -708.0;

/// 1/n! for n = 0 ..= 11: with |r| <= ln(2)/2 the rest of the series is below 7e-15.
const TERMS: [f64; 12] = [
    1.0,
    1.0,
    1.0 / 2.0,
    1.0 / 6.0,
    1.0 / 24.0,
    1.0 / 120.0,
    1.0 / 720.0,
    1.0 / 5_040.0,
    1.0 / 40_320.0,
    1.0 / 362_880.0,
    1.0 / 3_628_800.0,
    1.0 / 39_916_800.0,
];

/// e^x for x <= 0, to a relative error of 1e-14; numbers below -708 give e^-708.
#[inline(always)]
pub(crate) fn exp<const N: usize>(mut x: [f64; N]) -> [f64; N] {
    for x in &mut x {
        let clamped = if *x > LOWEST { *x } else { LOWEST };
        // x = k ln(2) + r, and e^x = 2^k e^r.
        let shifted = clamped * std::f64::consts::LOG2_E + ROUND;
        let k = shifted - ROUND;
        let r = (clamped - k * LN_2_HIGH) - k * LN_2_LOW;
        let mut series = TERMS[11];
        for term in [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0] {
            series = series * r + TERMS[term];
        }
        *x = f64::from_bits(series.to_bits().wrapping_add(shifted.to_bits() << 52));
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_library() {
        let mut worst = 0.0f64;
        for i in 0..2_000_000 {
            let x = -f64::from(i) * 3.5e-4;
            let [y] = exp([x]);
            worst = worst.max((y / x.exp() - 1.0).abs());
        }
        assert!(worst < 1e-14, "{worst}");
        assert_eq!(exp([0.0, -0.0, 1e-300 - 1e-300]), [1.0; 3]);
        assert_eq!(exp([-1e9, f64::NEG_INFINITY]), [exp([-708.0])[0]; 2]);
    }
}
