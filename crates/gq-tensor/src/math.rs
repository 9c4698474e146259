//! Elementary functions from additions, multiplications and bit patterns: the same on every machine, and simple
//! enough that a compiler turns loops over them into vector instructions.

const TWICE_SQRT_2_OVER_PI: f32 = 1.595_769;

/// `e^x` to 2 units in the last place; arguments are cut to [-87.3, 88.7], where results are normal numbers.
#[inline]
pub fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 leaves the nearest integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.3, 88.7);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    // Minimax polynomial of e^r on [-ln 2 / 2, ln 2 / 2] (Cephes, expf).
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let value = p * (r * r) + r + 1.0;
    // 2^n in two steps, because 2^128 is no f32.
    let power = |n: u32| f32::from_bits(n.wrapping_add(127) << 23);
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let half = ((n as i32) >> 1) as u32;
    value * power(half) * power(n.wrapping_sub(half))
}

/// `1 / (1 + e^-x)`.
#[inline]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `x * sigmoid(x)`.
#[inline]
pub fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x * sigmoid(alpha x)`.
#[inline]
pub fn swish(x: f32, alpha: f32) -> f32 {
    x / (1.0 + exp(-(alpha * x)))
}

/// `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, as `x * sigmoid(2 ...)`.
#[inline]
pub fn gelu_tanh(x: f32) -> f32 {
    x / (1.0 + exp(-(TWICE_SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x))))
}

/// `x * sigmoid(alpha x)` and its slope.
#[inline]
pub fn swish_and_slope(x: f32, alpha: f32) -> (f32, f32) {
    gate_and_slope(x, alpha * x, alpha)
}

/// [`gelu_tanh`] and its slope.
#[inline]
pub fn gelu_tanh_and_slope(x: f32) -> (f32, f32) {
    let inner = TWICE_SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x);
    gate_and_slope(x, inner, TWICE_SQRT_2_OVER_PI * (1.0 + 3.0 * 0.044_715 * x * x))
}

/// `x * sigmoid(inner)` and its slope, `inner_slope` being that of `inner` by x.
#[inline]
fn gate_and_slope(x: f32, inner: f32, inner_slope: f32) -> (f32, f32) {
    let sigmoid = sigmoid(inner);
    (x * sigmoid, sigmoid + x * sigmoid * (1.0 - sigmoid) * inner_slope)
}

/// `tanh(x)` to 2e-7.
#[inline]
pub fn tanh(x: f32) -> f32 {
    // The quotient loses the leading digits of small arguments; their series does not.
    let square = x * x;
    let small = x + x * square * (-0.333_333_34 + square * (0.133_333_34 - square * 0.053_968_254));
    let large = 1.0 - 2.0 / (1.0 + exp(2.0 * x));
    if square < 0.01 { small } else { large }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> impl Iterator<Item = f32> {
        (-9000..9000).map(|i| i as f32 * 0.0097)
    }

    #[test]
    fn close_to_f64() {
        for x in arguments() {
            let wide = f64::from(x);
            let relative = f64::from(exp(x)) / wide.exp() - 1.0;
            assert!(relative.abs() < 2.5e-7, "exp({x}): {relative:e}");
            assert!((f64::from(tanh(x)) - wide.tanh()).abs() < 2e-7, "tanh({x})");
            let sigmoid_error = f64::from(sigmoid(x)) - 1.0 / (1.0 + (-wide).exp());
            assert!(sigmoid_error.abs() <= 2e-7, "sigmoid({x}): {sigmoid_error:e}");
            let silu_error = f64::from(silu(x)) - wide / (1.0 + (-wide).exp());
            assert!(silu_error.abs() <= 3e-7 * wide.abs().max(1.0), "silu({x}): {silu_error:e}");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
            let gelu_error = f64::from(gelu_tanh(x)) - 0.5 * wide * (1.0 + inner.tanh());
            assert!(gelu_error.abs() <= 3e-7 * wide.abs().max(1.0), "gelu({x}): {gelu_error:e}");
        }
    }

    #[test]
    fn slopes_are_those_of_the_curves() {
        let swish = |x: f64| x / (1.0 + (-1.702 * x).exp());
        let inner = |x: f64| (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        let gelu = |x: f64| 0.5 * x * (1.0 + inner(x).tanh());
        fn check(curve: impl Fn(f64) -> f64, x: f32, (value, slope): (f32, f32)) {
            let (wide, step) = (f64::from(x), 1e-5);
            assert!((f64::from(value) - curve(wide)).abs() <= 3e-7 * wide.abs().max(1.0), "{x}: {value}");
            let difference = (curve(wide + step) - curve(wide - step)) / (2.0 * step);
            assert!((f64::from(slope) - difference).abs() < 2e-6, "{x}: {slope} {difference}");
        }
        for x in arguments().filter(|x| x.abs() < 20.0) {
            check(swish, x, swish_and_slope(x, 1.702));
            check(gelu, x, gelu_tanh_and_slope(x));
            assert_eq!(super::swish(x, 1.0), silu(x));
        }
    }

    #[test]
    fn huge_arguments_stay_finite() {
        for x in [1e5, -1e5, 3e12, -3e12] {
            assert!(exp(x).is_finite() && silu(x).is_finite() && gelu_tanh(x).is_finite());
            assert!(tanh(x).abs() <= 1.0);
        }
        assert_eq!((silu(1e5), gelu_tanh(1e5)), (1e5, 1e5));
        assert!(exp(f32::NAN).is_nan());
    }
}
