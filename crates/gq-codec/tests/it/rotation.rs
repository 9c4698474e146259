//! Rotations: orthogonal, inverted, seeded, mixing the full width.

use crate::source::{self, Generator, Source};
use gq_codec::{Rotation, RotationError};
use gq_tensor::{Isa, RotationKind, RotationSpec};

const REAL_WIDTHS: [usize; 16] =
    [576, 640, 704, 960, 1152, 1536, 2048, 2112, 2304, 2560, 2816, 2880, 5376, 6912, 11008, 21504];

fn rotation(kind: RotationKind, seed: u64, cols: usize) -> Rotation {
    Rotation::new(RotationSpec { kind, seed }, cols).unwrap()
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt()
}

/// Largest error of the round trip, and of the norm, on a Gaussian row.
fn check_round_trip(kind: RotationKind, cols: usize, tolerance: f64) {
    let rotation = rotation(kind, 9, cols);
    let original = source::rows(Source::Gaussian, 1, cols, cols as u64);
    let (mut x, mut scratch) = (original.clone(), Vec::new());
    rotation.forward(Isa::detect(), &mut x, &mut scratch);
    assert!((norm(&x) / norm(&original) - 1.0).abs() < tolerance, "{kind:?} {cols}: norm");
    rotation.inverse(Isa::detect(), &mut x, &mut scratch);
    let difference: Vec<f32> = x.iter().zip(&original).map(|(a, b)| a - b).collect();
    let error = norm(&difference) / norm(&original);
    assert!(error < tolerance, "{kind:?} {cols}: {error}");
}

#[test]
fn every_multiple_of_32_has_a_hadamard_rotation() {
    for cols in (32..=8192).step_by(32).chain(REAL_WIDTHS).chain([29568, 32 * 2039, 65536]) {
        check_round_trip(RotationKind::Hadamard, cols, 1.5e-6);
    }
}

#[test]
fn haar_rotations_of_any_width() {
    for cols in [1, 2, 3, 17, 80, 100, 256, 320] {
        check_round_trip(RotationKind::Haar, cols, 2e-6);
    }
}

/// The matrix of a rotation, by rows of its transpose: image `j` is `R e_j`.
fn images(rotation: &Rotation) -> Vec<Vec<f32>> {
    let cols = rotation.cols();
    let mut scratch = Vec::new();
    let image = |j: usize| {
        let mut x = vec![0.0; cols];
        x[j] = 1.0;
        rotation.forward(Isa::detect(), &mut x, &mut scratch);
        x
    };
    (0..cols).map(image).collect()
}

#[test]
fn images_of_basis_vectors_are_orthonormal() {
    for (kind, cols) in [
        (RotationKind::Hadamard, 32),
        (RotationKind::Hadamard, 96),
        (RotationKind::Hadamard, 288),
        (RotationKind::Hadamard, 352),
        (RotationKind::Haar, 96),
        (RotationKind::Haar, 50),
    ] {
        let images = images(&rotation(kind, 4, cols));
        for (i, a) in images.iter().enumerate() {
            for (j, b) in images.iter().enumerate().skip(i) {
                let product: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                let want = if i == j { 1.0 } else { 0.0 };
                assert!((product - want).abs() < 1e-6, "{kind:?} {cols} [{i}, {j}]: {product}");
            }
        }
    }
}

#[test]
fn one_element_reaches_the_full_width_evenly() {
    for cols in REAL_WIDTHS {
        let rotation = rotation(RotationKind::Hadamard, 2, cols);
        let mut scratch = Vec::new();
        for j in [0, 1, cols / 2 + 5, cols - 1] {
            let mut x = vec![0.0; cols];
            x[j] = 1.0;
            rotation.forward(Isa::detect(), &mut x, &mut scratch);
            // A Hartley factor of size p has entries of at most sqrt(2 / p), and none is zero.
            let odd = cols >> cols.trailing_zeros();
            let primes =
                (3..=odd).filter(|p| odd.is_multiple_of(*p) && (2..*p).all(|d| !p.is_multiple_of(d)));
            let repeats = |p: usize| (1..).take_while(|&k| odd.is_multiple_of(p.pow(k))).count();
            let factors: usize = primes.map(repeats).sum();
            let even = 1.0 / (cols as f32).sqrt();
            let limit = even * 2f32.sqrt().powi(factors as i32) * 1.00001;
            assert!(x.iter().all(|v| v.abs() <= limit && *v != 0.0), "{cols} {j}");
        }
    }
}

