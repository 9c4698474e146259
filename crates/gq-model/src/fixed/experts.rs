//! Mixture of experts, forward and backward: expert after expert, each over the tokens that chose it.

use super::product::{back, rows};
use super::{Observation, Observer, Place};
use crate::eager::{Choice, Matrix, choose, elementwise, softmax};
use crate::ops::Experts;
use gq_tensor::Isa;

/// The tokens of one expert.
struct Group {
    /// Token and the factor on its output.
    tokens: Vec<(usize, f32)>,
    /// Their inputs, `[tokens, hidden]`.
    input: Matrix,
    /// `[tokens, 2 * width]`: gate and up.
    projected: Matrix,
    /// `activation(gate) * up`, `[tokens, width]`.
    hidden: Matrix,
    /// Before the factor, `[tokens, hidden]`.
    output: Matrix,
}

pub(super) fn experts(
    level: Isa,
    x: &Matrix,
    scores: &Matrix,
    experts: &Experts,
    sequence: usize,
    observer: &mut Option<Observer<'_>>,
) -> Matrix {
    let mut sum = Matrix { width: x.width, data: vec![0.0; x.data.len()] };
    let choices = choices(scores, experts);
    for expert in 0..experts.scales.len() {
        let Some(group) = Group::new(level, expert, x, &choices, experts) else { continue };
        if let Some(observer) = observer {
            let expert = Some(expert);
            observer(Observation {
                sequence,
                weights: &[&experts.gate_up],
                expert,
                input: &group.input,
                sizes: None,
            });
            observer(Observation {
                sequence,
                weights: &[&experts.down],
                expert,
                input: &group.hidden,
                sizes: None,
            });
        }
        for ((token, factor), output) in group.tokens.iter().zip(group.output.data.chunks_exact(x.width)) {
            let sum = &mut sum.data[token * x.width..][..x.width];
            sum.iter_mut().zip(output).for_each(|(sum, x)| *sum += x * factor);
        }
    }
    sum
}

/// Gradients by `x` and by `scores`; `seen` gets the gradient at each expert's products.
pub(super) fn backward(
    level: Isa,
    x: &Matrix,
    scores: &Matrix,
    experts: &Experts,
    dy: &Matrix,
    seen: &mut dyn FnMut(&crate::Linear, Place, &Matrix),
) -> (Matrix, Matrix) {
    let mut dx = Matrix { width: x.width, data: vec![0.0; x.data.len()] };
    let choices = choices(scores, experts);
    let mut by_factor = vec![0.0f32; scores.data.len()]; // gradient by each chosen factor
    for expert in 0..experts.scales.len() {
        let Some(group) = Group::new(level, expert, x, &choices, experts) else { continue };
        let mut out = Matrix { width: x.width, data: Vec::with_capacity(group.output.data.len()) };
        for ((token, factor), output) in group.tokens.iter().zip(group.output.data.chunks_exact(x.width)) {
            let dy = &dy.data[token * x.width..][..x.width];
            let dot: f64 = dy.iter().zip(output).map(|(&d, &y)| f64::from(d) * f64::from(y)).sum();
            by_factor[token * scores.width + expert] = dot as f32;
            out.data.extend(dy.iter().map(|d| d * factor));
        }
        seen(&experts.down, Place::Expert(expert), &out);
        let mut hidden = Matrix { width: experts.width, data: vec![0.0; group.hidden.data.len()] };
        let first = expert * x.width;
        back(level, &experts.down, first..first + x.width, &out, &mut hidden);
        let mut projected = group.projected.clone();
        for (row, dh) in
            projected.data.chunks_exact_mut(2 * experts.width).zip(hidden.data.chunks(experts.width))
        {
            let (gates, ups) = row.split_at_mut(experts.width);
            for ((gate, up), &dh) in gates.iter_mut().zip(ups).zip(dh) {
                let (value, slope) = crate::math::value_and_slope(experts.activation, *gate);
                (*gate, *up) = (dh * *up * slope, dh * value);
            }
        }
        seen(&experts.gate_up, Place::Expert(expert), &projected);
        let mut input = Matrix { width: x.width, data: vec![0.0; group.input.data.len()] };
        let first = expert * 2 * experts.width;
        back(level, &experts.gate_up, first..first + 2 * experts.width, &projected, &mut input);
        for ((token, _), input) in group.tokens.iter().zip(input.data.chunks_exact(x.width)) {
            let dx = &mut dx.data[token * x.width..][..x.width];
            dx.iter_mut().zip(input).for_each(|(sum, x)| *sum += x);
        }
    }
    let mut by_score = scores.clone();
    for ((row, choices), by_factor) in
        by_score.data.chunks_exact_mut(scores.width).zip(&choices).zip(by_factor.chunks_exact(scores.width))
    {
        router(row, choices, by_factor, experts);
    }
    (dx, by_score)
}

/// Replaces scores by the gradient through softmax, choice and renormalization.
fn router(scores: &mut [f32], choices: &[Choice], by_factor: &[f32], experts: &Experts) {
    softmax(scores);
    let chosen: f64 = choices.iter().map(|choice| f64::from(scores[choice.expert])).sum();
    let by_share =
        |choice: &Choice| f64::from(by_factor[choice.expert]) * f64::from(experts.scales[choice.expert]);
    let share = |choice: &Choice| f64::from(scores[choice.expert]) / chosen;
    let mean: f64 = choices.iter().map(|choice| by_share(choice) * share(choice)).sum();
    let by_probability: Vec<(usize, f64)> =
        choices.iter().map(|choice| (choice.expert, (by_share(choice) - mean) / chosen)).collect();
    let total: f64 = by_probability.iter().map(|&(expert, d)| d * f64::from(scores[expert])).sum();
    let mut by_all = vec![0.0f64; scores.len()];
    by_probability.iter().for_each(|&(expert, d)| by_all[expert] = d);
    for (score, d) in scores.iter_mut().zip(by_all) {
        *score = (f64::from(*score) * (d - total)) as f32;
    }
}

fn choices(scores: &Matrix, experts: &Experts) -> Vec<Vec<Choice>> {
    let mut scores = scores.clone();
    scores.data.chunks_exact_mut(scores.width).map(|row| choose(row, experts)).collect()
}

impl Group {
    fn new(
        level: Isa,
        expert: usize,
        x: &Matrix,
        choices: &[Vec<Choice>],
        experts: &Experts,
    ) -> Option<Group> {
        let of_expert =
            |choices: &Vec<Choice>| choices.iter().find(|choice| choice.expert == expert).copied();
        let tokens: Vec<(usize, f32)> = choices
            .iter()
            .map(of_expert)
            .enumerate()
            .filter_map(|(token, choice)| Some((token, choice?.factor)))
            .collect();
        if tokens.is_empty() {
            return None;
        }
        let data = tokens.iter().flat_map(|(token, _)| &x.data[token * x.width..][..x.width]);
        let input = Matrix { width: x.width, data: data.copied().collect() };
        let first = expert * 2 * experts.width;
        let projected = rows(level, &experts.gate_up, first..first + 2 * experts.width, &input);
        let half = |first: usize| {
            let parts = projected.data.chunks_exact(2 * experts.width);
            let parts = parts.flat_map(|row| &row[first..first + experts.width]);
            Matrix { width: experts.width, data: parts.copied().collect() }
        };
        let hidden = elementwise::gated(experts.activation, half(0), &half(experts.width));
        let first = expert * x.width;
        let output = rows(level, &experts.down, first..first + x.width, &hidden);
        Some(Group { tokens, input, projected, hidden, output })
    }
}
