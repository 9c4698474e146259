//! Errors of encoded rows, two-sided, against theory.

use crate::source::{self, Generator, Source};
use gq_codec::{Codebook, CodecError, Decoder, EncodeScratch, Encoder, Rotation, study_encoding};
use gq_tensor::{CodedRows, DType, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, Storage};

fn encoding(name: &str) -> Encoding {
    Encoding::from_name(name).unwrap()
}

fn relative_mse(name: &str, kind: RotationKind, cols: usize, data: &[f32]) -> f64 {
    let rotation = Rotation::new(RotationSpec { kind, seed: 17 }, cols).unwrap();
    let study = study_encoding(Isa::detect(), encoding(name), &rotation, data).unwrap();
    assert_eq!(study.distortion.count as usize, data.len());
    study.distortion.relative_mse()
}

#[track_caller]
fn check(what: &str, measured: f64, want: f64, tolerance: f64) {
    assert!((measured / want - 1.0).abs() < tolerance, "{what}: {measured:.6e}, expected {want:.6e}");
}

/// Encodes one row and decodes it.
fn round_trip(name: &str, row: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let (encoding, cols) = (encoding(name), row.len());
    let encoder = Encoder::new(Storage::unrotated(encoding), cols).unwrap();
    let mut payload = vec![0; encoding.payload_bytes(1, cols).unwrap() as usize];
    let (codes, scales) = payload.split_at_mut(encoding.codes_bytes(1, cols).unwrap());
    encoder.encode_row(Isa::detect(), row, codes, scales, &mut EncodeScratch::default());
    let matrix = CodedRows::of_payload(encoding, MatrixShape::new(1, cols), &payload).unwrap();
    let mut out = vec![0.0; cols];
    let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
    decoder.decode_row(Isa::detect(), &matrix, 0, &mut out);
    (payload, out)
}

#[test]
fn wide_rows_have_the_error_of_their_codebook() {
    // The search for a scale gains less and less as rows widen: D_b from below.
    let cols = 1 << 15;
    let data = source::rows(Source::Gaussian, 16, cols, 31);
    for (bits, gain) in
        [(1, 0.0), (2, 0.0), (3, 0.001), (4, 0.003), (5, 0.008), (6, 0.025), (7, 0.03), (8, 0.055)]
    {
        let measured = relative_mse(&format!("tq{bits}"), RotationKind::Hadamard, cols, &data);
        let want = Codebook::of(bits).unwrap().distortion() * (1.0 - gain);
        check(&format!("tq{bits}"), measured, want, if bits < 6 { 0.008 } else { 0.03 });
    }
}

/// Least error over a dense grid of scales with least squares after each, in f64.
fn best_error(book: Codebook, row: &[f32]) -> f64 {
    let energy: f64 = row.iter().map(|&x| f64::from(x).powi(2)).sum();
    let largest = row.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    let deviation = (energy / row.len() as f64).sqrt();
    let top = book.magnitudes().last().map_or(127.0, |&m| f64::from(m));
    let (from, to) =
        (0.5 * f64::from(largest) / top, 1.3 * (book.gaussian_scale() * f64::from(book.unit())) * deviation);
    let to = to.max(1.02 * f64::from(largest) / top);
    let mut best = f64::INFINITY;
    for i in 0..=160 {
        let step = from + (to - from) * f64::from(i) / 160.0;
        let (mut product, mut square) = (0.0, 0.0);
        for &x in row {
            let level = f64::from(book.level(book.nearest((f64::from(x) / step) as f32)));
            product += f64::from(x) * level;
            square += level * level;
        }
        best = best.min(energy - product * product / square);
    }
    best
}

