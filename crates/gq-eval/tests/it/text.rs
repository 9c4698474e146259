//! Windows of text: which logits are scored against which token.

use crate::fixtures::Made;
use gq_eval::{EvalError, EvalReport, ReferenceRun, Sizes, TextOptions, Windows, compare_on_text};

/// Certain of the token it is given a rule for.
fn certain(next: fn(usize, u32) -> u32) -> Made<impl Fn(usize, u32, usize) -> f32> {
    Made::new(100, move |position, token, entry| match entry as u32 == next(position, token) {
        true => 50.0,
        false => 0.0,
    })
}

fn run(
    windows: &Windows,
    model: fn(usize, u32) -> u32,
    progress: &mut dyn FnMut(usize, usize),
) -> EvalReport {
    let (mut model, mut reference) = (certain(model), certain(|_, token| token + 1));
    let reference = ReferenceRun { logits: &mut reference, again: None };
    compare_on_text(&mut model, reference, windows, Sizes::default(), TextOptions::default(), progress)
        .unwrap()
}

#[test]
fn the_second_half_predicts_the_token_after_it() {
    // 0 1 2 … 79 in windows of 16: a model that counts is always right, at any position.
    let tokens: Vec<u32> = (0..80).collect();
    let windows = Windows::new(&tokens, 16, None, None).unwrap();
    let mut steps = Vec::new();
    let report = run(&windows, |_, token| token + 1, &mut |done, of| steps.push((done, of)));
    assert_eq!((report.windows, report.tokens, report.targets), (5, 35, 35));
    assert_eq!((report.scored.ctx, report.scored.begin, report.scored.end), (16, 8, 15));
    assert!(report.ppl.unwrap().model < 1.0 + 1e-9 && report.top1 == 1.0 && report.kld.max == 0.0);
    assert_eq!(steps, [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]);

    // Wrong everywhere but at positions 8 … 14: nothing else is looked at.
    let half = |position, token| if (8..15).contains(&position) { token + 1 } else { 0 };
    assert_eq!(run(&windows, half, &mut |_, _| {}), report);
    // Wrong at position 8 or at 14: seen.
    for wrong in [|p, t| if p == 8 { 0 } else { t + 1 }, |p, t| if p == 14 { 0 } else { t + 1 }] {
        let report = run(&windows, wrong, &mut |_, _| {});
        assert!((report.top1 - 6.0 / 7.0).abs() < 1e-12 && report.kld.max > 10.0);
    }
}

#[test]
fn bos_shifts_the_text_by_one_and_replaces_a_token_per_window() {
    let tokens: Vec<u32> = (10..42).collect();
    let with = Windows::new(&tokens, 8, None, Some(1)).unwrap();
    let without = Windows::new(&tokens, 8, None, None).unwrap();
    assert_eq!((with.windows().len(), without.windows().len()), (4, 4), "33 and 32 tokens");
    assert_eq!(with.windows()[1], [1, 18, 19, 20, 21, 22, 23, 24], "17 is gone");
    assert_eq!(without.windows()[1], [18, 19, 20, 21, 22, 23, 24, 25]);
    assert_eq!(run(&with, |_, token| token + 1, &mut |_, _| {}).tokens, 12);
}

#[test]
fn other_vocabularies_are_refused_before_anything_runs() {
    let windows = Windows::new(&[0; 8], 8, None, None).unwrap();
    let (mut model, mut reference) = (certain(|_, t| t), Made::new(99, |_, _, _| 0.0));
    let reference = ReferenceRun { logits: &mut reference, again: None };
    let (sizes, options) = (Sizes::default(), TextOptions::default());
    let result = compare_on_text(&mut model, reference, &windows, sizes, options, &mut |_, _| {});
    assert!(matches!(result, Err(EvalError::Vocabulary { limit: 99, actual: 100 })));
    assert_eq!(model.tokens_run, 0);
}
