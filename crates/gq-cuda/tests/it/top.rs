//! The largest logits.

use super::bell;
use crate::device::Interpreter;
use gq_cuda::TopLogits;

#[test]
fn the_largest_in_order() {
    // One piece; two, of which the last is short; more than one pass behind the first.
    for (rows, count, keep) in [(2, 300, 40), (1, 5000, 64), (1, 70_000, 250)] {
        let mut device = Interpreter::default();
        let mut logits = bell(count as u32, rows * count);
        // Equal ones, zeros of both signs, and what is not finite.
        (logits[10], logits[200], logits[7], logits[8]) = (9.0, 9.0, f32::INFINITY, f32::NEG_INFINITY);
        (logits[20], logits[21]) = (0.0, -0.0);
        let span = device.upload_f32(&logits);
        let scratch = TopLogits::scratch_bytes(rows, count, keep) as usize;
        let scratch = [device.allocate(scratch), device.allocate(scratch)];
        let (values, ids) = (device.allocate(4 * rows * keep), device.allocate(4 * rows * keep));
        let top = TopLogits { logits: span, scratch, values, ids, rows, count, keep };
        for launch in top.launches().unwrap() {
            device.run(Ok(launch));
        }
        let mut defined = Vec::new();
        for row in logits.chunks(count) {
            let mut order: Vec<usize> = (0..count).collect();
            order.sort_by(|a, b| row[*b].total_cmp(&row[*a]).then(a.cmp(b)));
            defined.extend(order[..keep].iter().map(|id| (row[*id].to_bits(), *id as u32)));
        }
        let made_ids = device.read_f32(ids);
        let made = device.read_f32(values).into_iter().zip(made_ids);
        let made: Vec<(u32, u32)> = made.map(|(value, id)| (value.to_bits(), id.to_bits())).collect();
        assert_eq!(made, defined, "{keep} of {count}");
    }
}
