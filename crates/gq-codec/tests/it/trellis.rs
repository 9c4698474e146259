//! Trellis codes: errors two-sided, the same bits at every level, strips and stacks, products, feedback.

use crate::source::{self, Generator, Source};
use gq_codec::{
    Activations, Decoder, EncodeScratch, Encoder, Factor, Parallelism, Strip, Trellis, TrellisScratch,
    code_of,
};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, States, Storage};

fn all() -> impl Iterator<Item = (Encoding, Trellis)> {
    let trellises = States::ALL.into_iter().flat_map(|s| (2..=6).map(move |bits| (bits, s)));
    trellises.map(|(bits, states)| {
        let encoding = Encoding::Trellis { bits, states };
        (encoding, Trellis::of(encoding).unwrap())
    })
}

/// A payload of `rows` Gaussian rows, coded at `level`.
fn payload(level: Isa, encoding: Encoding, data: &[f32], cols: usize) -> Vec<u8> {
    let rows = data.len() / cols;
    let mut payload = vec![0xAA; encoding.payload_bytes(rows, cols).unwrap() as usize];
    let (codes, scales) = payload.split_at_mut(encoding.codes_bytes(rows, cols).unwrap());
    let encoder = Encoder::new(Storage::unrotated(encoding), cols).unwrap();
    encoder.encode_rows(level, data, codes, scales, &mut EncodeScratch::default());
    payload
}

fn view(encoding: Encoding, rows: usize, cols: usize, payload: &[u8]) -> CodedRows<'_> {
    CodedRows::of_payload(encoding, MatrixShape::new(rows, cols), payload).unwrap()
}

fn decode(level: Isa, matrix: &CodedRows<'_>) -> Vec<f32> {
    let MatrixShape { rows, cols, .. } = matrix.shape();
    let mut out = vec![f32::NAN; rows * cols];
    let decoder = Decoder::new(Storage::unrotated(matrix.encoding()), cols).unwrap();
    decoder.decode_rows(level, matrix, 0..rows, &mut out);
    out
}

fn relative_error(x: &[f32], y: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    x.iter().zip(y).map(|(x, y)| square(x - y)).sum::<f64>() / x.iter().map(|&x| square(x)).sum::<f64>()
}

#[test]
fn rows_have_the_error_of_their_trellis() {
    let level = Isa::detect();
    for (encoding, trellis) in all() {
        let (rows, cols) = (256, 384);
        let data = source::rows(Source::Gaussian, rows, cols, 21);
        let bytes = payload(level, encoding, &data, cols);
        let error = relative_error(&data, &decode(level, &view(encoding, rows, cols, &bytes)));
        let ratio = error / trellis.distortion();
        assert!((0.97..1.02).contains(&ratio), "{encoding}: {error}, not {}", trellis.distortion());
        // Better than the scalar code of as many bits, worse than any code can be.
        let Encoding::Trellis { bits, .. } = encoding else { unreachable!() };
        let scalar = gq_codec::Codebook::of(bits).unwrap().distortion();
        assert!(trellis.distortion() < 0.65 * scalar && error > 0.25f64.powi(bits.into()), "{encoding}");
    }
}

#[test]
fn columns_are_the_same_at_every_level_whatever_the_targets() {
    for (encoding, trellis) in all() {
        for rows in [1, 7, 8, 13, 40, 64, 256] {
            let mut g = Generator::new(rows as u64);
            let mut targets: Vec<f32> = (0..rows).map(|_| 35.0 * g.gaussian() as f32).collect();
            let mut weights: Vec<f32> = (0..rows).map(|_| (g.word() % 5) as f32 / 4.0).collect();
            for kind in 0..4 {
                match kind {
                    1 => weights.fill(0.0),
                    2 => weights.fill(1.0),
                    3 => {
                        let odd = [f32::NAN, f32::INFINITY, -1e30, 1e-40, 127.0];
                        targets.iter_mut().zip(odd).for_each(|(target, odd)| *target = odd);
                    }
                    _ => {}
                }
                let mut first: Option<(Vec<u8>, Vec<f32>)> = None;
                for level in Isa::available() {
                    let (mut codes, mut levels) = (vec![0xAA; trellis.column_bytes(rows)], vec![0.0; rows]);
                    let mut scratch = TrellisScratch::default();
                    trellis.encode_column(level, &targets, &weights, &mut codes, &mut levels, &mut scratch);
                    let now = (codes, levels);
                    assert!(first.get_or_insert(now.clone()) == &now, "{encoding} {rows} {kind} {level:?}");
                }
            }
        }
    }
}

