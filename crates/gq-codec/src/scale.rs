//! Scales as they are stored.

use half::f16;

/// fp16, nearest even; the largest finite value for anything larger, NaN for what is no number.
pub(crate) fn to_scale(value: f32) -> f16 {
    if value > 65504.0 { f16::MAX } else { f16::from_f32(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_end_where_fp16_does_and_no_number_stays_none() {
        assert_eq!(
            [1.5, 65504.0, 65505.0, 1e9, f32::INFINITY].map(to_scale).map(f16::to_f32),
            [1.5, 65504.0, 65504.0, 65504.0, 65504.0]
        );
        assert!(to_scale(f32::NAN).is_nan());
    }
}
