//! The worked example of `formats/encodings.md` is what the code does.

use gq_codec::{Decoder, EncodeScratch, Encoder, Rotation};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, Storage};

const DOCUMENT: &str = include_str!("../../../../formats/encodings.md");

#[track_caller]
fn mentions(what: &str) {
    let example = DOCUMENT.split("## Worked example").nth(1).unwrap();
    assert!(example.contains(what), "the worked example does not say {what:?}");
}

fn hex(values: &[f32]) -> String {
    values.iter().map(|v| format!("{:08X}", v.to_bits())).collect::<Vec<_>>().join(" ")
}

#[test]
fn rotation_of_a_unit_vector() {
    let rotation = Rotation::new(RotationSpec { kind: RotationKind::Hadamard, seed: 1 }, 96).unwrap();
    let mut x = vec![0.0; 96];
    x[33] = 1.0;
    rotation.forward(Isa::Scalar, &mut x, &mut Vec::new());
    mentions(&hex(&[x[0], x[1], x[32], x[64]]));
}

#[test]
fn trellis_code_of_eight_ramps() {
    let encoding = Encoding::from_name("tt2").unwrap();
    let (shape, spec) = (MatrixShape::new(8, 32), RotationSpec::NONE);
    let value = |row: u16, col: u16| (f32::from((37 * row + 8 * col) % 64) - 31.5) / 16.0;
    let matrix: Vec<f32> = (0..8).flat_map(|row| (0..32).map(move |col| value(row, col))).collect();
    let mut payload = vec![0; 64 + 16];
    let (codes, scales) = payload.split_at_mut(64);
    let encoder = Encoder::new(Storage::new(encoding, spec), 32).unwrap();
    encoder.encode_rows(Isa::Scalar, &matrix, codes, scales, &mut EncodeScratch::default());
    for line in payload.chunks(16) {
        let bytes: Vec<String> = line.iter().map(|b| format!("{b:02x}")).collect();
        mentions(&bytes.join(" "));
    }
    let view = CodedRows::of_payload(encoding, shape, &payload).unwrap();
    let mut out = vec![0.0; 256];
    Decoder::new(Storage::new(encoding, spec), 32).unwrap().decode_rows(Isa::Scalar, &view, 0..8, &mut out);
    mentions(&hex(&[out[0], out[32], out[64], out[96]]));
}

#[test]
fn scalar_code_of_a_ramp() {
    let encoding = Encoding::from_name("tq3").unwrap();
    let ramp: Vec<f32> = (0..32u8).map(|i| (f32::from(i) - 16.0) / 16.0).collect();
    let mut payload = vec![0; 14];
    let (codes, scale) = payload.split_at_mut(12);
    let encoder = Encoder::new(Storage::unrotated(encoding), 32).unwrap();
    encoder.encode_row(Isa::Scalar, &ramp, codes, scale, &mut EncodeScratch::default());
    let bytes: Vec<String> = payload.iter().map(|b| format!("{b:02x}")).collect();
    mentions(&bytes.join(" "));
    let matrix = CodedRows::of_payload(encoding, MatrixShape::new(1, 32), &payload).unwrap();
    let mut out = vec![0.0; 32];
    Decoder::new(Storage::unrotated(encoding), 32).unwrap().decode_row(Isa::Scalar, &matrix, 0, &mut out);
    mentions(&hex(&out[..4]));
}

#[test]
fn grid_of_four_bits_with_a_minimum() {
    let encoding = Encoding::from_name("grid4m-bf16").unwrap();
    let code = |i: u8| 7 * i % 16;
    let mut payload: Vec<u8> = (0..16).map(|i| code(i) | code(i + 16) << 4).collect();
    payload.extend([0x66, 0x2E, 0x00, 0xBA]);
    let bytes: Vec<String> = payload.iter().map(|b| format!("{b:02x}")).collect();
    mentions(&bytes.join(" "));
    let shape = MatrixShape::new(1, 32);
    let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
    let mut out = vec![0.0; 32];
    let decoder = Decoder::new(Storage::unrotated(encoding), 32).unwrap();
    decoder.decode_row(Isa::Scalar, &matrix, 0, &mut out);
    mentions(&hex(&out[..4]));
}
