//! Products and rows of trellis codes.

use super::{assert_same, bell, floats, noise};
use crate::device::Interpreter;
use gq_codec::{Decoder, Trellis};
use gq_cuda::{Experts, TrellisCode, TrellisProduct, TrellisRows, define, layout};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, Storage};
use half::f16;

fn encodings() -> Vec<Encoding> {
    Encoding::all().into_iter().filter(|encoding| TrellisCode::of(*encoding).is_some()).collect()
}

/// Matrices of `rows` rows each with codes without a pattern.
struct Stored {
    code: TrellisCode,
    rows: usize,
    cols: usize,
    codes: Vec<u8>,
    scales: Vec<f16>,
    device: Vec<u8>,
}

impl Stored {
    fn random(encoding: Encoding, rows: usize, cols: usize, stacked: usize) -> Stored {
        let code = TrellisCode::of(encoding).unwrap();
        let bytes = stacked * encoding.codes_bytes(rows, cols).unwrap();
        let codes: Vec<u8> = noise(3, bytes).into_iter().map(|word| (word >> 9) as u8).collect();
        let scales = floats(4, stacked * rows).into_iter().map(f16::from_f32).collect();
        let device = layout::trellis_upload(code.bits, rows, cols, stacked, &codes);
        assert_eq!(device.len(), layout::trellis_bytes(code.bits, rows, cols, stacked));
        Stored { code, rows, cols, codes, scales, device }
    }

    fn scale_bytes(&self) -> Vec<u8> {
        self.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect()
    }

    /// Levels of a row of a matrix.
    fn levels(&self, matrix: usize, row: usize) -> Vec<i32> {
        let one = layout::trellis_bytes(self.code.bits, self.rows, self.cols, 1);
        let device = &self.device[matrix * one..];
        let window = |col| layout::trellis_window(self.code.bits, self.cols, device, row, col);
        (0..self.cols).map(|col| define::trellis_level(self.code, window(col))).collect()
    }

    /// Parts `[parts, tokens, rows]` of a product.
    fn defined(&self, values: &[i8], steps: &[f32], parts: usize) -> Vec<f32> {
        let (cols, groups) = (self.cols, self.cols / 32);
        let tokens = values.len() / cols;
        let levels: Vec<Vec<i32>> = (0..self.rows).map(|row| self.levels(0, row)).collect();
        let mut out = Vec::new();
        for part in 0..parts {
            let range = groups * part / parts..groups * (part + 1) / parts;
            for (values, steps) in values.chunks(cols).zip(steps.chunks(groups)) {
                for (row, levels) in levels.iter().enumerate() {
                    let (scale, input) = (self.scales[row], define::Quantized { values, steps });
                    out.push(match tokens {
                        ..=8 => define::trellis_product(scale, levels, input, range.clone(), tokens == 1),
                        _ => define::trellis_product_of_many(scale, levels, input),
                    });
                }
            }
        }
        out
    }
}

#[test]
fn codes_are_those_of_the_codec() {
    for encoding in encodings() {
        let trellis = Trellis::of(encoding).unwrap();
        let code = TrellisCode::of(encoding).unwrap();
        assert_eq!((code.multiplier, usize::from(code.bits)), (trellis.multiplier().into(), trellis.bits()));
        assert_eq!(1 << code.log_states, trellis.levels().len());
        for (state, level) in trellis.levels().iter().enumerate() {
            // What is above the state does not matter.
            let window = state as u32 | 0xa5 << 20;
            assert_eq!(define::trellis_level(code, window), i32::from(*level), "{encoding} {state}");
        }
    }
}

#[test]
fn uploaded_levels_are_those_of_the_codec() {
    // A full strip, one of 44 rows, one of 8, one of 248, and rows that do not fill the last byte.
    for (index, rows) in [300, 8, 248, 256, 21].into_iter().enumerate() {
        for encoding in encodings().into_iter().skip(index % 3).step_by(3) {
            let cols = 64;
            let stored = Stored::random(encoding, rows, cols, 1);
            let payload = [stored.codes.clone(), stored.scale_bytes()].concat();
            let shape = MatrixShape::new(rows, cols);
            let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
            let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
            let mut decoded = vec![0.0; rows * cols];
            decoder.decode_rows(Isa::Scalar, &matrix, 0..rows, &mut decoded);
            for (row, decoded) in decoded.chunks(cols).enumerate() {
                let step = stored.scales[row].to_f32() / 32.0;
                let ours: Vec<f32> =
                    stored.levels(0, row).into_iter().map(|level| step * level as f32).collect();
                assert_same(&ours, decoded, &format!("{encoding}, row {row} of {rows}"));
            }
        }
    }
}

