//! Attention.

use super::{assert_same, bell};
use crate::device::Interpreter;
use gq_cuda::{Attention, CacheRows, Kept, attention_chunk, define};
use half::f16;

/// A case; the cache holds `slots` positions, of which those up to the last one's are written.
#[derive(Clone, Copy)]
struct Case {
    kept: Kept,
    heads: usize,
    kv_heads: usize,
    dim: usize,
    slots: usize,
    positions: &'static [u32],
    window: Option<usize>,
    softcap: Option<f32>,
    sinks: bool,
}

const PLAIN: Case = Case {
    kept: Kept::F32,
    heads: 4,
    kv_heads: 1,
    dim: 64,
    slots: 64,
    positions: &[39],
    window: None,
    softcap: None,
    sinks: false,
};

/// Keys or values as they are kept: bytes, scales, and what each slot of each head reads as.
fn cache(case: &Case, seed: u32) -> (Vec<u8>, Vec<u8>, Vec<Vec<f32>>) {
    let (mut bytes, mut scales, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for row in bell(seed, case.kv_heads * case.slots * case.dim).chunks(case.dim) {
        match case.kept {
            Kept::F32 => {
                bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
                rows.push(row.to_vec());
            }
            Kept::F16 => {
                let halves: Vec<f16> = row.iter().map(|x| f16::from_f32(*x)).collect();
                bytes.extend(halves.iter().flat_map(|x| x.to_le_bytes()));
                rows.push(halves.iter().map(|x| x.to_f32()).collect());
            }
            Kept::Q8 => {
                let (codes, steps) = define::cache_row(row);
                bytes.extend(codes.iter().map(|code| *code as u8));
                scales.extend(steps.iter().flat_map(|scale| scale.to_le_bytes()));
                rows.push(define::cached(&codes, &steps));
            }
        }
    }
    (bytes, scales, rows)
}

fn run(case: Case, device: &mut Interpreter) -> (Vec<f32>, Vec<f32>) {
    let Case { kept, heads, kv_heads, dim, slots, positions, window, softcap, .. } = case;
    let tokens = positions.len();
    let q = bell(1, tokens * heads * dim);
    let sinks = bell(2, heads);
    let [keys, values] = [cache(&case, 3), cache(&case, 4)];
    let mut upload = |(bytes, scales, _): &(Vec<u8>, Vec<u8>, Vec<Vec<f32>>)| CacheRows {
        kept,
        rows: device.upload(bytes),
        scales: Some(device.upload(scales)),
        slots,
    };
    let (key_rows, value_rows) = (upload(&keys), upload(&values));
    let longest = window.unwrap_or(slots);
    let scale = 0.3;
    let mut kernel = Attention {
        q: device.upload_f32(&q),
        keys: key_rows,
        values: value_rows,
        positions: device.upload_u32(positions),
        partial: device.allocate(0),
        sinks: case.sinks.then(|| device.upload_f32(&sinks)),
        y: device.allocate(4 * tokens * heads * dim),
        tokens,
        heads,
        kv_heads,
        dim,
        window,
        longest,
        scale,
        softcap,
    };
    kernel.partial = device.allocate(kernel.partial_bytes() as usize);
    for launch in kernel.launches().unwrap() {
        device.run(Ok(launch));
    }
    let mut defined = Vec::new();
    for (token, position) in positions.iter().enumerate() {
        let end = *position as usize + 1;
        let seen: Vec<usize> = (end - end.min(window.unwrap_or(end))..end).collect();
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let rows = |rows: &[Vec<f32>]| -> Vec<Vec<f32>> {
                seen.iter().map(|position| rows[kv_head * slots + position % slots].clone()).collect()
            };
            let sink = case.sinks.then(|| sinks[head]);
            let scores = define::Scores { scale, softcap, sink };
            let query = &q[(token * heads + head) * dim..][..dim];
            let chunk = attention_chunk(longest);
            defined.extend(define::attention(query, &rows(&keys.2), &rows(&values.2), chunk, scores));
        }
    }
    (device.read_f32(kernel.y), defined)
}

#[test]
fn attention_of_every_kind() {
    let cases = [
        ("one block", PLAIN),
        ("two tokens, f16", Case { kept: Kept::F16, positions: &[3, 4], ..PLAIN }),
        ("int8", Case { kept: Kept::Q8, dim: 128, ..PLAIN }),
        ("heads of their own", Case { kv_heads: 4, ..PLAIN }),
        ("six heads a key", Case { heads: 12, kv_heads: 2, positions: &[33], ..PLAIN }),
        ("softcap", Case { softcap: Some(2.0), ..PLAIN }),
        ("sinks", Case { sinks: true, positions: &[0, 30], ..PLAIN }),
        ("a window", Case { window: Some(20), ..PLAIN }),
        ("a ring", Case { window: Some(30), slots: 33, positions: &[98, 99, 100], kept: Kept::Q8, ..PLAIN }),
        ("small heads", Case { dim: 16, ..PLAIN }),
        ("odd heads", Case { dim: 80, heads: 2, ..PLAIN }),
        ("256", Case { dim: 256, heads: 2, kept: Kept::F16, ..PLAIN }),
        ("512", Case { dim: 512, heads: 2, kept: Kept::Q8, sinks: true, ..PLAIN }),
        ("512 in f32", Case { dim: 512, heads: 1, positions: &[32], ..PLAIN }),
        ("splits", Case { slots: 600, positions: &[555], heads: 2, sinks: true, ..PLAIN }),
        ("some splits without positions", Case { slots: 600, positions: &[100, 300], heads: 1, ..PLAIN }),
    ];
    for (index, (name, case)) in cases.into_iter().enumerate() {
        let mut device = Interpreter { reverse: index % 2 == 1, ..Interpreter::default() };
        let (made, defined) = run(case, &mut device);
        assert_same(&made, &defined, name);
    }
}

#[test]
fn the_definition_is_attention() {
    // Against f64 softmax over all positions at once.
    let (dim, count) = (64, 500);
    let (q, keys, values) = (bell(5, dim), bell(6, count * dim), bell(7, count * dim));
    let rows = |x: &[f32]| x.chunks(dim).map(<[f32]>::to_vec).collect::<Vec<_>>();
    let (keys, values) = (rows(&keys), rows(&values));
    for (softcap, sink) in [(None, None), (Some(3.0f32), Some(1.5f32))] {
        let scores = define::Scores { scale: 0.2, softcap, sink };
        let ours = define::attention(&q, &keys, &values, 256, scores);
        let score = |key: &Vec<f32>| {
            let product: f64 = q.iter().zip(key).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let scaled = 0.2 * product;
            softcap.map_or(scaled, |cap| f64::from(cap) * (scaled / f64::from(cap)).tanh()).exp()
        };
        let weights: Vec<f64> = keys.iter().map(score).collect();
        let total = weights.iter().sum::<f64>() + sink.map_or(0.0, |sink| f64::from(sink).exp());
        for (at, ours) in ours.iter().enumerate() {
            let exact: f64 = weights.iter().zip(&values).map(|(w, v)| w * f64::from(v[at])).sum();
            assert!((f64::from(*ours) - exact / total).abs() < 2e-6, "{at}: {ours} for {}", exact / total);
        }
    }
}
