//! Gradients of the operators of experts: expert after expert, each over the tokens that chose it.

use super::Place;
use gq_checkpoint::Scoring;
use gq_model::arithmetic::stored::back;
use gq_model::arithmetic::{Routes, softmax, weigh};
use gq_model::{Linear, Matrix, Router};
use gq_tensor::Isa;

/// By the inputs of a grouped product; `seen` gets the gradient at each expert's outputs.
pub(super) fn grouped(
    level: Isa,
    x: &Matrix,
    routes: &Routes,
    weight: &Linear,
    dy: &Matrix,
    seen: &mut dyn FnMut(&Linear, Place, &Matrix),
) -> Matrix {
    let mut dx = Matrix::zeros(x.rows(), x.width);
    for (expert, places) in routes.by_expert() {
        let part = routes.gather(dy, &places);
        seen(weight, Place::Expert(expert), &part);
        let mut by_input = Matrix::zeros(places.len(), x.width);
        let rows_per_matrix = weight.shape().rows_each();
        let first = expert * rows_per_matrix;
        back(level, weight, first..first + rows_per_matrix, &part, &mut by_input);
        for (row, &place) in by_input.data.chunks_exact(x.width).zip(&places) {
            let dx = &mut dx.data[routes.start(x, place)..][..x.width];
            dx.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    }
    dx
}

/// By the rows that were combined, and by their factors, `[tokens, top_k]`.
pub(super) fn combine(x: &Matrix, routes: &Routes, dy: &Matrix) -> (Matrix, Matrix) {
    let mut dx = Matrix { width: x.width, data: Vec::with_capacity(x.data.len()) };
    let per_token = routes.choices.len() / routes.tokens.max(1);
    let mut by_factor = Matrix { width: per_token, data: Vec::with_capacity(routes.choices.len()) };
    for (place, (choice, x)) in routes.choices.iter().zip(x.data.chunks_exact(x.width)).enumerate() {
        let dy = routes.row(dy, place);
        let dot: f64 = dy.iter().zip(x).map(|(&d, &y)| f64::from(d) * f64::from(y)).sum();
        by_factor.data.push(dot as f32);
        dx.data.extend(dy.iter().map(|d| d * choice.factor));
    }
    (dx, by_factor)
}

/// By scores `[tokens, experts]`, from the gradient by the factors of the chosen experts: through renormalization,
/// choice and what scores become. The choice itself has no slope.
pub(super) fn route(scores: &Matrix, routes: &Routes, router: &Router, by_factor: &Matrix) -> Matrix {
    let mut by_score = scores.clone();
    let per_token = by_factor.width.max(1);
    let chosen = routes.choices.chunks_exact(per_token).zip(by_factor.data.chunks_exact(per_token));
    for (row, (choices, by_factor)) in by_score.data.chunks_exact_mut(scores.width).zip(chosen) {
        let experts: Vec<usize> = choices.iter().map(|choice| choice.expert).collect();
        back_scores(row, &experts, by_factor, router);
    }
    by_score
}

/// Replaces a token's scores by the gradient.
fn back_scores(scores: &mut [f32], experts: &[usize], by_factor: &[f32], router: &Router) {
    weigh(scores, router.spec.scoring);
    if router.spec.scoring == Scoring::SoftmaxOfChosen {
        let mut chosen: Vec<f32> = experts.iter().map(|&expert| scores[expert]).collect();
        softmax(&mut chosen);
        scores.fill(0.0);
        experts.iter().zip(chosen).for_each(|(&expert, weight)| scores[expert] = weight);
    }
    let own = |expert: usize| router.scales.as_ref().map_or(1.0, |scales| f64::from(scales[expert]));
    let by_share = |place: usize, expert: usize| {
        f64::from(by_factor[place]) * own(expert) * f64::from(router.spec.scale)
    };
    let by_share: Vec<f64> =
        experts.iter().enumerate().map(|(place, &expert)| by_share(place, expert)).collect();
    let by_weight: Vec<f64> = match router.spec.renormalize {
        true => {
            let chosen: f64 = experts.iter().map(|&expert| f64::from(scores[expert])).sum();
            let share = |expert: usize| f64::from(scores[expert]) / chosen;
            let mean: f64 = experts.iter().zip(&by_share).map(|(&expert, d)| d * share(expert)).sum();
            by_share.iter().map(|d| (d - mean) / chosen).collect()
        }
        false => by_share,
    };
    let mut by_all = vec![0.0f64; scores.len()];
    experts.iter().zip(&by_weight).for_each(|(&expert, &d)| by_all[expert] = d);
    match router.spec.scoring {
        Scoring::Softmax | Scoring::SoftmaxOfChosen => {
            let total: f64 =
                experts.iter().zip(&by_weight).map(|(&expert, d)| d * f64::from(scores[expert])).sum();
            for (score, d) in scores.iter_mut().zip(by_all) {
                *score = (f64::from(*score) * (d - total)) as f32;
            }
        }
        Scoring::Sigmoid => {
            for (score, d) in scores.iter_mut().zip(by_all) {
                let weight = f64::from(*score);
                *score = (d * weight * (1.0 - weight)) as f32;
            }
        }
    }
}
