//! Numbers and weights in memory.

use gq_codec::{EncodeScratch, Encoder, Rotation};
use gq_model::Linear;
use gq_tensor::{DType, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, SplitMix64, Storage};

/// In [-1, 1), exact in f32.
pub fn numbers(n: usize, seed: u64) -> Vec<f32> {
    (0..n as u64)
        .map(|i| {
            let state = seed.wrapping_mul(SplitMix64::STEP) ^ i.wrapping_mul(0xD1B5_4A32_D192_ED03);
            (SplitMix64::mix(state) >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// `count` matrices `[rows, cols]` as f32, one above the other.
pub fn exact(count: usize, rows: usize, cols: usize, seed: u64) -> Linear {
    of_values(count, rows, cols, &numbers(count * rows * cols, seed))
}

/// The same of these values, row after row.
pub fn of_values(count: usize, rows: usize, cols: usize, values: &[f32]) -> Linear {
    let payload = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    linear(count, rows, cols, Storage::unrotated(Encoding::Exact(DType::F32)), payload)
}

/// The same as rotated codes.
pub fn coded(count: usize, rows: usize, cols: usize, seed: u64) -> Linear {
    let encoding = Encoding::from_name("tq4").unwrap();
    let rotation = RotationSpec { kind: RotationKind::Hadamard, seed: 3 };
    let encoder = Encoder::new(Storage::new(encoding, rotation), cols).unwrap();
    let transform = Rotation::new(rotation, cols).unwrap();
    let mut rotated = numbers(count * rows * cols, seed);
    rotated.chunks_mut(cols).for_each(|row| transform.forward(Isa::Scalar, row, &mut Vec::new()));
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for matrix in rotated.chunks(rows * cols) {
        let mut part = vec![0; encoding.codes_bytes(rows, cols).unwrap()];
        let mut part_scales = vec![0; rows * encoding.scales_row_bytes(cols)];
        let scratch = &mut EncodeScratch::default();
        encoder.encode_rows(Isa::Scalar, matrix, &mut part, &mut part_scales, scratch);
        codes.extend(part);
        scales.extend(part_scales);
    }
    codes.extend(scales);
    linear(count, rows, cols, Storage::new(encoding, rotation), codes)
}

fn linear(count: usize, rows: usize, cols: usize, storage: Storage, payload: Vec<u8>) -> Linear {
    let name = format!("{count} x {rows} x {cols}");
    let shape = MatrixShape::stack(count, rows, cols).unwrap();
    Linear::in_memory(&name, storage, shape, payload).unwrap()
}
