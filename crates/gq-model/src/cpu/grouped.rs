//! Products with the matrices of chosen experts alone.

use super::ActivationMode;
use super::products::{Basis, Job, input, inputs, multiply_rows, run};
use crate::arithmetic::{Routes, scatter};
use crate::linear::Linear;
use crate::matrix::Matrix;
use gq_tensor::Isa;

/// `x W_e^T + bias_e` for each token's experts e: `[tokens, cols]` or `[places, cols]` to `[places, rows]`.
pub(super) fn grouped(
    level: Isa,
    mode: ActivationMode,
    x: &Matrix,
    routes: &Routes,
    weight: &Linear,
) -> Matrix {
    let mut out = match routes.tokens {
        1 => one_token(level, mode, x, routes, weight),
        _ => many_tokens(level, mode, x, routes, weight),
    };
    routes.add_biases(weight, &mut out);
    out
}

/// All experts in one parallel region.
fn one_token(level: Isa, mode: ActivationMode, x: &Matrix, routes: &Routes, weight: &Linear) -> Matrix {
    let (basis, rows_per_matrix) = (Basis::of(weight, mode), weight.shape.rows_each());
    let inputs: Vec<_> = x.data.chunks_exact(x.width).map(|row| input(level, basis, weight, row)).collect();
    let mut out = Matrix::zeros(routes.choices.len(), rows_per_matrix);
    let jobs = routes.choices.iter().zip(out.data.chunks_exact_mut(rows_per_matrix)).enumerate();
    let jobs = jobs.map(|(place, (choice, out))| {
        let first = choice.expert * rows_per_matrix;
        let input = &inputs[routes.start(x, place) / x.width];
        Job { weight, rows: first..first + rows_per_matrix, input, out }
    });
    run(level, jobs.collect());
    out
}

/// Expert after expert, each over the tokens that chose it.
fn many_tokens(level: Isa, mode: ActivationMode, x: &Matrix, routes: &Routes, weight: &Linear) -> Matrix {
    let rows_per_matrix = weight.shape.rows_each();
    let prepared = inputs(level, Basis::of(weight, mode), weight, x);
    let mut out = Matrix::zeros(routes.choices.len(), rows_per_matrix);
    for (expert, places) in routes.by_expert() {
        let some = routes.gather(&prepared, &places);
        let mut part = Matrix::zeros(places.len(), rows_per_matrix);
        let first = expert * rows_per_matrix;
        multiply_rows(level, weight, first..first + rows_per_matrix, &some, &mut part);
        scatter(&part, &places, &mut out);
    }
    out
}
