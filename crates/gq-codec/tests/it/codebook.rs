//! Scalar codebooks against theory, by numerical integration over N(0, 1).

use crate::source::{self, Source};
use gq_codec::Codebook;

/// Lloyd-Max distortion of N(0, 1) at 1 to 8 bits.
const REAL: [f64; 8] = [
    0.3633802276,
    0.1174818478,
    0.0345477608,
    0.0095010080,
    0.0025046684,
    0.0006442397,
    0.0001634782,
    0.0000411851,
];

/// What integer levels may cost over that; at 8 bits the code is the uniform grid, 8.83e-5.
const GAP: [f64; 8] = [1e-6, 1e-5, 1e-4, 1e-3, 0.008, 1e-3, 1e-3, 1.15];

fn books() -> impl Iterator<Item = Codebook> {
    (1..=8).map(|bits| Codebook::of(bits).unwrap())
}

/// Mean squared error of `nearest` and `level` at a scale, over a fine grid of N(0, 1).
fn integrate(book: Codebook, scale: f64) -> f64 {
    let steps = 2_000_000;
    let width = 18.0 / f64::from(steps);
    let step = scale * f64::from(book.unit());
    let error = |i: i32| {
        let x = -9.0 + (f64::from(i) + 0.5) * width;
        let decoded = step * f64::from(book.level(book.nearest((x / step) as f32)));
        (x - decoded).powi(2) * (-x * x / 2.0).exp()
    };
    (0..steps).map(error).sum::<f64>() * width / (2.0 * std::f64::consts::PI).sqrt()
}

#[test]
fn distortion_is_that_of_the_table() {
    for (book, (real, gap)) in books().zip(REAL.into_iter().zip(GAP)) {
        let bits = book.bits();
        assert!((book.real_distortion() / real - 1.0).abs() < 1e-5, "{bits}: {}", book.real_distortion());
        let excess = book.distortion() / real - 1.0;
        assert!((-1e-9..gap).contains(&excess), "{bits}: {excess}");
        let measured = integrate(book, book.gaussian_scale());
        assert!((measured / book.distortion() - 1.0).abs() < 1e-4, "{bits}: {measured}");
        // The scale is a minimum.
        for factor in [0.99, 1.01] {
            assert!(integrate(book, factor * book.gaussian_scale()) > measured, "{bits}");
        }
    }
}

#[test]
fn finite_widths_on_the_sphere() {
    // Rows of exact norm sqrt(d): the density is (1 - t²)^((d - 3) / 2), and the error is less than D_b.
    let table = [
        (64, [0.3583971, 0.1145461, 0.0334437, 0.0091712]),
        (128, [0.3608910, 0.1160051, 0.0339791, 0.0093249]),
        (256, [0.3621362, 0.1167413, 0.0342593, 0.0094101]),
    ];
    for (cols, wanted) in table {
        let data = source::rows(Source::Gaussian, (1 << 19) / cols, cols, 21);
        for (book, want) in books().zip(wanted) {
            let (mut error, mut rows) = (0.0, 0.0);
            for row in data.chunks(cols) {
                let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                let step = book.gaussian_scale() * f64::from(book.unit());
                for &x in row {
                    let x = f64::from(x) / norm * (cols as f64).sqrt();
                    let decoded = step * f64::from(book.level(book.nearest((x / step) as f32)));
                    error += (x - decoded).powi(2) / cols as f64;
                }
                rows += 1.0;
            }
            let measured = error / rows;
            assert!((measured / want - 1.0).abs() < 0.006, "{} bits, {cols}: {measured}", book.bits());
        }
    }
}

#[test]
fn nearest_is_nearest_and_ties_go_as_specified() {
    for book in books() {
        let codes: Vec<u8> = match book.bits() {
            8 => (0..=255).filter(|&c| c != 0x80).collect(),
            bits => (0..1u8 << bits).collect(),
        };
        for &code in &codes {
            assert_eq!(book.nearest(book.level(code) as f32), code, "{} bits", book.bits());
        }
        for i in -20_000..20_000 {
            let target = i as f32 * 0.5;
            let distance = |code: u8| (target - book.level(code) as f32).abs();
            let best = codes.iter().map(|&code| distance(code)).fold(f32::INFINITY, f32::min);
            assert_eq!(distance(book.nearest(target)), best, "{} bits {target}", book.bits());
        }
        for target in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            book.nearest(target);
        }
    }
    let four = Codebook::of(4).unwrap();
    assert_eq!(
        (four.nearest(10.0), four.nearest(-10.0), four.nearest(0.0), four.nearest(-0.0)),
        (0, 8, 0, 0)
    );
    let eight = Codebook::of(8).unwrap();
    assert_eq!((eight.nearest(2.5), eight.nearest(-3.5), eight.nearest(1e9)), (2, 0xFC, 127));
}

#[test]
fn indices_have_the_entropy_of_the_theory() {
    // A wrong table can pass a loose error bound; the histogram gives it away.
    let data = source::rows(Source::Gaussian, 1, 1 << 20, 5);
    for (bits, want) in [(2, 1.911099), (3, 2.824865), (4, 3.765328)] {
        let book = Codebook::of(bits).unwrap();
        let step = (book.gaussian_scale() * f64::from(book.unit())) as f32;
        let mut histogram = [0.0f64; 16];
        data.iter().for_each(|x| histogram[usize::from(book.nearest(x / step))] += 1.0 / data.len() as f64);
        let entropy: f64 = histogram.iter().filter(|&&p| p > 0.0).map(|p| -p * p.log2()).sum();
        assert!((entropy - want).abs() < 0.004, "{bits} bits: {entropy}");
    }
}

#[test]
fn there_are_no_other_widths() {
    assert!(Codebook::of(0).is_none() && Codebook::of(9).is_none());
}
