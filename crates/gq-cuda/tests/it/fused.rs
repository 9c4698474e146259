//! Launches that do what several do, against those: equal to the bit.

use super::{assert_same, bell, floats};
use crate::device::Interpreter;
use gq_codec::Rotation;
use gq_cuda::*;
use gq_tensor::{Isa, RotationKind, RotationSpec};

fn rotated(seed: u64, cols: usize, x: &[f32]) -> (Vec<i8>, Vec<f32>) {
    let mut rotated = x.to_vec();
    let rotation = Rotation::new(RotationSpec { kind: RotationKind::Hadamard, seed }, cols).unwrap();
    rotated.chunks_mut(cols).for_each(|row| rotation.forward(Isa::Scalar, row, &mut Vec::new()));
    define::quantize(&rotated)
}

#[test]
fn norms_before_rotations() {
    // Fewer threads than the norm has, as many, more; two primes.
    for (index, cols) in [96, 960, 2048, 4096, 5376].into_iter().enumerate() {
        let (rows, parts, eps) = (2, 1 + index % 2, 1e-5);
        let (x, residual) = (bell(1, parts * rows * cols), bell(2, rows * cols));
        let (weight, post) = (floats(3, cols), floats(4, cols));
        let joined = define::join_parts(&x, parts);
        for (stream, posted) in [(false, false), (true, false), (true, true)] {
            let mut device = Interpreter { reverse: posted, ..Interpreter::default() };
            let tables = RotationTables::new(7, cols).unwrap();
            let [signs, factors] = tables.bytes().map(|bytes| device.upload(&bytes));
            let span = device.upload_f32(&x);
            let [at_weight, at_post, at_residual] =
                [&weight, &post, &residual].map(|values| device.upload_f32(values));
            let (values, steps) = (device.allocate(rows * cols), device.allocate(rows * cols / 8));
            let join = Joined {
                norm: posted.then_some(HeadNorm { weight: Some(at_post), eps: 1e-3 }),
                residual: at_residual,
                scale: 0.75,
            };
            let launch = NormRotate {
                x: Parts { span, count: parts },
                joined: stream.then_some(join),
                norm: HeadNorm { weight: Some(at_weight), eps },
                signs,
                factors,
                values,
                steps,
                rows,
            };
            device.run(launch.launch(&tables));
            let (mut kept, mut normed) = (Vec::new(), Vec::new());
            for (row, residual) in joined.chunks(cols).zip(residual.chunks(cols)) {
                let row = if posted { define::rms_norm(row, Some(&post), 1e-3) } else { row.to_vec() };
                let row: Vec<f32> = match stream {
                    true => row.iter().zip(residual).map(|(x, residual)| (residual + x) * 0.75).collect(),
                    false => row,
                };
                normed.extend(define::rms_norm(&row, Some(&weight), eps));
                kept.extend(row);
            }
            let (defined, defined_steps) = rotated(7, cols, &normed);
            assert_same(&device.read_f32(steps), &defined_steps, &format!("{cols} {stream} {posted}"));
            assert_eq!(device.read_i8(values), defined, "{cols} {stream} {posted}");
            if stream {
                assert_same(&device.read_f32(at_residual), &kept, "the stream");
            }
        }
    }
}

#[test]
fn gates_before_rotations() {
    for (cols, gelu, parts) in [(96, false, 1), (1536, true, 2), (4096, false, 1)] {
        let (rows, up) = (2, cols + 8);
        let width = up + cols;
        let x = bell(5, parts * rows * width);
        let mut device = Interpreter::default();
        let tables = RotationTables::new(9, cols).unwrap();
        let [signs, factors] = tables.bytes().map(|bytes| device.upload(&bytes));
        let span = device.upload_f32(&x);
        let (values, steps) = (device.allocate(rows * cols), device.allocate(rows * cols / 8));
        let x_parts = Parts { span, count: parts };
        let launch = GatedRotate { x: x_parts, width, up, gelu, signs, factors, values, steps, rows };
        device.run(launch.launch(&tables));
        let joined = define::join_parts(&x, parts);
        let gated: Vec<f32> = joined
            .chunks(width)
            .flat_map(|row| (0..cols).map(|at| define::gated(gelu, row[at], row[up + at])))
            .collect();
        let (defined, defined_steps) = rotated(9, cols, &gated);
        assert_same(&device.read_f32(steps), &defined_steps, &format!("{cols}"));
        assert_eq!(device.read_i8(values), defined, "{cols}");
    }
}

/// One launch leaves what three do.
#[test]
fn queries_keys_and_values_at_once() {
    let (tokens, heads, kv_heads, dim, slots) = (3, 5, 2, 80, 4);
    let (first, eps) = (8, 1e-6);
    let width = first + (heads + 2 * kv_heads) * dim;
    let (x, weight) = (bell(6, 2 * tokens * width), floats(7, dim));
    let angles = floats(8, tokens * dim / 2);
    for kept in [Kept::F32, Kept::F16, Kept::Q8] {
        let made = [true, false].map(|at_once| {
            let mut device = Interpreter { reverse: at_once, ..Interpreter::default() };
            let x = Parts { span: device.upload_f32(&x), count: 2 };
            let norm = Some(HeadNorm { weight: Some(device.upload_f32(&weight)), eps });
            let turns = Some([device.upload_f32(&angles), device.upload_f32(&angles)]);
            let positions = device.upload_u32(&[2, 7, 5]);
            let rows = device.allocate(4 * tokens * heads * dim);
            let (row_bytes, scale_bytes) = CacheRows::bytes(kept, kv_heads, slots, dim);
            let [keys, values] = [(); 2].map(|()| CacheRows {
                kept,
                rows: device.upload(&vec![0; row_bytes as usize]),
                scales: (scale_bytes > 0).then(|| device.upload(&vec![0; scale_bytes as usize])),
                slots,
            });
            let [k, v] = [first + heads * dim, first + (heads + kv_heads) * dim];
            if at_once {
                let within = |first, norm| HeadsIn { x, width, first, norm };
                let (q, k, v) = (within(first, norm), within(k, None), within(v, norm));
                let all =
                    AllHeads { q, k, v, turns, rows, keys, values, positions, tokens, heads, kv_heads, dim };
                device.run(all.launch());
            } else {
                let cache = |cache| HeadsTo::Cache { cache, positions };
                for (first, norm, turns, to, heads) in [
                    (first, norm, turns, HeadsTo::Rows(rows), heads),
                    (k, None, turns, cache(keys), kv_heads),
                    (v, norm, None, cache(values), kv_heads),
                ] {
                    device.run(Heads { x, width, first, norm, turns, to, tokens, heads, dim }.launch());
                }
            }
            let caches = [keys, values].into_iter().flat_map(|cache| [Some(cache.rows), cache.scales]);
            caches.flatten().chain([rows]).map(|span| device.read(span)).collect::<Vec<_>>()
        });
        assert!(made[0] == made[1], "{kept:?}");
    }
}