#[test]
fn levels_that_the_search_reports_are_what_the_codes_say() {
    let cols = 32;
    for (encoding, trellis) in all() {
        for rows in [1, 8, 30, 100, 256] {
            let mut g = Generator::new(rows as u64);
            let mut payload = vec![0; encoding.payload_bytes(rows, cols).unwrap() as usize];
            let (codes, scales) = payload.split_at_mut(encoding.codes_bytes(rows, cols).unwrap());
            let mut expected = vec![0.0; rows * cols];
            for (col, codes) in codes.chunks_mut(trellis.column_bytes(rows)).enumerate() {
                let targets: Vec<f32> = (0..rows).map(|_| 35.0 * g.gaussian() as f32).collect();
                let mut levels = vec![0.0; rows];
                let scratch = &mut TrellisScratch::default();
                trellis.encode_column(Isa::detect(), &targets, &vec![1.0; rows], codes, &mut levels, scratch);
                levels.iter().enumerate().for_each(|(row, level)| expected[row * cols + col] = *level);
            }
            scales.as_chunks_mut::<2>().0.fill(half::f16::from_f32(32.0).to_le_bytes());
            for level in Isa::available() {
                let decoded = decode(level, &view(encoding, rows, cols, &payload));
                assert_eq!(decoded, expected, "{encoding} {rows} {level:?}");
            }
        }
    }
}

/// Any bytes as a matrix: codes need no encoder to be valid.
fn noise(encoding: Encoding, height: usize, count: usize, cols: usize) -> Vec<u8> {
    let mut g = Generator::new((height * cols) as u64);
    let codes = count * encoding.codes_bytes(height, cols).unwrap();
    let mut bytes: Vec<u8> = (0..codes).map(|_| g.word() as u8).collect();
    let scales = (0..height * count).map(|_| half::f16::from_f32(0.5 + g.gaussian().abs() as f32));
    bytes.extend(scales.flat_map(f16_bytes));
    bytes
}

fn f16_bytes(value: half::f16) -> [u8; 2] {
    value.to_le_bytes()
}

#[test]
fn stacked_matrices_read_as_each_by_itself_and_ranges_as_parts_of_the_whole() {
    for (encoding, _) in all() {
        for (height, count, cols) in [(13, 3, 32), (64, 2, 96), (300, 2, 32), (520, 1, 64), (1, 5, 288)] {
            let payload = noise(encoding, height, count, cols);
            let shape = MatrixShape::stack(count, height, cols).unwrap();
            let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
            let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
            let whole = decode(Isa::Scalar, &matrix);
            for (index, expected) in whole.chunks(height * cols).enumerate() {
                let codes = encoding.codes_bytes(height, cols).unwrap();
                let one = [
                    &matrix.codes()[index * codes..(index + 1) * codes],
                    &matrix.scales()[2 * index * height..2 * (index + 1) * height],
                ]
                .concat();
                assert_eq!(decode(Isa::Scalar, &view(encoding, height, cols, &one)), expected);
            }
            for level in Isa::available() {
                let rows = shape.rows;
                for range in
                    [0..rows, 0..1, rows - 1..rows, 1..rows, rows / 2..rows, rows / 3..rows / 2, 2..2]
                {
                    let mut out = vec![f32::NAN; range.len() * cols];
                    decoder.decode_rows(level, &matrix, range.clone(), &mut out);
                    assert_eq!(out, whole[range.start * cols..range.end * cols], "{encoding} {range:?}");
                }
            }
        }
    }
}

