//! RMS norm.

use super::{assert_same, bell, floats};
use crate::device::Interpreter;
use gq_cuda::{LaunchError, Parts, RmsNorm, define};

#[test]
fn rows_are_normed_as_defined() {
    for (mut device, width) in [(Interpreter::default(), 96), (Interpreter::reversed(), 1000)] {
        let (rows, eps) = (2, 1e-5);
        let (x, weight) = (bell(1, rows * width), floats(2, width));
        let (at_x, at_weight) = (device.upload_f32(&x), device.upload_f32(&weight));
        let y = device.allocate(4 * rows * width);
        let mut norm =
            RmsNorm { x: Parts::one(at_x), residual: None, weight: Some(at_weight), y, rows, width, eps };
        device.run(norm.launch());
        let defined: Vec<f32> =
            x.chunks(width).flat_map(|row| define::rms_norm(row, Some(&weight), eps)).collect();
        assert_same(&device.read_f32(y), &defined, "with a weight");

        norm.weight = None;
        device.run(norm.launch());
        let defined: Vec<f32> = x.chunks(width).flat_map(|row| define::rms_norm(row, None, eps)).collect();
        assert_same(&device.read_f32(y), &defined, "without a weight");
    }
}

#[test]
fn parts_are_added_to_the_residual_stream_first() {
    let mut device = Interpreter::default();
    let (rows, width, eps) = (2, 320, 1e-6);
    let (parts, before) = (bell(3, 3 * rows * width), bell(4, rows * width));
    let span = device.upload_f32(&parts);
    let residual = device.upload_f32(&before);
    let y = device.allocate(4 * rows * width);
    let x = Parts { span, count: 3 };
    device.run(RmsNorm { x, residual: Some(residual), weight: None, y, rows, width, eps }.launch());
    let joined = define::join_parts(&parts, 3);
    let after: Vec<f32> = before.iter().zip(&joined).map(|(before, x)| before + x).collect();
    assert_same(&device.read_f32(residual), &after, "residual");
    let defined: Vec<f32> = after.chunks(width).flat_map(|row| define::rms_norm(row, None, eps)).collect();
    assert_same(&device.read_f32(y), &defined, "normed");
}

#[test]
fn short_ranges_are_refused() {
    let mut device = Interpreter::default();
    let (x, y) = (device.allocate(4 * 64), device.allocate(4 * 63));
    let norm = RmsNorm { x: Parts::one(x), residual: None, weight: None, y, rows: 2, width: 32, eps: 1e-6 };
    let needed = LaunchError::Bytes { kernel: "rms_norm", what: "y", needed: 256, actual: 252 };
    assert_eq!(norm.launch().unwrap_err(), needed);
    let least = RmsNorm { y: x, rows: 0, ..norm }.launch().unwrap_err();
    assert!(matches!(least, LaunchError::Range { what: "rows", actual: 0, .. }), "{least}");
    assert!(RmsNorm { y: x, ..norm }.launch().is_ok());
}