#[test]
fn rotated_spikes_look_gaussian() {
    // A few large elements among small ones: kurtosis near 3 after rotation, far above before.
    let mut g = Generator::new(8);
    for cols in [576, 640, 2112, 2880] {
        let mut sum = (0.0, 0.0);
        for _ in 0..64 {
            let mut x: Vec<f32> = (0..cols).map(|_| g.gaussian() as f32 * 0.1).collect();
            for _ in 0..8 {
                x[g.word() as usize % cols] = 3.0 * g.gaussian() as f32;
            }
            rotation(RotationKind::Hadamard, 5, cols).forward(Isa::detect(), &mut x, &mut Vec::new());
            let variance = norm(&x).powi(2) / cols as f64;
            let fourth = x.iter().map(|&v| f64::from(v).powi(4)).sum::<f64>() / cols as f64;
            sum = (sum.0 + fourth / variance.powi(2), sum.1 + 1.0);
        }
        let kurtosis = sum.0 / sum.1;
        assert!((2.6..3.3).contains(&kurtosis), "{cols}: {kurtosis}");
    }
}

#[test]
fn seeds_and_widths_give_different_signs() {
    let first = |seed: u64, cols: usize| images(&rotation(RotationKind::Hadamard, seed, cols))[..32].concat();
    let signs = |x: Vec<f32>| x.iter().map(|v| v.is_sign_negative()).collect::<Vec<_>>();
    let (a, b) = (signs(first(1, 64)), signs(first(2, 64)));
    assert_ne!(a, b);
    assert_eq!(a, signs(first(1, 64)));
    // Sign diagonals of neighbouring widths share nothing: about half the first 64 signs agree.
    let diagonal = |cols: usize| {
        let images = images(&rotation(RotationKind::Hadamard, 1, cols));
        images.iter().map(|image| image[0] < 0.0).take(64).collect::<Vec<_>>()
    };
    let agree = diagonal(64).iter().zip(diagonal(128)).filter(|(a, b)| **a == *b).count();
    assert!((16..=48).contains(&agree), "{agree} of 64");
}

#[test]
fn haar_entries_have_the_moments_of_the_sphere() {
    let cols = 128;
    let all: Vec<f32> = images(&rotation(RotationKind::Haar, 6, cols)).concat();
    let mean = |k: i32| all.iter().map(|&v| f64::from(v).powi(k)).sum::<f64>() / all.len() as f64;
    let n = cols as f64;
    assert!(mean(1).abs() < 4.0 / n.powf(1.5));
    assert!((mean(2) * n - 1.0).abs() < 1e-6);
    assert!((mean(4) * n * (n + 2.0) / 3.0 - 1.0).abs() < 0.05);
}

#[test]
fn several_rows_at_once_are_rotated_one_by_one() {
    let rotation = rotation(RotationKind::Hadamard, 1, 96);
    let rows = source::rows(Source::Gaussian, 3, 96, 1);
    let (mut together, mut scratch) = (rows.clone(), Vec::new());
    rotation.forward(Isa::detect(), &mut together, &mut scratch);
    for (row, want) in rows.chunks(96).zip(together.chunks(96)) {
        let mut row = row.to_vec();
        rotation.forward(Isa::detect(), &mut row, &mut scratch);
        assert_eq!(row, want);
    }
}

#[test]
fn no_rotation_changes_nothing() {
    let rotation = Rotation::new(RotationSpec::NONE, 7).unwrap();
    let mut x = [1.0, -2.0, 3.0, 0.0, 5.0, 6.0, 7.0];
    rotation.forward(Isa::Scalar, &mut x, &mut Vec::new());
    assert_eq!(x, [1.0, -2.0, 3.0, 0.0, 5.0, 6.0, 7.0]);
}

#[test]
fn widths_without_a_rotation_are_named() {
    let error = |kind, cols| Rotation::new(RotationSpec { kind, seed: 0 }, cols).unwrap_err();
    assert_eq!(error(RotationKind::Hadamard, 48), RotationError::Width { cols: 48, multiple: 32 });
    assert_eq!(error(RotationKind::Hadamard, 0), RotationError::Width { cols: 0, multiple: 32 });
    let prime = RotationError::PrimeFactor { cols: 32 * 2053, prime: 2053, limit: 2048 };
    assert_eq!(error(RotationKind::Hadamard, 32 * 2053), prime);
    let dense = RotationError::Dense { kind: RotationKind::Haar, cols: 4097, limit: 4096 };
    assert_eq!(error(RotationKind::Haar, 4097), dense);
    assert!(dense.to_string().contains("4097") && dense.to_string().contains("4096"));
}
