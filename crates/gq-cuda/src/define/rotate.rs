//! Activations to int8. Rotations are those of `formats/encodings.md`: `gq_codec::Rotation` defines them.

/// Smallest largest element of a group that is not all zeros.
const SMALLEST: f32 = 1.0 / (1u128 << 100) as f32;

/// Per 32 elements: `scale = largest / 127`, `value = x * (127 / largest)` to nearest even; as
/// `gq_codec::Activations::quantize`.
pub fn quantize(x: &[f32]) -> (Vec<i8>, Vec<f32>) {
    let (mut values, mut steps) = (Vec::with_capacity(x.len()), Vec::with_capacity(x.len() / 32));
    for group in x.chunks(32) {
        let finite = group.iter().all(|x| x.is_finite());
        let largest =
            group.iter().fold(0.0, |largest: f32, x| if x.abs() > largest { x.abs() } else { largest });
        let kept = finite && largest >= SMALLEST;
        let inverse = if kept { 127.0 / largest } else { 0.0 };
        values.extend(group.iter().map(|x| if kept { (x * inverse).round_ties_even() as i8 } else { 0 }));
        steps.push(match (finite, kept) {
            (false, _) => f32::NAN,
            (true, true) => largest / 127.0,
            (true, false) => 0.0,
        });
    }
    (values, steps)
}
