//! Every instruction set gives the bits of the scalar definition; products agree to rounding.

use crate::source::{self, Generator, Source};
use gq_codec::{ActivationBlocks, Activations, Decoder, EncodeScratch, Encoder, LevelTile, Rotation};
use gq_tensor::{CodedRows, DType, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, Storage};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::ops::Range;
use std::sync::LazyLock;

/// Widths around the edges of tiles, and widths of real models.
const WIDTHS: [usize; 14] = [32, 64, 96, 128, 160, 224, 256, 288, 384, 576, 640, 704, 1152, 2112];

const SPEC: RotationSpec = RotationSpec { kind: RotationKind::Hadamard, seed: 11 };

fn other_levels() -> Vec<Isa> {
    let levels = Isa::available().split_off(1);
    if levels.is_empty() {
        println!("skipped: this machine has the scalar level only");
    }
    levels
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| v.to_bits()).collect()
}

/// Rows that stress rounding: Gaussian, sparse, tiny, huge, tied, zero, non-finite.
fn awkward_rows(cols: usize) -> Vec<Vec<f32>> {
    let gaussian = source::rows(Source::Gaussian, 5, cols, cols as u64);
    let mut rows: Vec<Vec<f32>> = gaussian.chunks(cols).map(<[f32]>::to_vec).collect();
    rows[1].iter_mut().skip(1).for_each(|v| *v = 0.0);
    rows[2].iter_mut().for_each(|v| *v *= 3e-7);
    rows[3].iter_mut().for_each(|v| *v *= 1e30);
    rows[4].iter_mut().enumerate().for_each(|(i, v)| *v = (i % 9) as f32 * 0.5 - 2.0);
    rows.push(vec![0.0; cols]);
    rows.push(vec![-0.0; cols]);
    rows.push(vec![f32::MAX; cols]);
    rows.push(vec![1e-40; cols]);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut row = rows[0].clone();
        row[cols - 3] = bad;
        rows.push(row);
    }
    rows
}

fn encode(level: Isa, encoding: Encoding, rows: &[Vec<f32>]) -> Vec<u8> {
    let cols = rows[0].len();
    let encoder = Encoder::new(Storage::new(encoding, SPEC), cols).unwrap();
    let mut payload = vec![0xAA; encoding.payload_bytes(rows.len(), cols).unwrap() as usize];
    let (codes, scales) = payload.split_at_mut(encoding.codes_bytes(rows.len(), cols).unwrap());
    encoder.encode_rows(level, &rows.concat(), codes, scales, &mut EncodeScratch::default());
    payload
}

fn decode(level: Isa, matrix: &CodedRows<'_>) -> Vec<u32> {
    let MatrixShape { rows, cols, .. } = matrix.shape();
    let decoder = Decoder::new(Storage::new(matrix.encoding(), SPEC), cols).unwrap();
    let mut out = vec![0.0; cols];
    let mut all = Vec::new();
    for row in 0..rows {
        decoder.decode_row(level, matrix, row, &mut out);
        all.extend(bits(&out));
    }
    all
}

#[test]
fn rotations_are_bit_identical() {
    for level in other_levels() {
        for kind in [RotationKind::Hadamard, RotationKind::Haar] {
            for cols in WIDTHS.into_iter().filter(|&c| kind == RotationKind::Hadamard || c <= 288) {
                let rotation = Rotation::new(RotationSpec { kind, seed: 3 }, cols).unwrap();
                for row in awkward_rows(cols) {
                    let (mut a, mut b, mut scratch) = (row.clone(), row, Vec::new());
                    rotation.forward(Isa::Scalar, &mut a, &mut scratch);
                    rotation.forward(level, &mut b, &mut scratch);
                    assert_eq!(canonical(&a), canonical(&b), "{kind:?} {cols} forward");
                    rotation.inverse(Isa::Scalar, &mut a, &mut scratch);
                    rotation.inverse(level, &mut b, &mut scratch);
                    assert_eq!(canonical(&a), canonical(&b), "{kind:?} {cols} inverse");
                }
            }
        }
    }
}

/// Bits, with every NaN alike: which of two NaNs an addition keeps is not specified.
fn canonical(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| if v.is_nan() { 0x7FC0_0000 } else { v.to_bits() }).collect()
}

