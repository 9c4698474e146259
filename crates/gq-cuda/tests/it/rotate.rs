//! Rotations against `gq-codec`, and activations to int8.

use super::{assert_same, bell};
use crate::device::Interpreter;
use gq_codec::Rotation;
use gq_cuda::{Parts, Quantize, Rotate, RotateBack, RotateWide, RotationTables, define};
use gq_tensor::{Isa, RotationKind, RotationSpec};

fn rotation(seed: u64, cols: usize) -> Rotation {
    Rotation::new(RotationSpec { kind: RotationKind::Hadamard, seed }, cols).unwrap()
}

/// Rows of activations with a group of zeros, one of tiny numbers and one that is not finite where asked for.
fn rows(seed: u32, count: usize) -> Vec<f32> {
    let mut x = bell(seed, count);
    x[32..64].fill(0.0);
    x[7] *= 100.0;
    x
}

#[test]
fn rotations_of_every_kind_of_width() {
    // Powers of two, one and several primes, one prime twice; 21504 and 5376 are Gemma 4 31B's, 576 SmolLM2's.
    let widths = [32, 64, 96, 128, 576, 1536, 2048, 2560, 32 * 63, 32 * 37, 5376, 21504];
    for (index, cols) in widths.into_iter().enumerate() {
        let seed = 7 + index as u64;
        let mut device = if index % 2 == 0 { Interpreter::default() } else { Interpreter::reversed() };
        let count = if cols > 4096 { 1 } else { 2 };
        let tables = RotationTables::new(seed, cols).unwrap();
        let [signs, factors] = tables.bytes().map(|bytes| device.upload(&bytes));
        let x = bell(index as u32, count * cols);
        let span = device.upload_f32(&x);
        let (values, steps) = (device.allocate(count * cols), device.allocate(count * cols / 8));
        device
            .run(Rotate { x: Parts::one(span), signs, factors, values, steps, rows: count }.launch(&tables));
        let mut rotated = x.clone();
        rotation(seed, cols).forward(Isa::Scalar, &mut rotated, &mut Vec::new());
        let (defined, defined_steps) = define::quantize(&rotated);
        assert_same(&device.read_f32(steps), &defined_steps, &format!("steps of width {cols}"));
        assert_eq!(device.read_i8(values), defined, "values of width {cols}");

        if cols <= 2560 {
            let (from, back) = (device.upload_f32(&rotated), device.allocate(4 * count * cols));
            device.run(RotateBack { x: from, signs, factors, y: back, rows: count }.launch(&tables));
            rotation(seed, cols).inverse(Isa::Scalar, &mut rotated, &mut Vec::new());
            assert_same(&device.read_f32(back), &rotated, &format!("back, width {cols}"));
        }
    }
}

/// Rows in two launches: 28672 is Llama 3 70B's, 29568 Qwen 2.5 72B's, 53248 Llama 3 405B's; powers of two within and beyond a
/// block's part; widths that one launch takes too.
#[test]
fn rotations_of_wide_rows() {
    for (index, cols) in [96, 8192, 32768, 28672, 29568, 53248].into_iter().enumerate() {
        let seed = 70 + index as u64;
        let mut device = if index % 2 == 0 { Interpreter::default() } else { Interpreter::reversed() };
        let (count, parts) = if cols <= 8192 { (3, 2) } else { (1, 1) };
        let tables = RotationTables::new(seed, cols).unwrap();
        let [signs, factors] = tables.bytes().map(|bytes| device.upload(&bytes));
        let x = bell(index as u32, count * cols);
        let each: Vec<f32> = x.iter().map(|x| x / parts as f32).collect();
        let span = device.upload_f32(&each.repeat(parts));
        let (values, steps) = (device.allocate(count * cols), device.allocate(count * cols / 8));
        let between = device.allocate(4 * count * cols);
        let x_parts = Parts { span, count: parts };
        let rotate = Rotate { x: x_parts, signs, factors, values, steps, rows: count };
        for launch in (RotateWide { rotate, between }).launches(&tables).unwrap() {
            device.run(Ok(launch));
        }
        let mut rotated = x;
        rotation(seed, cols).forward(Isa::Scalar, &mut rotated, &mut Vec::new());
        let (defined, defined_steps) = define::quantize(&rotated);
        assert_same(&device.read_f32(steps), &defined_steps, &format!("steps of width {cols}"));
        assert_eq!(device.read_i8(values), defined, "values of width {cols}");
    }
}

#[test]
fn groups_of_zeros_and_of_no_numbers() {
    let mut device = Interpreter::default();
    let cols = 160;
    let mut x = rows(5, 2 * cols);
    x[64..96].iter_mut().for_each(|x| *x *= 1e-32);
    x[100] = f32::INFINITY;
    x[130] = f32::NAN;
    let parts: Vec<f32> = x.iter().map(|x| x * 0.5).collect();
    let span = device.upload_f32(&[parts.clone(), parts].concat());
    let (values, steps) = (device.allocate(2 * cols), device.allocate(2 * cols / 8));
    let x_parts = Parts { span, count: 2 };
    device.run(Quantize { x: x_parts, values, steps, rows: 2, cols }.launch());
    let (defined, defined_steps) = define::quantize(&x);
    assert_same(&device.read_f32(steps), &defined_steps, "steps");
    assert_eq!(device.read_i8(values), defined);
    assert_eq!(defined_steps[2], 0.0);
    assert!(defined_steps[3].is_nan() && defined_steps[4].is_nan() && defined_steps[5] > 0.0);
}

#[test]
fn activations_are_those_of_the_codec() {
    // What `define::quantize` says is what the codec's products multiply.
    let x = rows(9, 320);
    let (values, steps) = define::quantize(&x);
    let ours: Vec<f32> =
        values.iter().enumerate().map(|(at, value)| steps[at / 32] * f32::from(*value)).collect();
    let mut theirs = vec![0.0; 320];
    gq_codec::Activations::quantize(Isa::Scalar, &x).dequantize(&mut theirs);
    assert_same(&ours, &theirs, "dequantized");
}

#[test]
fn widths_that_have_no_rotation_are_refused() {
    assert!(RotationTables::new(1, 48).is_none() && RotationTables::new(1, 0).is_none());
    // 32 is the largest power of two of a width of 769 parts.
    for (cols, has) in
        [(48, false), (0, false), (24576, true), (28672, true), (32 * 767, true), (32 * 769, false)]
    {
        assert_eq!(RotationTables::has_kernels(cols), has, "{cols}");
    }
    let mut device = Interpreter::default();
    let wide = RotationTables::new(1, 32768).unwrap();
    let span = device.allocate(4 * 32768);
    let rotate =
        Rotate { x: Parts::one(span), signs: span, factors: span, values: span, steps: span, rows: 1 };
    assert_eq!(
        rotate.launch(&wide).unwrap_err().to_string(),
        "rotate_quantize: cols is 32768, the kernel takes 32 to 24576"
    );
    let narrow = RotationTables::new(1, 32 * 769).unwrap();
    assert_eq!(
        RotateWide { rotate, between: span }.launches(&narrow).unwrap_err().to_string(),
        "rotate_chunks: parts of a row is 769, the kernel takes 1 to 768"
    );
}