#[test]
fn the_search_for_a_scale_is_close_to_exhaustive() {
    for (cols, rows) in [(32, 200), (128, 60), (576, 16)] {
        let data = source::rows(Source::Gaussian, rows, cols, 77);
        for bits in 2..=8 {
            let book = Codebook::of(bits).unwrap();
            let (mut found, mut best) = (0.0, 0.0);
            for row in data.chunks(cols) {
                let (_, decoded) = round_trip(&format!("tq{bits}"), row);
                found += row.iter().zip(&decoded).map(|(&x, &y)| f64::from(x - y).powi(2)).sum::<f64>();
                best += best_error(book, row);
            }
            let excess = found / best - 1.0;
            // A dense grid fits the noise of short rows of fine codes better than 18 candidates do.
            let limit = if bits < 7 { 0.06 } else { 0.02 + 1.2 / (cols as f64).sqrt() };
            assert!((-0.03..limit).contains(&excess), "{bits} bits, {cols}: {excess}");
        }
    }
}

#[test]
fn the_stored_scale_is_least_squares_for_the_stored_codes() {
    for cols in [32, 96, 576] {
        for row in source::rows(Source::Student5, 20, cols, 5).chunks(cols) {
            for bits in 1..=8 {
                let (payload, decoded) = round_trip(&format!("tq{bits}"), row);
                let scale =
                    half::f16::from_le_bytes([payload[payload.len() - 2], payload[payload.len() - 1]]);
                let levels = decoded.iter().map(|&y| f64::from(y / scale.to_f32()));
                let (mut product, mut square) = (0.0, 0.0);
                for (&x, level) in row.iter().zip(levels) {
                    product += f64::from(x) * level;
                    square += level * level;
                }
                // Half a unit in the last place of fp16, and rounding of the sums.
                let ratio = product / square / f64::from(scale.to_f32());
                assert!((ratio - 1.0).abs() < 0.5 / 1024.0 + 1e-5, "{bits} bits, {cols}: {ratio}");
            }
        }
    }
}

#[test]
fn heavy_tails_cost_nothing_after_rotation() {
    for cols in [512, 576, 640, 2112] {
        let rows = (1 << 19) / cols;
        let gaussian = source::rows(Source::Gaussian, rows, cols, 41);
        for source in [Source::Laplace, Source::Student5] {
            let data = source::rows(source, rows, cols, 42);
            for name in ["tq2", "tq3", "tq4", "tq5", "tq6", "tq8", "polar4222"] {
                let want = relative_mse(name, RotationKind::Hadamard, cols, &gaussian);
                let measured = relative_mse(name, RotationKind::Hadamard, cols, &data);
                check(&format!("{name} {source:?} {cols}"), measured, want, 0.02);
            }
        }
    }
    // The same rows without rotation are much worse: the test can tell.
    let data = source::rows(Source::Student5, 64, 576, 43);
    let (with, without) = (RotationKind::Hadamard, RotationKind::None);
    assert!(relative_mse("tq4", without, 576, &data) > 1.4 * relative_mse("tq4", with, 576, &data));
}

#[test]
fn haar_and_hadamard_are_alike_on_gaussian_rows() {
    let data = source::rows(Source::Gaussian, 1500, 96, 51);
    for name in ["tq2", "tq4"] {
        let haar = relative_mse(name, RotationKind::Haar, 96, &data);
        check(name, relative_mse(name, RotationKind::Hadamard, 96, &data), haar, 0.015);
    }
}

#[test]
fn product_codes_pay_for_being_unbiased() {
    // Decoded: (pi/2 - 1/d) of the error left by the scalar code, and (pi/2 - 1) with orthogonal rows.
    let cols = 128;
    let data = source::rows(Source::Gaussian, 800, cols, 61);
    for bits in 2..=5u8 {
        let low = relative_mse(&format!("tq{}", bits - 1), RotationKind::Hadamard, cols, &data);
        let half_pi = std::f64::consts::FRAC_PI_2;
        let gaussian = relative_mse(&format!("tqp{bits}"), RotationKind::Hadamard, cols, &data);
        check(&format!("tqp{bits}"), gaussian, (half_pi - 1.0 / cols as f64) * low, 0.02);
        let orthogonal = relative_mse(&format!("tqpo{bits}"), RotationKind::Hadamard, cols, &data);
        check(&format!("tqpo{bits}"), orthogonal, (half_pi - 1.0) * low, 0.03);
    }
}