#[test]
fn codes_and_decoded_values_are_bit_identical() {
    for level in other_levels() {
        for cols in WIDTHS {
            let rows = awkward_rows(cols);
            for encoding in Encoding::all() {
                let slow = matches!(encoding, Encoding::Prod { .. } | Encoding::Trellis { .. })
                    || encoding.is_grid();
                if encoding.is_exact() || !encoding.supports_cols(cols) || slow && cols > 160 {
                    continue;
                }
                let payload = encode(Isa::Scalar, encoding, &rows);
                assert_eq!(payload, encode(level, encoding, &rows), "{encoding} {cols}");
                let shape = MatrixShape::new(rows.len(), cols);
                let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
                let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
                let (a, b) = (floats(decode(Isa::Scalar, &matrix)), floats(decode(level, &matrix)));
                assert_eq!(canonical(&a), canonical(&b), "{encoding} {cols}");
            }
        }
    }
}

#[test]
fn any_stored_byte_decodes_alike() {
    let mut g = Generator::new(5);
    for level in other_levels() {
        for cols in [32, 96, 256] {
            for encoding in Encoding::all().into_iter().filter(|e| e.supports_cols(cols)) {
                let shape = MatrixShape::new(3, cols);
                let mut payload = vec![0; encoding.payload_bytes(3, cols).unwrap() as usize];
                payload.iter_mut().for_each(|b| *b = g.word() as u8);
                let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
                let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<_>>();
                let (a, b) = (floats(decode(Isa::Scalar, &matrix)), floats(decode(level, &matrix)));
                assert_eq!(canonical(&a), canonical(&b), "{encoding} {cols}");
            }
        }
    }
}

#[test]
fn quantized_activations_are_bit_identical() {
    for level in other_levels() {
        for cols in (1..130).chain(WIDTHS) {
            for mut row in awkward_rows(cols.max(3)) {
                row.truncate(cols);
                let (a, b) = (Activations::quantize(Isa::Scalar, &row), Activations::quantize(level, &row));
                let (mut x, mut y) = (vec![0.0; cols], vec![0.0; cols]);
                a.dequantize(&mut x);
                b.dequantize(&mut y);
                assert_eq!(canonical(&x), canonical(&y), "{cols}");
                assert_eq!(a.len(), b.len());
            }
        }
    }
}

/// Products at `level` against f64 products of decoded rows with what the activations stand for.
fn check_products(level: Isa, encoding: Encoding, cols: usize, rows: usize) {
    let mut g = Generator::new(cols as u64);
    let data: Vec<Vec<f32>> =
        source::rows(Source::Gaussian, rows, cols, 9).chunks(cols).map(<[f32]>::to_vec).collect();
    let payload = match encoding {
        Encoding::Exact(dtype) => exact_payload(dtype, &data),
        _ => encode(level, encoding, &data),
    };
    let matrix = CodedRows::of_payload(encoding, MatrixShape::new(rows, cols), &payload).unwrap();
    let decoder = Decoder::new(Storage::new(encoding, SPEC), cols).unwrap();
    let x: Vec<f32> = (0..cols).map(|_| g.gaussian() as f32).collect();
    let activations = Activations::quantize(level, &x);
    let mut rounded = vec![0.0; cols];
    activations.dequantize(&mut rounded);
    let mut row = vec![0.0; cols];
    for range in [0..rows, 1..rows, 0..rows - 1, 2..2] {
        let (mut a, mut b) = (vec![f32::NAN; range.len()], vec![f32::NAN; range.len()]);
        decoder.dot_rows(level, &matrix, range.clone(), &activations, &mut a);
        decoder.dot_rows_f32(level, &matrix, range.clone(), &x, &mut b);
        for ((r, a), b) in range.zip(a).zip(b) {
            decoder.decode_row(level, &matrix, r, &mut row);
            for (got, x) in [(a, &rounded), (b, &x)] {
                let terms: Vec<f64> = row.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).collect();
                let (want, size) = (terms.iter().sum::<f64>(), terms.iter().map(|t| t.abs()).sum::<f64>());
                let error = (f64::from(got) - want).abs();
                assert!(error <= 1e-6 * size, "{encoding} {cols} row {r} {}: {got} {want}", level.name());
            }
        }
    }
}

