//! Products of plane codes.

use super::{assert_same, bell, floats, noise};
use crate::device::Interpreter;
use gq_codec::{Decoder, EncodeScratch, Encoder};
use gq_cuda::{Experts, PlaneCode, PlaneProduct, define, layout};
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, Storage};

/// Every encoding whose codes lie in planes.
fn encodings() -> Vec<Encoding> {
    Encoding::all().into_iter().filter(|encoding| PlaneCode::of(*encoding).is_some()).collect()
}

/// A stored matrix: codes without a pattern, scales as they may be.
pub(crate) struct Stored {
    pub(crate) encoding: Encoding,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) codes: Vec<u8>,
    pub(crate) scales: Vec<u8>,
}

impl Stored {
    pub(crate) fn random(encoding: Encoding, rows: usize, cols: usize, seed: u32) -> Stored {
        let bytes = encoding.codes_bytes(rows, cols).unwrap();
        let codes = noise(seed, bytes).into_iter().map(|word| (word >> 11) as u8).collect();
        let count = rows * encoding.scales_row_bytes(cols);
        let (_, form) = PlaneCode::of(encoding).unwrap();
        let values = floats(seed + 1, count);
        let scales = match form {
            gq_cuda::ScaleForm::GroupExponent => {
                noise(seed, count).into_iter().map(|word| 120 + (word >> 29) as u8).collect()
            }
            gq_cuda::ScaleForm::GroupFloats | gq_cuda::ScaleForm::RowFloat => {
                values[..count / 4].iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            _ => {
                let halves = values[..count / 2].iter().map(|value| half::f16::from_f32(*value));
                halves.flat_map(half::f16::to_le_bytes).collect()
            }
        };
        Stored { encoding, rows, cols, codes, scales }
    }

    fn code(&self) -> PlaneCode {
        PlaneCode::of(self.encoding).unwrap().0
    }

    pub(crate) fn device_codes(&self) -> Vec<u8> {
        layout::planes_upload(self.code().bits(), self.rows, self.cols, &self.codes)
    }

    /// Levels of a row, from the bytes as they are on the device.
    fn levels(&self, device: &[u8], row: usize) -> Vec<i32> {
        let code = self.code();
        let of = |col| layout::plane_code(code.bits(), self.rows, self.cols, device, row, col);
        (0..self.cols).map(|col| define::plane_level(code, of(col))).collect()
    }
}

#[test]
fn products_of_every_encoding() {
    // Five times what is fetched at a time for many tokens.
    let (rows, cols) = (20, 512 + 128);
    for (index, encoding) in encodings().into_iter().enumerate() {
        let stored = Stored::random(encoding, rows, cols, index as u32);
        let (code, form) = PlaneCode::of(encoding).unwrap();
        let bytes = stored.device_codes();
        let levels: Vec<_> = (0..rows).map(|row| stored.levels(&bytes, row)).collect();
        for tokens in [1, 3, 8, if index % 4 == 0 { 70 } else { 9 }] {
            let mut device = if index % 2 == 0 { Interpreter::default() } else { Interpreter::reversed() };
            let (codes, scales) = (device.upload(&bytes), device.upload(&stored.scales));
            let (values, steps) = define::quantize(&bell(99, tokens * cols));
            let y = device.allocate(4 * tokens * rows);
            let product = PlaneProduct {
                code,
                form,
                codes,
                scales,
                values: device.upload_i8(&values),
                steps: device.upload_f32(&steps),
                y,
                rows,
                cols,
                tokens,
                experts: None,
            };
            device.run(product.launch());
            let mut defined = Vec::new();
            for (values, steps) in values.chunks(cols).zip(steps.chunks(cols / 32)) {
                for (row, levels) in levels.iter().enumerate() {
                    let input = define::Quantized { values, steps };
                    defined.push(match tokens {
                        ..=8 => define::plane_product(code, form, &stored.scales, row, levels, input, 1),
                        _ => define::plane_product_of_many(code, form, &stored.scales, row, levels, input),
                    });
                }
            }
            assert_same(&device.read_f32(y), &defined, &format!("{encoding}, {tokens} tokens"));
        }
    }
}

#[test]
fn levels_are_those_of_the_codec() {
    let (rows, cols) = (3, 256);
    for encoding in encodings() {
        let stored = Stored::random(encoding, rows, cols, 11);
        let payload = [stored.codes.clone(), stored.scales.clone()].concat();
        let shape = MatrixShape::new(rows, cols);
        let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
        let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
        let device = stored.device_codes();
        let x: Vec<f32> = bell(12, cols);
        let activations = gq_codec::Activations::quantize(Isa::Scalar, &x);
        let mut theirs = vec![0.0; rows];
        decoder.dot_rows(Isa::Scalar, &matrix, 0..rows, &activations, &mut theirs);
        let (values, steps) = define::quantize(&x);
        let (code, form) = PlaneCode::of(encoding).unwrap();
        let mut norm = 0.0;
        let mut error = 0.0f64;
        for (row, theirs) in theirs.iter().enumerate() {
            let levels = stored.levels(&device, row);
            let input = define::Quantized { values: &values, steps: &steps };
            let ours = define::plane_product(code, form, &stored.scales, row, &levels, input, 1);
            error = error.max(f64::from((ours - theirs).abs()));
            norm += f64::from(theirs * theirs);
        }
        // Sums of 8 groups in another order: a few roundings of f32.
        assert!(error < 2e-6 * norm.sqrt(), "{encoding}: {error:e} of {norm:e}");
    }
}

#[test]
fn rows_are_split_among_warps_by_shape() {
    // 2048 columns: two warps a row; 4096: four. Rows that do not fill the last block, and a code with a barrier before.
    for (name, rows, cols) in [("tq4", 3, 2048), ("tq6", 2, 4096), ("grid4m", 3, 4096)] {
        let encoding = Encoding::from_name(name).unwrap();
        let stored = Stored::random(encoding, rows, cols, 5);
        let (code, form) = PlaneCode::of(encoding).unwrap();
        let bytes = stored.device_codes();
        let split = gq_cuda::row_split(rows, cols);
        assert_eq!(split, cols / 1024);
        for (reverse, tokens) in [(false, 1), (true, 2)] {
            let mut device = Interpreter { reverse, ..Interpreter::default() };
            let (codes, scales) = (device.upload(&bytes), device.upload(&stored.scales));
            let (values, steps) = define::quantize(&bell(6, tokens * cols));
            let (at_values, at_steps) = (device.upload_i8(&values), device.upload_f32(&steps));
            let y = device.allocate(4 * tokens * rows);
            let experts = None;
            let product = PlaneProduct {
                code,
                form,
                codes,
                scales,
                values: at_values,
                steps: at_steps,
                y,
                rows,
                cols,
                tokens,
                experts,
            };
            device.run(product.launch());
            let mut defined = Vec::new();
            for (values, steps) in values.chunks(cols).zip(steps.chunks(cols / 32)) {
                for row in 0..rows {
                    let levels = stored.levels(&bytes, row);
                    let input = define::Quantized { values, steps };
                    defined.push(define::plane_product(
                        code,
                        form,
                        &stored.scales,
                        row,
                        &levels,
                        input,
                        split,
                    ));
                }
            }
            assert_same(&device.read_f32(y), &defined, &format!("{name}, {tokens} tokens"));
        }
    }
}

#[test]
fn chosen_experts_multiply_their_own_rows() {
    let (height, cols, stacked) = (5, 128, 4);
    let encoding = Encoding::from_name("tq3").unwrap();
    let stored = Stored::random(encoding, height * stacked, cols, 8);
    let (code, form) = PlaneCode::of(encoding).unwrap();
    let bytes = stored.device_codes();
    // Two tokens that chose two experts each.
    let chosen = [2u32, 3, 0, 2];
    for per in [2, 1] {
        let inputs = chosen.len() / per;
        let mut device = Interpreter::default();
        let (values, steps) = define::quantize(&bell(13, inputs * cols));
        let y = device.allocate(4 * chosen.len() * height);
        let product = PlaneProduct {
            code,
            form,
            codes: device.upload(&bytes),
            scales: device.upload(&stored.scales),
            values: device.upload_i8(&values),
            steps: device.upload_f32(&steps),
            y,
            rows: height,
            cols,
            tokens: 1,
            experts: Some(Experts { ids: device.upload_u32(&chosen), slots: 4, per, stacked }),
        };
        device.run(product.launch());
        let mut defined = Vec::new();
        for (slot, expert) in chosen.iter().enumerate() {
            let token = slot / per;
            let (values, steps) = (&values[token * cols..], &steps[token * cols / 32..]);
            let input = define::Quantized { values: &values[..cols], steps: &steps[..cols / 32] };
            for row in *expert as usize * height..(*expert as usize + 1) * height {
                let levels = stored.levels(&bytes, row);
                defined.push(define::plane_product(code, form, &stored.scales, row, &levels, input, 1));
            }
        }
        assert_same(&device.read_f32(y), &defined, "experts");
    }
}

#[test]
fn what_an_encoder_writes_is_multiplied() {
    // Not random codes: a matrix that was rounded, product against f64 on what was decoded.
    let (rows, cols) = (4, 512);
    let encoding = Encoding::from_name("tq4").unwrap();
    let encoder = Encoder::new(Storage::unrotated(encoding), cols).unwrap();
    let decoder = Decoder::new(Storage::unrotated(encoding), cols).unwrap();
    let weights = bell(20, rows * cols);
    let mut stored = Stored::random(encoding, rows, cols, 0);
    let row_bytes = stored.codes.len() / rows;
    let mut scratch = EncodeScratch::default();
    for (row, x) in weights.chunks(cols).enumerate() {
        let codes = &mut stored.codes[row * row_bytes..(row + 1) * row_bytes];
        let scales = &mut stored.scales[2 * row..2 * row + 2];
        encoder.encode_row(Isa::Scalar, x, codes, scales, &mut scratch);
    }
    let payload = [stored.codes.clone(), stored.scales.clone()].concat();
    let shape = MatrixShape::new(rows, cols);
    let matrix = CodedRows::of_payload(encoding, shape, &payload).unwrap();
    let mut decoded = vec![0.0; rows * cols];
    decoder.decode_rows(Isa::Scalar, &matrix, 0..rows, &mut decoded);
    let (values, steps) = define::quantize(&bell(21, cols));
    let device = stored.device_codes();
    let (code, form) = PlaneCode::of(encoding).unwrap();
    for (row, decoded) in decoded.chunks(cols).enumerate() {
        let levels = stored.levels(&device, row);
        let input = define::Quantized { values: &values, steps: &steps };
        let ours = define::plane_product(code, form, &stored.scales, row, &levels, input, 1);
        let x = |at: usize| f64::from(steps[at / 32]) * f64::from(values[at]);
        let exact: f64 = decoded.iter().enumerate().map(|(at, w)| f64::from(*w) * x(at)).sum();
        assert!((f64::from(ours) - exact).abs() < 1e-4, "row {row}: {ours} for {exact}");
    }
}
