//! The suite of operators on the deterministic backend, and gradients that its tape gives against differences of the
//! definition in f64.

use crate::deterministic::{Deterministic, Gradients, Value};
use crate::pass::rope_tables;
use gq_model::arithmetic::RopeTable;
use gq_model::{Matrix, Model, Ops};
use gq_suite::{
    Backend, CASES, Case, MatrixF64, Question, ROPE, ReferenceF64, Subject, levels, logits_on, numbers, on,
    run_wide,
};
use gq_tensor::Isa;

/// The backend, for one whole sequence.
#[derive(Clone, Copy, Debug)]
struct Recorded;

impl Backend for Deterministic<'_> {
    fn value(&mut self, x: &MatrixF64) -> Value {
        self.leaf(x.narrow())
    }

    fn numbers(&mut self, x: &Value) -> MatrixF64 {
        (&*x.matrix).into()
    }
}

impl Subject for Recorded {
    fn run(self, level: Isa, case: &Case, inputs: &[MatrixF64]) -> Vec<MatrixF64> {
        let ropes = [RopeTable::new(&ROPE, case.tokens(inputs), 0, case.tokens(inputs))];
        on(&mut Deterministic::new(level, &ropes), case, inputs)
    }

    fn logits(self, level: Isa, model: &Model, tokens: &[u32]) -> Vec<f64> {
        let ropes = rope_tables(model, tokens.len());
        logits_on(&mut Deterministic::new(level, &ropes), model, tokens)
    }

    fn answer(self, level: Isa, question: &Question<'_>) -> Vec<MatrixF64> {
        question.ask(&mut Deterministic::new(level, &[]))
    }
}

gq_suite::suite! {
    recorded: Recorded;
}

/// What a gradient may differ from a difference by, over its size: f32 has 6e-8 of a number, sums are short.
const TOLERANCE: f64 = 2e-5;
const STEP: f64 = 1e-6;

/// By every input of a case: of a random functional of all results.
fn gradients(level: Isa, case: &Case, inputs: &[MatrixF64]) -> Vec<Matrix> {
    let ropes = [RopeTable::new(&ROPE, case.tokens(inputs), 0, case.tokens(inputs))];
    let mut ops = Deterministic::new(level, &ropes);
    ops.tape = Some(Default::default());
    let leaves: Vec<_> = inputs.iter().map(|x| ops.leaf(x.narrow())).collect();
    let results = case.run(&mut ops, leaves.clone());
    let mut gradients = Gradients::default();
    for (result, seed) in results.iter().zip(100..) {
        let (width, data) = (result.matrix.width, numbers(result.matrix.data.len(), seed));
        gradients.add(result.id, Matrix { width, data });
    }
    ops.backward(&mut gradients, &mut |_, _, _| ());
    let zeros = |x: &MatrixF64| Matrix::zeros(x.rows().count(), x.width);
    leaves.iter().zip(inputs).map(|(leaf, x)| gradients.take(leaf.id).unwrap_or(zeros(x))).collect()
}

fn functional(results: &[MatrixF64]) -> f64 {
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
            let size = MatrixF64::from(by).data.iter().map(|x| x * x).sum::<f64>().sqrt();
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
        let inputs = [gate, up].map(|x| MatrixF64 { width: 1, data: vec![x] });
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
    for case in &gq_suite::FILE.routers {
        let router = case.router();
        let scores = MatrixF64 {
            width: case.rows[0].scores.len(),
            data: case.rows.iter().flat_map(|row| row.scores.clone()).collect(),
        };
        let places = case.rows.len() * router.spec.top_k;
        let rows = MatrixF64 { width: 5, data: numbers(places * 5, 9).into_iter().map(f64::from).collect() };
        let given = numbers(case.rows.len() * 5, 10);
        let mut ops = Deterministic::new(Isa::detect(), &[]);
        ops.tape = Some(Default::default());
        let leaf = ops.leaf(scores.narrow());
        let routes = ops.route(&leaf, &router);
        let x = ops.leaf(rows.narrow());
        let y = ops.combine(x, &routes);
        let mut gradients = Gradients::default();
        gradients.add(y.id, Matrix { width: 5, data: given.clone() });
        ops.backward(&mut gradients, &mut |_, _, _| ());
        let by = gradients.take(leaf.id).unwrap();
        let direction = numbers(by.data.len(), 11);
        let at = |step: f64| -> f64 {
            let mut scores = scores.clone();
            scores.data.iter_mut().zip(&direction).for_each(|(x, &d)| *x += step * f64::from(d));
            let mut ops = ReferenceF64::default();
            let routes = ops.route(&scores, &router);
            let y = ops.combine(rows.clone(), &routes);
            y.data.iter().zip(&given).map(|(y, &g)| y * f64::from(g)).sum()
        };
        let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let dot: f64 = by.data.iter().zip(&direction).map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
        let size = MatrixF64::from(&by).data.iter().map(|x| x * x).sum::<f64>().sqrt();
        assert!((dot - difference).abs() <= TOLERANCE * size, "{}: {dot} {difference}", case.name);
    }
}