fn exact_payload(dtype: DType, rows: &[Vec<f32>]) -> Vec<u8> {
    let element = |v: &f32| match dtype {
        DType::F64 => f64::from(*v).to_le_bytes().to_vec(),
        DType::F32 => v.to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f32(*v).to_le_bytes().to_vec(),
        DType::BF16 => half::bf16::from_f32(*v).to_le_bytes().to_vec(),
        _ => vec![(v.to_bits() >> 16) as u8 & 0xBF], // any finite pattern of 8 bits
    };
    rows.iter().flatten().flat_map(element).collect()
}

#[test]
fn products_are_those_of_decoded_rows() {
    for level in Isa::available() {
        for cols in [32, 64, 96, 128, 288, 576] {
            for encoding in Encoding::all().into_iter().filter(|e| e.supports_cols(cols) && !e.is_grid()) {
                if !matches!(encoding, Encoding::Prod { .. } | Encoding::Trellis { .. }) || cols <= 96 {
                    check_products(level, encoding, cols, 7);
                }
            }
        }
        for cols in [1, 7, 8, 9, 31, 33, 100] {
            for encoding in Encoding::all().into_iter().filter(|e| e.is_exact()) {
                check_products(level, encoding, cols, 5);
            }
        }
    }
}

#[test]
fn products_at_the_limits_of_the_integers() {
    // Largest levels and largest activations everywhere: nothing may saturate.
    for level in Isa::available() {
        for bits in 1..=8u8 {
            let encoding = Encoding::from_name(&format!("tq{bits}")).unwrap();
            for byte in [0x00, 0xFF, 0x7F, 0x80, 0x88, 0x77] {
                let mut payload = vec![byte; encoding.codes_row_bytes(64)];
                payload.extend(half::f16::ONE.to_le_bytes());
                let matrix = CodedRows::of_payload(encoding, MatrixShape::new(1, 64), &payload).unwrap();
                let decoder = Decoder::new(Storage::new(encoding, SPEC), 64).unwrap();
                let mut row = [0.0; 64];
                decoder.decode_row(level, &matrix, 0, &mut row);
                for sign in [1.0, -1.0f32] {
                    let x = Activations::quantize(level, &[sign * 2.0; 64]);
                    let mut out = [0.0];
                    decoder.dot_rows(level, &matrix, 0..1, &x, &mut out);
                    let want = row.iter().map(|&w| f64::from(w) * f64::from(sign) * 2.0).sum::<f64>();
                    assert!(
                        (f64::from(out[0]) - want).abs() <= 1e-5 * want.abs().max(1.0),
                        "{bits} {byte:#x} {out:?} {want}"
                    );
                }
            }
        }
    }
}

/// Of one thread and of many.
static POOLS: LazyLock<[ThreadPool; 2]> =
    LazyLock::new(|| [1, 64].map(|threads| ThreadPoolBuilder::new().num_threads(threads).build().unwrap()));

/// A tile's products with tokens, against f64 products of decoded rows with what the activations stand for.
fn check_tile(level: Isa, matrix: &CodedRows<'_>, range: Range<usize>, x: &[f32], tile: &mut LevelTile) {
    let (encoding, cols) = (matrix.encoding(), matrix.shape().cols);
    let name = format!("{} {encoding} {cols} {range:?}", level.name());
    let decoder = Decoder::new(Storage::new(encoding, SPEC), cols).unwrap();
    let mut rows = vec![0.0; range.len() * cols];
    decoder.decode_rows(Isa::Scalar, matrix, range.clone(), &mut rows);
    let (stride, first) = (range.len() + 7, 4);
    assert!(tile.read(level, &decoder, matrix, range.clone()), "{name}");
    let blocks = ActivationBlocks::quantize(level, x, cols);
    assert_eq!(blocks.tokens(), x.len() / cols);
    // Both ways of sharing the work, whatever this machine has: by rows, and by tokens.
    let [out, other] = [1, 0].map(|pool: usize| {
        let mut out = vec![f32::NAN; blocks.tokens() * stride];
        POOLS[pool].install(|| tile.multiply(level, &blocks, &mut out, stride, first));
        out
    });
    assert!(out.iter().zip(&other).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}: threads");
    let mut token = vec![0.0; cols];
    for (x, out) in x.chunks(cols).zip(out.chunks(stride)) {
        Activations::quantize(level, x).dequantize(&mut token);
        let (before, rest) = out.split_at(first);
        let (got, after) = rest.split_at(range.len());
        assert!(before.iter().chain(after).all(|x| x.is_nan()), "{name}: only its own columns");
        for (row, got) in rows.chunks(cols).zip(got) {
            let terms: Vec<f64> =
                row.iter().zip(&token).map(|(&w, &x)| f64::from(w) * f64::from(x)).collect();
            let (want, size) = (terms.iter().sum::<f64>(), terms.iter().map(|t| t.abs()).sum::<f64>());
            let close = (f64::from(*got) - want).abs() <= 2e-6 * size;
            assert!(close || want.is_nan() && got.is_nan(), "{name}: {got} {want}");
        }
    }
}

