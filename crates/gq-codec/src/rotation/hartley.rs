//! The orthonormal Hartley matrix of a prime size, in fixed arithmetic.

/// Entry `[i, j]` is `cas(2 pi i j / p) / sqrt(p)`, where `cas = cos + sin`; row-major `[p, p]`.
///
/// The matrix is symmetric and orthogonal, so it is its own inverse. Entries are computed in f64 with
/// + - * / and sqrt only, then rounded to f32.
pub(super) fn hartley_matrix(p: usize) -> Vec<f32> {
    let root = (p as f64).sqrt();
    let entries: Vec<f32> = (0..p).map(|t| (cas(t, p) / root) as f32).collect();
    let entry = |(i, j): (usize, usize)| entries[i * j % p];
    (0..p).flat_map(|i| (0..p).map(move |j| (i, j))).map(entry).collect()
}

/// `cos(2 pi t / p) + sin(2 pi t / p)` for `t < p`.
fn cas(t: usize, p: usize) -> f64 {
    // Which eighth of the circle, and how far into it, exactly.
    let (octant, rest) = (8 * t / p, 8 * t % p);
    // Odd octants are measured from their far end, so the angle stays within [0, pi/4].
    let part = if octant % 2 == 0 { rest } else { p - rest };
    let angle = std::f64::consts::FRAC_PI_4 * (part as f64 / p as f64);
    let (sin, cos) = sin_cos(angle);
    let (sin, cos) = match octant {
        0 => (sin, cos),
        1 => (cos, sin),
        2 => (cos, -sin),
        3 => (sin, -cos),
        4 => (-sin, -cos),
        5 => (-cos, -sin),
        6 => (-cos, sin),
        _ => (-sin, cos),
    };
    cos + sin
}

/// Taylor polynomials of degree 17 and 16, for angles within [0, pi/4].
fn sin_cos(angle: f64) -> (f64, f64) {
    let square = angle * angle;
    let (mut sin, mut cos) = (1.0, 1.0);
    for k in (1..=8).rev() {
        let k = f64::from(k);
        sin = 1.0 - square / (2.0 * k * (2.0 * k + 1.0)) * sin;
        cos = 1.0 - square / (2.0 * k * (2.0 * k - 1.0)) * cos;
    }
    (angle * sin, cos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_those_of_libm() {
        for p in [3, 5, 7, 11, 13, 269, 1021] {
            let matrix = hartley_matrix(p);
            for t in 0..p {
                let angle = 2.0 * std::f64::consts::PI * t as f64 / p as f64;
                let want = (angle.cos() + angle.sin()) / (p as f64).sqrt();
                assert!((f64::from(matrix[p + t]) - want).abs() < 1e-7 / (p as f64).sqrt(), "{p} {t}");
            }
        }
    }
}
