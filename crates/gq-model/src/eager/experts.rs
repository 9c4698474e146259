//! Mixture of experts: only the chosen ones multiply.

use super::attention::softmax;
use super::elementwise::gated;
use super::products::{Basis, Job, input, inputs, multiply_rows, run};
use super::{ActivationMode, Matrix};
use crate::ops::Experts;
use gq_tensor::Isa;

/// An expert chosen for a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) expert: usize,
    pub(crate) factor: f32,
}

pub(super) fn experts(
    level: Isa,
    mode: ActivationMode,
    x: &Matrix,
    scores: &Matrix,
    experts: &Experts,
) -> Matrix {
    let mut scores = scores.clone();
    let choices = scores.data.chunks_exact_mut(scores.width).map(|row| choose(row, experts));
    let choices: Vec<_> = choices.collect();
    match choices.as_slice() {
        [choices] => one_token(level, mode, x, choices, experts),
        choices => many_tokens(level, mode, x, choices, experts),
    }
}

/// The `top_k` largest probabilities, renormalized, times the experts' own factors; of equals the first.
pub(crate) fn choose(scores: &mut [f32], experts: &Experts) -> Vec<Choice> {
    softmax(scores);
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(experts.top_k);
    let sum: f32 = order.iter().map(|&expert| scores[expert]).sum();
    let choice = |expert| Choice { expert, factor: scores[expert] / sum * experts.scales[expert] };
    let mut choices: Vec<_> = order.into_iter().map(choice).collect();
    choices.sort_by_key(|choice| choice.expert);
    choices
}

/// All chosen experts in two parallel regions.
fn one_token(level: Isa, mode: ActivationMode, x: &Matrix, choices: &[Choice], experts: &Experts) -> Matrix {
    let Experts { gate_up, down, width, activation, .. } = experts;
    let shared = input(level, Basis::of(gate_up, mode), gate_up, &x.data);
    let mut hidden = Matrix::zeros(choices.len(), 2 * width);
    let jobs = choices.iter().zip(hidden.data.chunks_exact_mut(2 * width)).map(|(choice, out)| {
        let first = choice.expert * 2 * width;
        Job { weight: gate_up, rows: first..first + 2 * width, input: &shared, out }
    });
    run(level, jobs.collect());

    let hidden = activate(&hidden, *width, *activation);
    let basis = Basis::of(down, mode);
    let inputs = hidden.data.chunks_exact(*width).map(|row| input(level, basis, down, row));
    let inputs: Vec<_> = inputs.collect();
    let mut outputs = Matrix::zeros(choices.len(), x.width);
    let outs = outputs.data.chunks_exact_mut(x.width);
    let jobs = choices.iter().zip(&inputs).zip(outs).map(|((choice, input), out)| {
        let first = choice.expert * x.width;
        Job { weight: down, rows: first..first + x.width, input, out }
    });
    run(level, jobs.collect());

    let mut sum = Matrix::zeros(1, x.width);
    for (choice, output) in choices.iter().zip(outputs.data.chunks_exact(x.width)) {
        add_scaled(&mut sum.data, output, choice.factor);
    }
    sum
}

/// Expert after expert, each over the tokens that chose it.
fn many_tokens(
    level: Isa,
    mode: ActivationMode,
    x: &Matrix,
    choices: &[Vec<Choice>],
    experts: &Experts,
) -> Matrix {
    let Experts { gate_up, down, width, activation, .. } = experts;
    let prepared = inputs(level, Basis::of(gate_up, mode), gate_up, x);
    let mut sum = Matrix::zeros(x.rows(), x.width);
    for expert in 0..experts.scales.len() {
        let of_expert =
            |choices: &Vec<Choice>| choices.iter().find(|choice| choice.expert == expert).copied();
        let chosen = choices.iter().map(of_expert).enumerate();
        let chosen: Vec<_> = chosen.filter_map(|(token, choice)| Some((token, choice?.factor))).collect();
        if chosen.is_empty() {
            continue;
        }
        let rows = chosen.iter().flat_map(|(token, _)| &prepared.data[token * x.width..][..x.width]);
        let some = Matrix { width: x.width, data: rows.copied().collect() };
        let mut hidden = Matrix::zeros(chosen.len(), 2 * width);
        let first = expert * 2 * width;
        multiply_rows(level, gate_up, first..first + 2 * width, &some, &mut hidden);

        let hidden = activate(&hidden, *width, *activation);
        let hidden = inputs(level, Basis::of(down, mode), down, &hidden);
        let mut outputs = Matrix::zeros(chosen.len(), x.width);
        let first = expert * x.width;
        multiply_rows(level, down, first..first + x.width, &hidden, &mut outputs);
        for ((token, factor), output) in chosen.iter().zip(outputs.data.chunks_exact(x.width)) {
            add_scaled(&mut sum.data[token * x.width..][..x.width], output, *factor);
        }
    }
    sum
}

/// `activation(gate) * up` of `[_, 2 * width]` to `[_, width]`.
fn activate(gate_up: &Matrix, width: usize, activation: gq_checkpoint::Activation) -> Matrix {
    let half = |first: usize| {
        let parts = gate_up.data.chunks_exact(2 * width).flat_map(|row| &row[first..first + width]);
        Matrix { width, data: parts.copied().collect() }
    };
    gated(activation, half(0), &half(width))
}

fn add_scaled(sum: &mut [f32], x: &[f32], factor: f32) {
    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x * factor);
}