#[test]
fn tiles_of_levels_multiply_as_decoded_rows_do() {
    for level in Isa::available() {
        // One tile for all: what it held before must not matter.
        let mut tile = LevelTile::default();
        for name in
            ["tq1", "tq2", "tq3", "tq4", "tq7", "tq5", "tq6", "tq8", "tt2", "tt3-s12", "tt5", "tt6-s14"]
        {
            let encoding = Encoding::from_name(name).unwrap();
            for (cols, rows) in [(32, 5), (96, 16), (160, 43), (64, 300)] {
                if (rows, name) == (300, "tt6-s14") {
                    continue; // slow to make
                }
                let data: Vec<Vec<f32>> =
                    source::rows(Source::Gaussian, rows, cols, 9).chunks(cols).map(<[f32]>::to_vec).collect();
                let payload = encode(Isa::detect(), encoding, &data);
                let matrix = CodedRows::of_payload(encoding, MatrixShape::new(rows, cols), &payload).unwrap();
                for (tokens, range) in
                    [(1, 0..rows), (40, 0..rows), (13, 3..rows), (24, 0..rows.min(32)), (5, 2..2)]
                {
                    let mut x = source::rows(Source::Gaussian, tokens, cols, 31);
                    x[0] = 1e4; // a group of its own scale
                    x[(tokens - 1) * cols + 1] = f32::NAN;
                    check_tile(level, &matrix, range, &x, &mut tile);
                }
            }
        }
    }
}

#[test]
fn tiles_of_any_codes_and_stacked_matrices() {
    let mut g = Generator::new(8);
    let (cols, stacked) = (96, 3);
    let mut largest = vec![0.0; 2 * cols];
    largest.iter_mut().enumerate().for_each(|(i, x)| *x = if i < cols || i % 3 == 0 { 1.0 } else { -1.0 });
    for level in Isa::available() {
        let mut tile = LevelTile::default();
        for name in ["tq1", "tq5", "tq6", "tq7", "tq8", "tt2-s12", "tt4", "tt6"] {
            let encoding = Encoding::from_name(name).unwrap();
            for height in [48, 43, 13, 272] {
                let shape = MatrixShape::stack(stacked, height, cols).unwrap();
                let bytes = shape.payload_bytes(encoding).unwrap() as usize;
                let scales = shape.rows * encoding.scales_row_bytes(cols);
                // All bits set and clear, and anything: the largest levels too.
                for byte in [Some(0xFF), Some(0x80), None] {
                    let mut payload: Vec<u8> = (0..bytes).map(|_| byte.unwrap_or(g.word() as u8)).collect();
                    let ones = half::f16::ONE.to_le_bytes();
                    payload[bytes - scales..].as_chunks_mut::<2>().0.iter_mut().for_each(|s| *s = ones);
                    let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
                    for range in [0..shape.rows, height - 5..shape.rows, height..2 * height] {
                        check_tile(level, &matrix, range, &largest, &mut tile);
                    }
                }
            }
        }
    }
    // No integers, or more than one scale per row.
    for name in ["tqp3", "tqpo3", "polar4222", "tq4-g32", "bf16"] {
        let encoding = Encoding::from_name(name).unwrap();
        let decoder = Decoder::new(Storage::new(encoding, SPEC), 64).unwrap();
        let payload = vec![0; encoding.payload_bytes(1, 64).unwrap() as usize];
        let matrix = CodedRows::of_payload(encoding, MatrixShape::new(1, 64), &payload).unwrap();
        assert!(!LevelTile::default().read(Isa::Scalar, &decoder, &matrix, 0..1), "{name}");
    }
}