#[test]
fn products_of_every_rate_and_number_of_states() {
    for (index, encoding) in encodings().into_iter().enumerate() {
        let (rows, cols) = if index % 5 == 0 { (260, 1024) } else { (40, 320) };
        let stored = Stored::random(encoding, rows, cols, 1);
        for tokens in [1, [2, 8, 5][index % 3], [9, 66, 17][index % 3]] {
            let mut device = Interpreter { reverse: index % 2 == 1, ..Interpreter::default() };
            let (values, steps) = define::quantize(&bell(7, tokens * cols));
            let mut product = TrellisProduct {
                code: stored.code,
                codes: device.upload(&stored.device),
                scales: device.upload(&stored.scale_bytes()),
                values: device.upload_i8(&values),
                steps: device.upload_f32(&steps),
                y: device.allocate(0),
                rows,
                cols,
                tokens,
                experts: None,
            };
            let parts = product.parts();
            assert_eq!(parts, if cols == 1024 && tokens <= 8 { 2 } else { 1 });
            product.y = device.allocate(4 * parts * tokens * rows);
            device.run(product.launch());
            let defined = stored.defined(&values, &steps, parts);
            assert_same(&device.read_f32(product.y), &defined, &format!("{encoding}, {tokens} tokens"));
        }
    }
}

#[test]
fn parts_add_up_to_the_product_of_the_codec() {
    let (rows, cols) = (64, 1024);
    let encoding = Encoding::from_name("tt3-s12").unwrap();
    let stored = Stored::random(encoding, rows, cols, 1);
    let payload = [stored.codes.clone(), stored.scale_bytes()].concat();
    let shape = MatrixShape::new(rows, cols);
    let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
    let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
    let x = bell(8, cols);
    let mut theirs = vec![0.0; rows];
    let activations = gq_codec::Activations::quantize(Isa::Scalar, &x);
    decoder.dot_rows(Isa::Scalar, &matrix, 0..rows, &activations, &mut theirs);
    let (values, steps) = define::quantize(&x);
    let ours = define::join_parts(&stored.defined(&values, &steps, 2), 2);
    let norm = theirs.iter().map(|x| x * x).sum::<f32>().sqrt();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!((ours - theirs).abs() < 2e-6 * norm, "{ours} and {theirs}");
    }
}

#[test]
fn chosen_experts_multiply_their_own_rows() {
    let (rows, cols, stacked) = (24, 64, 3);
    let stored = Stored::random(Encoding::from_name("tt4").unwrap(), rows, cols, stacked);
    let chosen = [0u32, 2, 1, 2];
    for per in [2, 1] {
        let inputs = chosen.len() / per;
        let mut device = Interpreter::default();
        let (values, steps) = define::quantize(&bell(9, inputs * cols));
        let y = device.allocate(4 * chosen.len() * rows);
        let product = TrellisProduct {
            code: stored.code,
            codes: device.upload(&stored.device),
            scales: device.upload(&stored.scale_bytes()),
            values: device.upload_i8(&values),
            steps: device.upload_f32(&steps),
            y,
            rows,
            cols,
            tokens: 1,
            experts: Some(Experts { ids: device.upload_u32(&chosen), slots: 4, per, stacked }),
        };
        device.run(product.launch());
        let mut defined = Vec::new();
        for (slot, expert) in chosen.into_iter().enumerate() {
            let (token, expert) = (slot / per, expert as usize);
            let (values, steps) = (&values[token * cols..], &steps[token * cols / 32..]);
            let input = define::Quantized { values: &values[..cols], steps: &steps[..cols / 32] };
            for row in 0..rows {
                let scale = stored.scales[expert * rows + row];
                let levels = stored.levels(expert, row);
                defined.push(define::trellis_product(scale, &levels, input, 0..cols / 32, true));
            }
        }
        assert_same(&device.read_f32(y), &defined, "experts");
    }
}

#[test]
fn rows_of_tables() {
    for encoding in encodings().into_iter().step_by(2) {
        let (rows, cols) = (300, 64);
        let stored = Stored::random(encoding, rows, cols, 1);
        let ids = [0u32, 31, 32, 255, 256, 299];
        let mut device = Interpreter::default();
        let y = device.allocate(4 * ids.len() * cols);
        let table = TrellisRows {
            code: stored.code,
            codes: device.upload(&stored.device),
            scales: device.upload(&stored.scale_bytes()),
            ids: device.upload_u32(&ids),
            y,
            rows,
            cols,
            tokens: ids.len(),
        };
        device.run(table.launch());
        let row = |id: &u32| {
            let step = stored.scales[*id as usize].to_f32() * 0.03125;
            stored.levels(0, *id as usize).into_iter().map(move |level| step * level as f32)
        };
        let defined: Vec<f32> = ids.iter().flat_map(row).collect();
        assert_same(&device.read_f32(y), &defined, &encoding.name());
    }
}
