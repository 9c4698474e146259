//! Weights on a grid come back as they were; others are refused.

use gq_codec::{Activations, Decoder, EncodeScratch, Encoder, on_grid};
use gq_tensor::{
    CodedRows, DType, Encoding, Grid, Isa, MatrixShape, Rounding, Storage, decode_f32, encode_f32,
};

use crate::source::{self, Source};

fn named(name: &str) -> Encoding {
    Encoding::from_name(name).unwrap()
}

fn dtype(encoding: Encoding) -> DType {
    match encoding {
        Encoding::Grid(Grid { rounding: Rounding::F16, .. }) => DType::F16,
        Encoding::Grid(Grid { rounding: Rounding::BF16, .. }) | Encoding::Mxfp4 => DType::BF16,
        _ => DType::F32,
    }
}

fn rounded(dtype: DType, values: &[f32]) -> Vec<f32> {
    let (mut bytes, mut out) = (vec![0; values.len() * dtype.size()], vec![0.0; values.len()]);
    assert!(encode_f32(dtype, values, &mut bytes));
    decode_f32(dtype, &bytes, &mut out);
    out
}

/// Rows that sit on the grid of an encoding: those of [`source::on_grid`].
fn on(encoding: Encoding, rows: usize, cols: usize) -> Vec<f32> {
    source::on_grid(encoding, rows, cols)
}

fn payload(encoding: Encoding, values: &[f32], cols: usize, level: Isa) -> Vec<u8> {
    let rows = values.len() / cols;
    let mut payload = vec![0; encoding.payload_bytes(rows, cols).unwrap() as usize];
    let (codes, scales) = payload.split_at_mut(encoding.codes_bytes(rows, cols).unwrap());
    let encoder = Encoder::new(Storage::unrotated(encoding), cols).unwrap();
    encoder.encode_rows(level, values, codes, scales, &mut EncodeScratch::default());
    payload
}

fn decoded(encoding: Encoding, payload: &[u8], shape: MatrixShape, level: Isa) -> Vec<f32> {
    let matrix = CodedRows::of_payload(encoding, shape, payload).unwrap();
    let mut out = vec![0.0; shape.rows * shape.cols];
    let decoder = Decoder::new(Storage::unrotated(encoding), shape.cols).unwrap();
    decoder.decode_rows(level, &matrix, 0..shape.rows, &mut out);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_grid_is_found_and_comes_back_bit_for_bit_at_every_level() {
    let shape = MatrixShape::new(5, 96);
    for encoding in Encoding::grids() {
        let values = on(encoding, shape.rows, shape.cols);
        assert_eq!(bits(&values), bits(&rounded(dtype(encoding), &values)), "{encoding}");
        assert!(values.chunks(shape.cols).all(|row| on_grid(encoding, row)), "{encoding} is not found");
        let first = payload(encoding, &values, shape.cols, Isa::Scalar);
        for level in Isa::available() {
            assert_eq!(payload(encoding, &values, shape.cols, level), first, "{encoding}");
            assert_eq!(bits(&decoded(encoding, &first, shape, level)), bits(&values), "{encoding}");
        }
    }
}

#[test]
fn near_misses_are_refused_and_decode_to_nan() {
    for encoding in Encoding::grids() {
        let mut values = on(encoding, 1, 96);
        let at = (32..64).max_by(|&a, &b| values[a].abs().total_cmp(&values[b].abs())).unwrap();
        // A level and a third, in the dtype: no grid of this scale has it.
        let other = (32..64).find(|&i| values[i] != values[at]).unwrap();
        let moved = values[at] + (values[other] - values[at]) * 0.37;
        values[at] = rounded(dtype(encoding), &[moved])[0];
        // Eight bits are all that a bf16 has: some scale takes any few of them.
        if on_grid(encoding, &values) {
            assert!(encoding.name().starts_with("grid8"), "{encoding}");
            continue;
        }
        let shape = MatrixShape::new(1, 96);
        let stored = payload(encoding, &values, 96, Isa::Scalar);
        let back = decoded(encoding, &stored, shape, Isa::Scalar);
        assert!(back[32..64].iter().all(|v| v.is_nan()), "{encoding}");
        if !encoding.name().contains("row") {
            assert_eq!(bits(&back[..32]), bits(&values[..32]), "{encoding}");
        }
    }
}

#[test]
fn what_is_no_number_or_no_grid_is_refused() {
    let gaussian = source::rows(Source::Gaussian, 1, 64, 7);
    for encoding in Encoding::grids() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = on(encoding, 1, 64);
            values[40] = value;
            assert!(!on_grid(encoding, &values), "{encoding} {value}");
        }
        assert!(!on_grid(encoding, &rounded(dtype(encoding), &gaussian)), "{encoding}");
        assert!(on_grid(encoding, &[0.0; 64]) && !on_grid(encoding, &[0.0; 48]), "{encoding}");
    }
    assert!(!on_grid(named("tq4"), &gaussian) && !on_grid(named("bf16"), &gaussian));
}

