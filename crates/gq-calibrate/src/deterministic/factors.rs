//! Factors on the rows of products and on the weights of norms: what can be tuned while codes stay as they are.

use gq_model::{Linear, Matrix, Norm, WeightId};
use std::collections::BTreeMap;

/// By tensor: one factor per row of a weight matrix, or per element of a norm's weight. Tensors without an entry
/// stay as they are.
pub type Factors = BTreeMap<String, Vec<f32>>;

/// Gradients of a loss by [`Factors`], summed in f64 in the order of tokens.
pub type FactorGradients = BTreeMap<String, Vec<f64>>;

/// `sum += more`.
pub(crate) fn add_gradients(sum: &mut FactorGradients, more: FactorGradients) {
    for (name, gradient) in more {
        add(sum, &name, gradient.into_iter());
    }
}

/// `plain * factors + bias`, column by column of `[tokens, rows]`.
pub(super) fn scaled(plain: &Matrix, factors: &[f32], bias: Option<&[f32]>) -> Matrix {
    let mut y = plain.clone();
    for row in y.data.chunks_exact_mut(plain.width) {
        row.iter_mut().zip(factors).for_each(|(y, factor)| *y *= factor);
        if let Some(bias) = bias {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    y
}

/// The norm with its factors, if it has some.
pub(super) fn scaled_norm(norm: &Norm, factors: &Factors) -> Option<Norm> {
    let factors = factors.get(norm.name.as_deref()?)?;
    let weight = norm.weight.as_ref()?.iter().zip(factors).map(|(weight, factor)| weight * factor);
    Some(Norm { id: WeightId::unique(), weight: Some(weight.collect()), ..norm.clone() })
}

/// Adds the gradient by the factors of a product, and makes `dy` the gradient at its plain outputs.
pub(super) fn back_product(
    sums: &mut FactorGradients,
    weight: &Linear,
    factors: &[f32],
    plain: &Matrix,
    dy: &mut Matrix,
) {
    let mut gradient = vec![0.0f64; factors.len()];
    for (dy, plain) in dy.data.chunks_exact_mut(plain.width).zip(plain.data.chunks_exact(plain.width)) {
        for (((sum, d), &y), &factor) in gradient.iter_mut().zip(dy).zip(plain).zip(factors) {
            *sum += f64::from(*d) * f64::from(y);
            *d *= factor;
        }
    }
    add(sums, weight.name(), gradient.into_iter());
}

/// Adds the gradient by the factors of a norm whose weight has them in it: with `y = x r w f`,
/// `df = sum over rows of dy x r w`.
pub(super) fn back_norm(sums: &mut FactorGradients, norm: &Norm, factors: &Factors, x: &Matrix, dy: &Matrix) {
    let Some(name) = norm.name.as_deref() else { return };
    let (Some(factors), Some(weight)) = (factors.get(name), &norm.weight) else { return };
    let mut gradient = vec![0.0f64; norm.width];
    for (x, dy) in x.data.chunks_exact(norm.width).zip(dy.data.chunks_exact(norm.width)) {
        let square: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
        let r = 1.0 / (square / norm.width as f64 + f64::from(norm.eps)).sqrt();
        for ((sum, &d), &x) in gradient.iter_mut().zip(dy).zip(x) {
            *sum += f64::from(d) * f64::from(x) * r;
        }
    }
    let by_factor = gradient.iter().zip(weight).zip(factors);
    let by_factor =
        by_factor.map(|((g, &w), &f)| if f == 0.0 { 0.0 } else { g * f64::from(w) / f64::from(f) });
    add(sums, name, by_factor);
}

fn add(sums: &mut FactorGradients, name: &str, gradient: impl ExactSizeIterator<Item = f64>) {
    let sum = sums.entry(name.to_owned()).or_insert_with(|| vec![0.0; gradient.len()]);
    sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
}