#[test]
fn products_are_those_of_decoded_rows() {
    for (encoding, _) in all() {
        for (height, count, cols) in [(13, 3, 32), (300, 2, 576), (64, 1, 96)] {
            let payload = noise(encoding, height, count, cols);
            let shape = MatrixShape::stack(count, height, cols).unwrap();
            let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
            let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
            let whole = decode(Isa::Scalar, &matrix);
            // The largest activations everywhere, and ordinary ones: nothing may saturate.
            for x in [vec![-2.0; cols], source::rows(Source::Gaussian, 1, cols, 8)] {
                let int8 = Activations::quantize(Isa::Scalar, &x);
                let mut rounded = vec![0.0; cols];
                int8.dequantize(&mut rounded);
                for level in Isa::available() {
                    for range in [0..shape.rows, 5..shape.rows - 3, 11..12] {
                        let (mut a, mut b) = (vec![f32::NAN; range.len()], vec![f32::NAN; range.len()]);
                        decoder.dot_rows(level, &matrix, range.clone(), &int8, &mut a);
                        decoder.dot_rows_f32(level, &matrix, range.clone(), &x, &mut b);
                        for ((row, a), b) in range.zip(a).zip(b) {
                            for (got, x) in [(a, &rounded), (b, &x)] {
                                let row = &whole[row * cols..(row + 1) * cols];
                                let terms = || row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
                                let size: f64 = terms().map(f64::abs).sum();
                                let error = (f64::from(got) - terms().sum::<f64>()).abs();
                                assert!(error <= 2e-6 * size, "{encoding} {level:?}: {got}");
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn matrices_are_coded_to_the_same_bytes_at_every_level_and_thread_count_and_in_parts() {
    for (encoding, _) in all().filter(|(e, _)| ["tt2", "tt3", "tt6", "tt3-s12"].contains(&&*e.name())) {
        let (rows, cols) = (300, 64);
        let mut data = source::rows(Source::Student5, rows, cols, 33);
        data[5 * cols..6 * cols].fill(0.0);
        data[7 * cols + 3] = f32::NAN;
        data[9 * cols..10 * cols].fill(1e-12);
        let expected = payload(Isa::Scalar, encoding, &data, cols);
        for level in Isa::available() {
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert_eq!(pool.install(|| payload(level, encoding, &data, cols)), expected, "{encoding}");
            }
        }
        let (a, b) = data.split_at(256 * cols);
        let (a, b) = (payload(Isa::Scalar, encoding, a, cols), payload(Isa::Scalar, encoding, b, cols));
        let (a, b) = (a.split_at(a.len() - 512), b.split_at(b.len() - 2 * 44));
        assert_eq!([a.0, b.0, a.1, b.1].concat(), expected, "{encoding}");
        let decoded = decode(Isa::detect(), &view(encoding, rows, cols, &expected));
        assert!(decoded[5 * cols..6 * cols].iter().chain(&decoded[9 * cols..10 * cols]).all(|&x| x == 0.0));
        assert!(decoded[7 * cols..8 * cols].iter().all(|x| x.is_nan()));
        assert!(decoded.iter().enumerate().all(|(i, x)| i / cols == 7 || x.is_finite()));
    }
}

#[test]
fn stored_scales_are_least_squares_for_the_stored_codes() {
    let (encoding, cols, rows) = (Encoding::from_name("tt3").unwrap(), 96, 64);
    let data = source::rows(Source::Student5, rows, cols, 5);
    let bytes = payload(Isa::detect(), encoding, &data, cols);
    let decoded = decode(Isa::detect(), &view(encoding, rows, cols, &bytes));
    for (x, y) in data.chunks(cols).zip(decoded.chunks(cols)) {
        let sum =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        assert!((sum(x, y) / sum(y, y) - 1.0).abs() < 0.5 / 1024.0 + 1e-5);
    }
}

#[test]
fn row_weights_move_errors_to_the_rows_that_weigh_less() {
    let (encoding, cols, rows) = (Encoding::from_name("tt3").unwrap(), 96, 64);
    let columns = code_of(Storage::unrotated(encoding)).unwrap().columns().unwrap();
    let data = source::rows(Source::Gaussian, rows, cols, 6);
    let mut identity = vec![0.0; cols * cols];
    identity.iter_mut().step_by(cols + 1).for_each(|x| *x = 1.0);
    let factor = Factor::new(Isa::detect(), &identity, cols, 0.0).unwrap();
    let weights: Vec<f32> = (0..rows).map(|row| if row % 2 == 0 { 1.0 } else { 0.2 }).collect();
    let errors = |row_weights: Option<&[f32]>| {
        let mut bytes = vec![0; encoding.payload_bytes(rows, cols).unwrap() as usize];
        let (codes, scales) = bytes.split_at_mut(encoding.codes_bytes(rows, cols).unwrap());
        let level = Isa::detect();
        let outcome = columns.encode(
            level,
            Parallelism::Threads,
            &factor,
            Strip { rotated: &data, row_weights },
            codes,
            scales,
        );
        let decoded = decode(level, &view(encoding, rows, cols, &bytes));
        let of = |parity: usize| {
            (parity..rows)
                .step_by(2)
                .map(|row| relative_error(&data[row * cols..][..cols], &decoded[row * cols..][..cols]))
                .sum::<f64>()
                / (rows / 2) as f64
        };
        let told = outcome.errors.iter().sum::<f64>() / outcome.energies.iter().sum::<f64>();
        assert!((told / relative_error(&data, &decoded) - 1.0).abs() < 0.01);
        (of(0), of(1))
    };
    let (plain, weighted) = (errors(None), errors(Some(&weights)));
    assert!(weighted.0 < 0.8 * plain.0 && weighted.1 > 1.1 * plain.1, "{plain:?} {weighted:?}");
    // What is minimized is the weighted sum.
    assert!(weighted.0 + 0.2 * weighted.1 < 0.95 * (plain.0 + 0.2 * plain.1));
}
