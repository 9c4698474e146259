//! Frozen files: what was stored once is decoded, and encoded again, to the same bits at every level.

use gq_codec::{Decoder, EncodeScratch, Encoder, Rotation};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, Storage};
use serde_json::Value;
use std::{fs, path::PathBuf};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/codec")
}

fn cases() -> Vec<(String, Value)> {
    let mut cases: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()))
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

fn bytes(case: &Value, field: &str) -> Vec<u8> {
    let text = case[field].as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn floats(case: &Value, field: &str) -> Vec<f32> {
    bytes(case, field).chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn number(case: &Value, field: &str) -> usize {
    case[field].as_u64().unwrap() as usize
}

/// Bits, with every NaN alike.
fn canonical(x: &[f32]) -> Vec<u32> {
    x.iter().map(|v| if v.is_nan() { 0x7FC0_0000 } else { v.to_bits() }).collect()
}

fn check_encoding(file: &str, case: &Value, level: Isa) -> Encoding {
    let encoding = Encoding::from_name(case["encoding"].as_str().unwrap()).unwrap();
    assert_eq!(usize::from(encoding.code()), number(case, "code"), "{file}");
    let shape = MatrixShape::new(number(case, "rows"), number(case, "cols"));
    let spec = RotationSpec { kind: RotationKind::None, seed: case["seed"].as_u64().unwrap() };
    let payload = bytes(case, "payload");
    let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
    let decoder = Decoder::new(Storage::new(encoding, spec), shape.cols).unwrap();
    let mut decoded = vec![0.0; shape.cols];
    for (row, want) in floats(case, "decoded").chunks(shape.cols).enumerate() {
        decoder.decode_row(level, &matrix, row, &mut decoded);
        assert_eq!(canonical(&decoded), canonical(want), "{file} row {row}");
    }
    if !encoding.is_exact() {
        let encoder = Encoder::new(Storage::new(encoding, spec), shape.cols).unwrap();
        let mut encoded = vec![0; payload.len()];
        let (codes, scales) = encoded.split_at_mut(encoding.codes_bytes(shape.rows, shape.cols).unwrap());
        let input = floats(case, "input");
        encoder.encode_rows(level, &input, codes, scales, &mut EncodeScratch::default());
        assert_eq!(encoded, payload, "{file}");
    }
    encoding
}

fn check_rotation(file: &str, case: &Value, level: Isa) {
    let code = u8::try_from(number(case, "code")).unwrap();
    let kind = RotationKind::from_code(code).unwrap();
    assert_eq!(kind.name(), case["rotation"].as_str().unwrap(), "{file}");
    let spec = RotationSpec { kind, seed: case["seed"].as_u64().unwrap() };
    let rotation = Rotation::new(spec, number(case, "cols")).unwrap();
    let (mut forward, mut inverse, mut scratch) = (floats(case, "input"), floats(case, "input"), Vec::new());
    rotation.forward(level, &mut forward, &mut scratch);
    rotation.inverse(level, &mut inverse, &mut scratch);
    assert_eq!(canonical(&forward), canonical(&floats(case, "forward")), "{file}");
    assert_eq!(canonical(&inverse), canonical(&floats(case, "inverse")), "{file}");
}

#[test]
fn golden_files_are_read_and_written_alike_at_every_level() {
    let cases = cases();
    for level in Isa::available() {
        let mut seen = Vec::new();
        let mut rotations = 0;
        for (file, case) in &cases {
            match case.get("encoding") {
                Some(_) => seen.push(check_encoding(file, case, level)),
                None => {
                    check_rotation(file, case, level);
                    rotations += 1;
                }
            }
        }
        for encoding in Encoding::all() {
            assert!(seen.contains(&encoding), "no golden file of {encoding}");
        }
        assert_eq!(rotations, 9);
    }
}
