//! Operators that look at one element at a time.

use super::{assert_same, bell};
use crate::device::Interpreter;
use gq_cuda::{AddScaled, Gated, Parts, Softcap, define};

#[test]
fn gates() {
    let (rows, columns) = (2, 300);
    for (gelu, count) in [(false, 1), (true, 3)] {
        let mut device = Interpreter::default();
        let width = 2 * columns;
        let mut x = bell(1, count * rows * width);
        (x[0], x[1], x[2]) = (-90.0, 95.0, 1e6);
        let (span, y) = (device.upload_f32(&x), device.allocate(4 * rows * columns));
        let parts = Parts { span, count };
        device.run(Gated { x: parts, width, up: columns, columns, gelu, y, rows }.launch());
        let joined = define::join_parts(&x, count);
        let defined = joined.chunks(width).flat_map(|row| {
            let (gate, up) = row.split_at(columns);
            gate.iter().zip(up).map(|(gate, up)| define::gated(gelu, *gate, *up)).collect::<Vec<_>>()
        });
        assert_same(&device.read_f32(y), &defined.collect::<Vec<_>>(), &format!("gelu: {gelu}"));
    }
}

#[test]
fn sums_and_caps() {
    let count = 1000;
    let mut device = Interpreter::reversed();
    let (x, before) = (bell(2, 2 * count), bell(3, count));
    let x_span = device.upload_f32(&x);
    let stream = device.upload_f32(&before);
    let parts = Parts { span: x_span, count: 2 };
    let joined = define::join_parts(&x, 2);
    let add = AddScaled { x: parts, residual: Some(stream), factor: 0.7, y: stream, count };
    device.run(add.launch());
    let defined: Vec<f32> = joined.iter().zip(&before).map(|(x, before)| (before + x) * 0.7).collect();
    assert_same(&device.read_f32(stream), &defined, "sum");
    device.run(AddScaled { residual: None, factor: 3.0, ..add }.launch());
    let defined: Vec<f32> = joined.iter().map(|x| x * 3.0).collect();
    assert_same(&device.read_f32(stream), &defined, "scaled");
    device.run(Softcap { x: parts, cap: 0.9, y: stream, count }.launch());
    let defined: Vec<f32> = joined.iter().map(|x| 0.9 * define::tanh(x / 0.9)).collect();
    assert_same(&device.read_f32(stream), &defined, "capped");
}

#[test]
fn functions_are_close_to_f64() {
    for i in -9000..9000 {
        let x = i as f32 * 0.0097;
        let wide = f64::from(x);
        assert!((f64::from(define::exp(x)) / wide.exp() - 1.0).abs() < 2.5e-7, "exp({x})");
        assert!((f64::from(define::tanh(x)) - wide.tanh()).abs() < 2e-7, "tanh({x})");
        let silu = wide / (1.0 + (-wide).exp());
        assert!((f64::from(define::gated(false, x, 1.0)) - silu).abs() <= 3e-7 * wide.abs().max(1.0));
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044715 * wide.powi(3));
        let gelu = 0.5 * wide * (1.0 + inner.tanh());
        assert!((f64::from(define::gated(true, x, 1.0)) - gelu).abs() <= 3e-7 * wide.abs().max(1.0));
    }
}
