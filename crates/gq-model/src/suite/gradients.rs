//! Gradients that the tape gives against differences of the definition in f64.

use super::backends::{run_wide, wide};
use super::cases::{CASES, Case, ROPE};
use super::levels;
use super::weights::numbers;
use crate::cpu::Turns;
use crate::fixed::{Fixed, Gradients, Wide, WideOps};
use crate::matrix::Matrix;
use gq_tensor::Isa;

/// What a gradient may differ from a difference by, over its size: f32 has 6e-8 of a number, sums are short.
const TOLERANCE: f64 = 2e-5;
const STEP: f64 = 1e-6;

/// By every input of a case: of a random functional of all results.
fn gradients(level: Isa, case: &Case, inputs: &[Wide]) -> Vec<Matrix> {
    let turns = [Turns::new(&ROPE, 0, case.tokens(inputs))];
    let mut ops = Fixed::new(level, &turns);
    ops.tape = Some(Default::default());
    let leaves: Vec<_> = inputs.iter().map(|x| ops.leaf(super::backends::narrow(x))).collect();
    let results = case.run(&mut ops, leaves.clone());
    let mut gradients = Gradients::default();
    for (result, seed) in results.iter().zip(100..) {
        let (width, data) = (result.matrix.width, numbers(result.matrix.data.len(), seed));
        gradients.add(result.id, Matrix { width, data });
    }
    ops.backward(&mut gradients, &mut |_, _, _| ());
    let zeros = |x: &Wide| Matrix::zeros(x.rows().count(), x.width);
    leaves.iter().zip(inputs).map(|(leaf, x)| gradients.take(leaf.id).unwrap_or(zeros(x))).collect()
}

fn functional(results: &[Wide]) -> f64 {
    let weighed = results.iter().zip(100..).map(|(result, seed)| {
        let weights = numbers(result.data.len(), seed);
        result.data.iter().zip(weights).map(|(x, w)| x * f64::from(w)).sum::<f64>()
    });
    weighed.sum()
}

#[test]
fn every_operator_has_the_slope_of_its_definition() {
    for (level, case) in levels().into_iter().flat_map(|level| CASES.iter().map(move |case| (level, case))) {
        if matches!(case, Case::Embed) {
            continue; // Of tokens: a gradient at the rows alone, tested with whole models.
        }
        let inputs = case.inputs(9);
        let by = gradients(level, case, &inputs);
        for (at, by) in by.iter().enumerate() {
            let direction = numbers(by.data.len(), 200);
            let moved = |step: f64| {
                let mut inputs = inputs.clone();
                inputs[at].data.iter_mut().zip(&direction).for_each(|(x, &d)| *x += step * f64::from(d));
                functional(&run_wide(case, &inputs))
            };
            let difference = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let dot: f64 = by.data.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
            let size = wide(by).data.iter().map(|x| x * x).sum::<f64>().sqrt();
            let error = (dot - difference).abs();
            assert!(
                error <= TOLERANCE * size.max(1e-3),
                "{case:?} by input {at} on {}: {dot} {difference}",
                level.name()
            );
        }
    }
}

/// Where a limit cuts, nothing moves.
#[test]
fn slopes_are_zero_beyond_a_limit() {
    let activation = gq_checkpoint::Activation {
        curve: gq_checkpoint::Curve::Swish { alpha: 1.702 },
        limit: Some(0.5),
        up_offset: 1.0,
    };
    let case = Case::Gated(activation);
    let of = |gate: f64, up: f64| {
        let inputs = [gate, up].map(|x| Wide { width: 1, data: vec![x] });
        let by = gradients(Isa::Scalar, &case, &inputs);
        (by[0].data[0] != 0.0, by[1].data[0] != 0.0)
    };
    assert_eq!(of(0.4, 0.3), (true, true));
    assert_eq!(of(0.6, 0.3), (false, true));
    assert_eq!(of(0.4, 0.6), (true, false));
    assert_eq!(of(-9.0, -0.6), (true, false));
}

/// Routers of the references, with their biases and groups.
#[test]
fn routers_have_the_slope_of_their_definition() {
    for case in &super::references::FILE.routers {
        let router = case.router();
        let scores = Wide {
            width: case.rows[0].scores.len(),
            data: case.rows.iter().flat_map(|row| row.scores.clone()).collect(),
        };
        let places = case.rows.len() * router.spec.top_k;
        let rows = Wide { width: 5, data: numbers(places * 5, 9).into_iter().map(f64::from).collect() };
        let given = numbers(case.rows.len() * 5, 10);
        let mut ops = Fixed::new(Isa::detect(), &[]);
        ops.tape = Some(Default::default());
        let leaf = ops.leaf(super::backends::narrow(&scores));
        let routes = crate::ops::Ops::route(&mut ops, &leaf, &router);
        let x = ops.leaf(super::backends::narrow(&rows));
        let y = crate::ops::Ops::combine(&mut ops, x, &routes);
        let mut gradients = Gradients::default();
        gradients.add(y.id, Matrix { width: 5, data: given.clone() });
        ops.backward(&mut gradients, &mut |_, _, _| ());
        let by = gradients.take(leaf.id).unwrap();
        let direction = numbers(by.data.len(), 11);
        let at = |step: f64| -> f64 {
            let mut scores = scores.clone();
            scores.data.iter_mut().zip(&direction).for_each(|(x, &d)| *x += step * f64::from(d));
            let mut ops = WideOps::default();
            let routes = crate::ops::Ops::route(&mut ops, &scores, &router);
            let y = crate::ops::Ops::combine(&mut ops, rows.clone(), &routes);
            y.data.iter().zip(&given).map(|(y, &g)| y * f64::from(g)).sum()
        };
        let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let dot: f64 = by.data.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
        let size = wide(&by).data.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((dot - difference).abs() <= TOLERANCE * size, "{}: {dot} {difference}", case.name);
    }
}
