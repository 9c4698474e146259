//! Writes the golden files of `testdata/golden/codec`, one JSON file per case; floats and bytes in hex.
//!
//! `cargo run -p gq-codec --example write_golden -- FOLDER`
//!
//! Golden files are frozen: run this into an empty folder and copy only what is new.

use gq_codec::{Decoder, EncodeScratch, Encoder, Rotation};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, RotationKind, RotationSpec, ScaleGroup, Storage};
use serde_json::{Value, json};
use std::{error::Error, fs, path::PathBuf};

#[path = "../tests/it/source.rs"]
mod source;
use source::Source;

/// Needs all of its 64 bits, and more than 53 of them.
const SEED: u64 = 0xDEAD_BEEF_1234_5679;

const LEVEL: Isa = Isa::Scalar;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("which folder?")?);
    fs::create_dir_all(&folder)?;
    let mut cases = Vec::new();
    for encoding in Encoding::all() {
        let case = if encoding.is_exact() { exact(encoding)? } else { encoded(encoding)? };
        cases.push((encoding.name(), case));
    }
    for cols in [32, 64, 96, 160, 480, 576, 704] {
        cases.push((format!("hadamard-{cols}"), rotated(RotationKind::Hadamard, cols)?));
    }
    for cols in [20, 96] {
        cases.push((format!("haar-{cols}"), rotated(RotationKind::Haar, cols)?));
    }
    for (name, case) in cases {
        fs::write(folder.join(format!("{name}.json")), format!("{case:#}\n"))?;
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn hex_f32(values: &[f32]) -> String {
    hex(&values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
}

fn decoded(
    encoding: Encoding,
    spec: RotationSpec,
    shape: MatrixShape,
    payload: &[u8],
) -> Result<Vec<f32>, Box<dyn Error>> {
    let matrix = CodedRows::of_payload(encoding, shape, payload).map_err(|e| format!("{e:?}"))?;
    let decoder = Decoder::new(Storage::new(encoding, spec), shape.cols)?;
    let mut out = vec![0.0; shape.rows * shape.cols];
    for (row, out) in out.chunks_mut(shape.cols).enumerate() {
        decoder.decode_row(LEVEL, &matrix, row, out);
    }
    Ok(out)
}

/// Three rows: Gaussian, heavy-tailed and small, zeros; of trellis codes more Gaussian rows.
fn encoded(encoding: Encoding) -> Result<Value, Box<dyn Error>> {
    let cols = match encoding {
        Encoding::Turbo { group: ScaleGroup::G64, .. } => 192,
        Encoding::Turbo { group: ScaleGroup::G128, .. } => 384,
        Encoding::Trellis { .. } => 32,
        _ => 96,
    };
    if encoding.is_grid() {
        return stored(encoding, source::on_grid(encoding, 3, cols), cols);
    }
    let mut input = source::rows(Source::Gaussian, 1, cols, 1);
    input.extend(source::rows(Source::Student5, 1, cols, 2).iter().map(|v| v * 0.02));
    input.extend(vec![0.0; cols]);
    if encoding.strip_rows() > 1 {
        // Rows that do not fill bytes, and for one of them a second strip.
        let more = if encoding.name() == "tt3" { Encoding::STRIP_ROWS + 18 } else { 18 };
        input.extend(source::rows(Source::Gaussian, more, cols, 3));
    }
    stored(encoding, input, cols)
}

fn stored(encoding: Encoding, input: Vec<f32>, cols: usize) -> Result<Value, Box<dyn Error>> {
    let rows = input.len() / cols;
    let spec = RotationSpec { kind: RotationKind::None, seed: SEED };
    let encoder = Encoder::new(Storage::new(encoding, spec), cols)?;
    let mut codes = vec![0; encoding.codes_bytes(rows, cols).ok_or("too large")?];
    let mut scales = vec![0; rows * encoding.scales_row_bytes(cols)];
    encoder.encode_rows(LEVEL, &input, &mut codes, &mut scales, &mut EncodeScratch::default());
    let payload = [codes, scales].concat();
    let shape = MatrixShape::new(rows, cols);
    Ok(json!({
        "encoding": encoding.name(),
        "code": encoding.code(),
        "rows": shape.rows,
        "cols": cols,
        "seed": SEED,
        "input": hex_f32(&input),
        "payload": hex(&payload),
        "decoded": hex_f32(&decoded(encoding, spec, shape, &payload)?),
    }))
}

/// Two rows of bytes that count up, in steps that are odd: every byte of the 8-bit dtypes, and wide
/// elements of every exponent.
fn exact(encoding: Encoding) -> Result<Value, Box<dyn Error>> {
    let shape = MatrixShape::new(2, 128);
    let bytes = encoding.codes_row_bytes(2 * shape.cols);
    let payload: Vec<u8> =
        (0..bytes).map(|i| (i * if bytes == 256 { 1 } else { 37 } + i / 256) as u8).collect();
    Ok(json!({
        "encoding": encoding.name(),
        "code": encoding.code(),
        "rows": shape.rows,
        "cols": shape.cols,
        "seed": 0,
        "payload": hex(&payload),
        "decoded": hex_f32(&decoded(encoding, RotationSpec::NONE, shape, &payload)?),
    }))
}

fn rotated(kind: RotationKind, cols: usize) -> Result<Value, Box<dyn Error>> {
    let rotation = Rotation::new(RotationSpec { kind, seed: SEED }, cols)?;
    let input = source::rows(Source::Gaussian, 1, cols, 3);
    let (mut forward, mut inverse, mut scratch) = (input.clone(), input.clone(), Vec::new());
    rotation.forward(LEVEL, &mut forward, &mut scratch);
    rotation.inverse(LEVEL, &mut inverse, &mut scratch);
    Ok(json!({
        "rotation": kind.name(),
        "code": kind.code(),
        "seed": SEED,
        "cols": cols,
        "input": hex_f32(&input),
        "forward": hex_f32(&forward),
        "inverse": hex_f32(&inverse),
    }))
}