/// Mean and variance of `(<y, decoded> - <y, x>)` over seeds, for a unit `x` and a unit `y`.
fn product_errors(name: &str, x: &[f32], y: &[f32], seeds: u64) -> (f64, f64, f64) {
    let (encoding, cols) = (encoding(name), x.len());
    let (mut sum, mut squares, mut residual) = (0.0, 0.0, 0.0);
    for seed in 0..seeds {
        let spec = RotationSpec { kind: RotationKind::None, seed };
        let encoder = Encoder::new(Storage::new(encoding, spec), cols).unwrap();
        let mut payload = vec![0; encoding.payload_bytes(1, cols).unwrap() as usize];
        let (codes, scales) = payload.split_at_mut(encoding.codes_bytes(1, cols).unwrap());
        encoder.encode_row(Isa::detect(), x, codes, scales, &mut EncodeScratch::default());
        residual = half::f16::from_le_bytes([scales[2], scales[3]]).to_f64();
        let matrix = CodedRows::of_payload(encoding, MatrixShape::new(1, cols), &payload).unwrap();
        let mut out = [0.0];
        Decoder::new(Storage::new(encoding, spec), cols).unwrap().dot_rows_f32(
            Isa::detect(),
            &matrix,
            0..1,
            y,
            &mut out,
        );
        let exact: f64 = x.iter().zip(y).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
        let error = f64::from(out[0]) - exact;
        sum += error;
        squares += error * error;
    }
    let mean = sum / seeds as f64;
    (mean, squares / seeds as f64 - mean * mean, residual)
}

#[test]
fn product_codes_estimate_inner_products_without_bias() {
    let cols = 64;
    let unit = |seed: u64| {
        let mut x = source::rows(Source::Gaussian, 1, cols, seed);
        let norm = x.iter().map(|v| v * v).sum::<f32>().sqrt();
        x.iter_mut().for_each(|v| *v /= norm);
        x
    };
    let x = unit(71);
    let mut y = unit(72);
    y.iter_mut().zip(&x).for_each(|(y, x)| *y = 0.8 * *y + 0.6 * x);
    let energy: f64 = y.iter().map(|&v| f64::from(v).powi(2)).sum();
    for bits in [2, 3, 4] {
        for (name, variance) in
            [("tqp", std::f64::consts::FRAC_PI_2), ("tqpo", std::f64::consts::FRAC_PI_2 - 1.0)]
        {
            let seeds = if name == "tqp" { 1500 } else { 700 };
            let (bias, measured, residual) = product_errors(&format!("{name}{bits}"), &x, &y, seeds);
            // Per seed: (pi/2 |r|² |y|² - <y, r>²) / d; <y, r> is at most a tenth of |r| |y| here.
            let want = variance * residual * residual * energy / cols as f64;
            let spread = (2.0 / seeds as f64).sqrt();
            assert!((measured / want - 1.0).abs() < 4.0 * spread + 0.06, "{name}{bits}: {measured} {want}");
            assert!(bias.abs() < 4.0 * (want / seeds as f64).sqrt(), "{name}{bits}: bias {bias}");
        }
    }
    // The scalar code alone is biased: it shrinks x towards the decoded point.
    let (_, decoded) = round_trip("tq1", &x);
    let overlap: f64 = x.iter().zip(&decoded).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
    assert!(overlap < 0.7);
}

#[test]
fn polar_codes_have_the_error_of_their_angles() {
    // 2 (1 - product over levels of E[cos(angle error)]).
    let data = source::rows(Source::Gaussian, 2000, 256, 81);
    for (name, want) in [("polar4222", 0.03208), ("polar4322", 0.02490), ("polar5333", 0.00852)] {
        check(name, relative_mse(name, RotationKind::Hadamard, 256, &data), want, 0.01);
    }
}