#[test]
fn grids_of_other_programs() {
    // Q4_0: the scale is negative where the largest weight is positive, and zeros carry its sign.
    let q4_0: Vec<f32> = (0..32_i8).map(|i| -0.0123_f32 * f32::from(i % 16 - 8)).collect();
    let scale = rounded(DType::F16, &[-0.0123])[0];
    let q4_0: Vec<f32> = q4_0.iter().map(|v| (v / -0.0123).round() * scale).collect();
    assert!(q4_0.iter().any(|v| v.to_bits() == (-0.0_f32).to_bits()));
    let shape = MatrixShape::new(1, 32);
    let stored = payload(named("grid4"), &q4_0, 32, Isa::Scalar);
    assert_eq!(bits(&decoded(named("grid4"), &stored, shape, Isa::Scalar)), bits(&q4_0));
    // Levels from -7 to 7 with one scale in bf16 per row, zeros of both signs: equal as numbers.
    let levels = (0..96).map(|i: i32| f32::from((i * 37 % 15 - 7) as i8));
    let mut int4: Vec<f32> = levels.map(|q| q * 0.013_671_875).collect();
    let zero = int4.iter().position(|v| *v == 0.0).unwrap();
    int4[zero] = -0.0;
    assert!(on_grid(named("grid4-row-bf16"), &rounded(DType::BF16, &int4)));
    assert!(on_grid(named("grid4-row"), &int4) && on_grid(named("grid4"), &int4));
    // Unsigned codes with an integer zero point are signed ones with a bit more.
    let zero_point: Vec<f32> = (0..64).map(|i: i32| 0.031_25 * f32::from((i * 29 % 16 - 3) as i8)).collect();
    assert!(!on_grid(named("grid4"), &zero_point) && on_grid(named("grid5"), &zero_point));
}

#[test]
fn products_with_activations_agree_with_decoded_rows() {
    let shape = MatrixShape::new(3, 160);
    let x: Vec<f32> = source::rows(Source::Gaussian, 1, shape.cols, 9);
    for encoding in Encoding::grids() {
        let values = on(encoding, shape.rows, shape.cols);
        let stored = payload(encoding, &values, shape.cols, Isa::Scalar);
        let matrix = CodedRows::of_payload(encoding, shape, &stored).unwrap();
        let decoder = Decoder::new(Storage::unrotated(encoding), shape.cols).unwrap();
        let mut f32_bits = Vec::new();
        for level in Isa::available() {
            let int8 = Activations::quantize(level, &x);
            let mut plain = vec![0.0; shape.cols];
            int8.dequantize(&mut plain);
            let (mut by_int8, mut by_f32) = ([0.0; 3], [0.0; 3]);
            decoder.dot_rows(level, &matrix, 0..3, &int8, &mut by_int8);
            decoder.dot_rows_f32(level, &matrix, 0..3, &x, &mut by_f32);
            for (row, values) in values.chunks(shape.cols).enumerate() {
                let dot = |x: &[f32]| values.iter().zip(x).map(|(w, x)| f64::from(w * x)).sum::<f64>();
                let size = values.iter().zip(&x).map(|(w, x)| f64::from((w * x).abs())).sum::<f64>();
                // Products of integers leave out the rounding to the dtype: 2^-9 of each weight.
                assert!((f64::from(by_int8[row]) - dot(&plain)).abs() < size / 512.0, "{encoding} {level:?}");
                assert!((f64::from(by_f32[row]) - dot(&x)).abs() < size * 1e-5, "{encoding} {level:?}");
            }
            f32_bits.push(bits(&by_f32));
        }
        assert!(f32_bits.iter().all(|bits| *bits == f32_bits[0]), "{encoding}");
    }
}

#[test]
fn eight_bits_are_found_where_bf16_hardly_tells_them_apart() {
    let bf16 = |scale: f32, levels: &[i32]| {
        rounded(DType::BF16, &levels.iter().map(|&q| scale * q as f32).collect::<Vec<_>>())
    };
    // A group of a Q8_0 file. Nearest levels of a scale in the middle of what is open miss the 124.
    let levels = [
        1, 1, 2, 3, 5, 5, 6, 7, 7, 8, 10, 11, 12, 15, 16, 16, 18, 18, 19, 22, 22, 26, 27, 29, 29, 39, 40, 41,
        54, 56, 124, 127,
    ];
    let signed: Vec<i32> = levels.iter().zip(0..).map(|(q, i)| if i % 3 == 0 { -q } else { *q }).collect();
    let scale = rounded(DType::F16, &[0.004_520_416_3])[0];
    assert!(on_grid(named("grid8-bf16"), &bf16(scale, &signed)));
    // Large levels alone leave all of them open.
    for seed in 0..200_i32 {
        let large: Vec<i32> = (0..32).map(|i| 90 + (i * i * 31 + seed * 17 + i * seed) % 38).collect();
        let scale = rounded(DType::F16, &[0.003 + 0.000_013 * seed as f32])[0];
        for encoding in ["grid8-bf16", "grid8-row-bf16"] {
            assert!(on_grid(named(encoding), &bf16(scale, &large)), "{encoding} {seed}");
        }
    }
}
