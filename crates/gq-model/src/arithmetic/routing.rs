//! Which experts a token takes, and with what factors.

use super::softmax;
use crate::linear::Linear;
use crate::matrix::Matrix;
use crate::ops::Router;
use gq_checkpoint::{ExpertGroups, RouterSpec, Scoring};
use gq_tensor::math;

/// Added to the sum of the chosen weights before they are divided by it, as the references do.
const TINY: f32 = 1e-20;

/// An expert chosen for a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Its number.
    pub expert: usize,
    /// What its outputs are multiplied by.
    pub factor: f32,
}

/// The experts of every token, as many each, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routes {
    /// Tokens.
    pub tokens: usize,
    /// Token after token: `[tokens, top_k]`. Their places are the rows of values by expert.
    pub choices: Vec<Choice>,
}

impl Routes {
    /// By `scores [tokens, experts]`.
    pub fn new(scores: &Matrix, router: &Router) -> Routes {
        let rows = scores.data.chunks_exact(scores.width.max(1));
        let choices = rows.flat_map(|row| choose(&mut row.to_vec(), router)).collect();
        Routes { tokens: scores.rows(), choices }
    }

    /// Rows of values by expert that one row of `x` stands for: of an input by token, or by expert already.
    fn per_row(&self, x: &Matrix) -> usize {
        (self.choices.len() / x.rows().max(1)).max(1)
    }

    /// The row of `x` for one place.
    pub fn row<'x>(&self, x: &'x Matrix, place: usize) -> &'x [f32] {
        let row = place / self.per_row(x);
        &x.data[row * x.width..(row + 1) * x.width]
    }

    /// Where that row begins.
    pub fn start(&self, x: &Matrix, place: usize) -> usize {
        place / self.per_row(x) * x.width
    }

    /// Chosen experts in order, each with its places.
    pub fn by_expert(&self) -> Vec<(usize, Vec<usize>)> {
        let mut places: Vec<usize> = (0..self.choices.len()).collect();
        places.sort_by_key(|&place| self.choices[place].expert);
        let groups = places.chunk_by(|&a, &b| self.choices[a].expert == self.choices[b].expert);
        groups.map(|group| (self.choices[group[0]].expert, group.to_vec())).collect()
    }

    /// The rows of `x` for these places.
    pub fn gather(&self, x: &Matrix, places: &[usize]) -> Matrix {
        let rows = places.iter().flat_map(|&place| self.row(x, place));
        Matrix { width: x.width, data: rows.copied().collect() }
    }

    /// Adds to each row the bias of its expert, where there are biases.
    pub(crate) fn add_biases(&self, weight: &Linear, out: &mut Matrix) {
        let Some(bias) = weight.bias() else { return };
        for (row, choice) in out.data.chunks_exact_mut(weight.shape.rows_each()).zip(&self.choices) {
            let bias = &bias[choice.expert * weight.shape.rows_each()..][..weight.shape.rows_each()];
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }

    /// The sum of a token's rows times their factors, in the order of experts.
    pub fn combine(&self, x: &Matrix) -> Matrix {
        let mut sum = Matrix::zeros(self.tokens, x.width);
        let per_token = self.choices.len() / self.tokens.max(1);
        let tokens = self.choices.chunks_exact(per_token.max(1));
        let rows = x.data.chunks_exact((per_token * x.width).max(1));
        for ((choices, rows), sum) in tokens.zip(rows).zip(sum.data.chunks_exact_mut(x.width.max(1))) {
            for (choice, row) in choices.iter().zip(rows.chunks_exact(x.width)) {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x * choice.factor);
            }
        }
        sum
    }
}

/// Puts the rows of `part` to these places.
pub(crate) fn scatter(part: &Matrix, places: &[usize], out: &mut Matrix) {
    for (row, &place) in part.data.chunks_exact(part.width.max(1)).zip(places) {
        out.data[place * part.width..(place + 1) * part.width].copy_from_slice(row);
    }
}

/// A token's experts in their order; `scores` become weights.
fn choose(scores: &mut [f32], router: &Router) -> Vec<Choice> {
    let RouterSpec { renormalize, scale, .. } = router.spec;
    weigh(scores, router.spec.scoring);
    let order = best(scores, router);
    let mut weights: Vec<f32> = order.iter().map(|&expert| scores[expert]).collect();
    if router.spec.scoring == Scoring::SoftmaxOfChosen {
        softmax(&mut weights);
    }
    let sum: f32 = weights.iter().sum();
    let mut choices: Vec<Choice> = order
        .into_iter()
        .zip(weights)
        .map(|(expert, weight)| {
            let share = if renormalize { weight / (sum + TINY) } else { weight };
            let own = router.scales.as_ref().map_or(1.0, |scales| scales[expert]);
            Choice { expert, factor: share * own * scale }
        })
        .collect();
    choices.sort_by_key(|choice| choice.expert);
    choices
}

/// What scores are before experts are chosen.
pub fn weigh(scores: &mut [f32], scoring: Scoring) {
    match scoring {
        Scoring::Softmax => softmax(scores),
        Scoring::Sigmoid => scores.iter_mut().for_each(|score| *score = math::sigmoid(*score)),
        Scoring::SoftmaxOfChosen => {}
    }
}

/// The chosen experts, the best first, of equals the first.
fn best(weights: &[f32], router: &Router) -> Vec<usize> {
    let mut ranks = weights.to_vec();
    if let Some(bias) = &router.selection_bias {
        ranks.iter_mut().zip(bias).for_each(|(rank, bias)| *rank += bias);
    }
    if let Some(groups) = router.spec.groups {
        close(&mut ranks, groups);
    }
    let mut order = descending(&ranks);
    order.truncate(router.spec.top_k);
    order
}

/// Makes those of groups that are not open the last.
fn close(ranks: &mut [f32], groups: ExpertGroups) {
    let size = (ranks.len() / groups.count.max(1)).max(1);
    let goodness = ranks.chunks(size).map(|group| {
        let order = descending(group);
        order.iter().take(groups.best).map(|&expert| group[expert]).sum::<f32>()
    });
    let order = descending(&goodness.collect::<Vec<_>>());
    for &group in order.iter().skip(groups.kept) {
        ranks.iter_mut().skip(group * size).take(size).for_each(|rank| *rank = f32::NEG_INFINITY);
    }
}

fn descending(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}