#[test]
fn polar_codes_keep_norms_and_every_direction() {
    let mut g = Generator::new(3);
    for name in ["polar4222", "polar4322", "polar5333"] {
        for _ in 0..200 {
            let row: Vec<f32> = (0..32).map(|_| g.gaussian() as f32).collect();
            let (_, decoded) = round_trip(name, &row);
            for (a, b) in row.chunks(16).zip(decoded.chunks(16)) {
                let norm = |x: &[f32]| x.iter().map(|v| v * v).sum::<f32>().sqrt();
                assert!((norm(b) / norm(a) - 1.0).abs() < 1e-3);
                let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() / norm(a) / norm(b);
                assert!(cosine > 0.93, "{name}: {cosine}");
            }
        }
        // Along axes and diagonals, where quarters of the circle meet.
        for (x, y) in [
            (1.0, 0.0),
            (0.0, 1.0),
            (-1.0, 0.0),
            (0.0, -1.0),
            (1.0, 1.0),
            (-1.0, 1.0),
            (-1.0, -1.0),
            (1.0, -1.0),
        ] {
            let row: Vec<f32> = [x, y].repeat(16);
            let (_, decoded) = round_trip(name, &row);
            let product: f32 = row.iter().zip(&decoded).map(|(a, b)| a * b).sum();
            assert!(product / row.iter().map(|v| v * v).sum::<f32>() > 0.93, "{name} {x} {y}");
        }
    }
}

#[test]
fn one_hot_rows_of_powers_of_two_are_stored_almost_exactly() {
    // Every rotated element is +-1/sqrt(d): one magnitude, and a fitted scale makes it exact to fp16.
    for cols in [64, 256, 1024] {
        let mut data = vec![0.0; cols];
        data[cols / 3] = -2.5;
        for bits in 1..=8 {
            let error = relative_mse(&format!("tq{bits}"), RotationKind::Hadamard, cols, &data);
            assert!(error < 2.5e-7, "{bits} bits, {cols}: {error}");
        }
    }
}

#[test]
fn zeros_specks_giants_and_non_finite_rows() {
    for encoding in
        Encoding::all().into_iter().filter(|e| !e.is_exact() && !e.is_grid() && e.supports_cols(128))
    {
        let name = encoding.name();
        assert_eq!(round_trip(&name, &[0.0; 128]).1, [0.0; 128], "{name}");
        assert_eq!(round_trip(&name, &[1e-12; 128]).1, [0.0; 128], "{name}");
        assert_eq!(round_trip(&name, &[1e-42; 128]).1, [0.0; 128], "{name}");
        for giant in [1e30, f32::MAX] {
            let finite = round_trip(&name, &[giant; 128]).1.iter().all(|v| v.is_finite() && *v != 0.0);
            assert!(finite, "{name} {giant}");
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut row = [0.5; 128];
            row[127] = bad;
            let decoded = round_trip(&name, &row).1;
            assert!(decoded[127].is_nan(), "{name}");
        }
    }
}

#[test]
fn what_cannot_be_encoded_is_named() {
    let error = |name: &str, cols| Encoder::new(Storage::unrotated(encoding(name)), cols).unwrap_err();
    let exact = Encoding::Exact(DType::BF16);
    assert_eq!(error("bf16", 64), CodecError::Exact { encoding: exact });
    assert_eq!(error("tq4", 48), CodecError::Width { encoding: encoding("tq4"), cols: 48 });
    assert_eq!(error("tq4-g128", 576), CodecError::Width { encoding: encoding("tq4-g128"), cols: 576 });
    let wide = CodecError::Sketch { encoding: encoding("tqp3"), cols: 4128, limit: 4096 };
    assert_eq!(error("tqp3", 4128), wide);
    let nine = Encoding::Turbo { bits: 9, group: gq_tensor::ScaleGroup::Row };
    let unknown = Encoder::new(Storage::unrotated(nine), 64).unwrap_err();
    assert_eq!(unknown, CodecError::Unregistered { encoding: nine });
    let integer = Encoding::Exact(DType::I8);
    let unknown = Decoder::new(Storage::unrotated(integer), 64).unwrap_err();
    assert_eq!(unknown, CodecError::Unregistered { encoding: integer });
}
