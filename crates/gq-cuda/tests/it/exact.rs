//! Exact weights.

use super::{assert_same, bell};
use crate::device::Interpreter;
use gq_cuda::{ExactProduct, ExactRows, Experts, define, row_split};
use gq_tensor::{DType, decode_f32, encode_f32};

/// A matrix in a dtype, and what it decodes to.
fn matrix(dtype: DType, seed: u32, count: usize) -> (Vec<u8>, Vec<f32>) {
    let mut bytes = vec![0; count * dtype.size()];
    assert!(encode_f32(dtype, &bell(seed, count), &mut bytes));
    let mut values = vec![0.0; count];
    decode_f32(dtype, &bytes, &mut values);
    (bytes, values)
}

#[test]
fn products_of_every_dtype() {
    let cases = [(DType::F32, 5, 100), (DType::F16, 6, 260), (DType::BF16, 7, 2052), (DType::BF16, 3, 4096)];
    for (dtype, rows, cols) in cases {
        let (bytes, values) = matrix(dtype, 4, rows * cols);
        for tokens in [1, 2, 5] {
            let mut device = Interpreter { reverse: tokens == 2, ..Interpreter::default() };
            let x = bell(5, tokens * cols);
            let y = device.allocate(4 * tokens * rows);
            let (weights, x_span) = (device.upload(&bytes), device.upload_f32(&x));
            let product = ExactProduct { dtype, weights, x: x_span, y, rows, cols, tokens, experts: None };
            device.run(product.launch());
            let split = row_split(rows, cols);
            let defined: Vec<f32> = x
                .chunks(cols)
                .flat_map(|x| {
                    values.chunks(cols).map(|row| define::exact_product(row, x, split)).collect::<Vec<_>>()
                })
                .collect();
            assert_same(&device.read_f32(y), &defined, &format!("{dtype} {rows} x {cols}, {tokens} tokens"));
        }
    }
}

#[test]
fn chosen_experts() {
    let (rows, cols, stacked) = (4, 64, 3);
    let (bytes, values) = matrix(DType::BF16, 6, stacked * rows * cols);
    let mut device = Interpreter::default();
    let x = bell(7, 2 * cols);
    let chosen = [0u32, 2, 1, 2];
    let y = device.allocate(4 * chosen.len() * rows);
    let product = ExactProduct {
        dtype: DType::BF16,
        weights: device.upload(&bytes),
        x: device.upload_f32(&x),
        y,
        rows,
        cols,
        tokens: 1,
        experts: Some(Experts { ids: device.upload_u32(&chosen), slots: 4, per: 2, stacked }),
    };
    device.run(product.launch());
    let mut defined = Vec::new();
    for (slot, expert) in chosen.into_iter().enumerate() {
        let x = &x[slot / 2 * cols..][..cols];
        let weights = &values[expert as usize * rows * cols..][..rows * cols];
        defined.extend(weights.chunks(cols).map(|row| define::exact_product(row, x, 1)));
    }
    assert_same(&device.read_f32(y), &defined, "experts");
}

#[test]
fn rows_of_tables() {
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let (rows, cols) = (9, 1100);
        let (bytes, values) = matrix(dtype, 8, rows * cols);
        let ids = [8u32, 0, 3];
        let mut device = Interpreter::default();
        let y = device.allocate(4 * ids.len() * cols);
        let (table, at_ids) = (device.upload(&bytes), device.upload_u32(&ids));
        let (tokens, factor) = (ids.len(), 33.25);
        device.run(ExactRows { dtype, table, ids: at_ids, y, rows, cols, tokens, factor }.launch());
        let row = |id: &u32| values[*id as usize * cols..][..cols].iter().map(|x| x * factor);
        let defined: Vec<f32> = ids.iter().flat_map(row).collect();
        assert_same(&device.read_f32(y), &defined, &dtype.to_string());
    }
}
