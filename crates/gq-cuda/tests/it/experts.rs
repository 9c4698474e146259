//! Choice of experts.

use super::{assert_same, bell, floats};
use crate::device::Interpreter;
use gq_cuda::{ChooseExperts, MixExperts, Parts, define};

#[test]
fn choices() {
    for (experts, top, count) in [(4, 2, 1), (20, 8, 2), (128, 8, 1), (130, 32, 1), (7, 7, 1)] {
        let tokens = 3;
        let mut device = Interpreter::default();
        let mut scores = bell(experts as u32, count * tokens * experts);
        // Equal scores: the first is chosen.
        (scores[0], scores[3]) = (2.5, 2.5);
        let scales = floats(9, experts);
        let (span, at_scales) = (device.upload_f32(&scores), device.upload_f32(&scales));
        let (ids, factors) = (device.allocate(4 * tokens * top), device.allocate(4 * tokens * top));
        let parts = Parts { span, count };
        device.run(
            ChooseExperts { scores: parts, scales: at_scales, ids, factors, tokens, experts, top }.launch(),
        );
        let joined = define::join_parts(&scores, count);
        let chosen = joined.chunks(experts).flat_map(|row| define::choose_experts(row, top, &scales));
        let (defined_ids, defined): (Vec<u32>, Vec<f32>) = chosen.unzip();
        let made: Vec<u32> = device.read_f32(ids).into_iter().map(f32::to_bits).collect();
        assert_eq!(made, defined_ids, "{top} of {experts}");
        assert_same(&device.read_f32(factors), &defined, &format!("{top} of {experts}"));
    }
}

#[test]
fn scores_that_are_no_numbers_still_choose_experts_that_exist() {
    let (experts, top) = (8, 3);
    let mut device = Interpreter::default();
    let mut scores = bell(1, experts);
    scores[5] = f32::NAN;
    let (span, scales) = (device.upload_f32(&scores), device.upload_f32(&vec![1.0; experts]));
    let (ids, factors) = (device.allocate(4 * top), device.allocate(4 * top));
    device.run(
        ChooseExperts { scores: Parts::one(span), scales, ids, factors, tokens: 1, experts, top }.launch(),
    );
    let made: Vec<u32> = device.read_f32(ids).into_iter().map(f32::to_bits).collect();
    assert_eq!(made, [0, 1, 2]);
    assert!(device.read_f32(factors).iter().all(|factor| factor.is_nan()));
}

#[test]
fn sums() {
    let (tokens, per, width) = (2, 3, 260);
    let mut device = Interpreter::default();
    let (x, factors) = (bell(3, 2 * tokens * per * width), floats(4, tokens * per));
    let (span, at_factors) = (device.upload_f32(&x), device.upload_f32(&factors));
    let y = device.allocate(4 * tokens * width);
    let parts = Parts { span, count: 2 };
    device.run(MixExperts { x: parts, factors: at_factors, y, tokens, per, width }.launch());
    let joined = define::join_parts(&x, 2);
    let rows: Vec<(&[f32], f32)> = joined.chunks(width).zip(factors).collect();
    let defined: Vec<f32> =
        rows.chunks(per).flat_map(|rows| define::mix_experts(rows.iter().copied(), width)).collect();
    assert_same(&device.read_f32(y), &defined, "mixed");
}
