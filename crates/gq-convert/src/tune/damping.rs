//! How much a second moment is damped, chosen on tokens that were held out.

use gq_codec::{Factor, NotPositive, Operand, fixed_product};
use gq_tensor::CpuLevel;

/// Candidates, in units of the mean diagonal.
const CANDIDATES: [f64; 5] = [0.003, 0.01, 0.03, 0.1, 0.3];

/// Wider inputs take the fourth candidate: choosing costs several times n^3.
const WIDEST: usize = 8192;

/// A damping and what it promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Chosen {
    /// In units of the mean diagonal.
    pub(crate) damping: f64,
    /// Expected squared error per row on the held-out tokens, for a unit variance of rounding errors.
    pub(crate) cost: f64,
    /// The same without feedback: the trace of H.
    pub(crate) trace: f64,
}

/// Factors `train` with each candidate and takes the one with the least expected error under `held`.
///
/// LDLQ leaves residuals `r = e U` that are independent, so `e = r U^-1` and
/// `E[e H e^T] = var(r) tr(U^-1 H U^-T)`.
///
/// # Errors
/// [`NotPositive`] when no damping makes the matrix positive definite.
pub(crate) fn choose(level: CpuLevel, train: &[f32], held: &[f32], n: usize) -> Result<Chosen, NotPositive> {
    let trace: f64 = (0..n).map(|i| f64::from(held[i * n + i])).sum();
    // Nothing was seen: a factor of nothing would be rounding to nearest under another name.
    if trace > 0.0 && (0..n).all(|i| train[i * n + i] == 0.0) {
        return Err(NotPositive { column: 0, damping: 0.0 });
    }
    let candidates = if n > WIDEST { &CANDIDATES[3..4] } else { &CANDIDATES[..] };
    let mut best: Option<Chosen> = None;
    for &damping in candidates {
        let factor = Factor::new(train, n, damping)?;
        let cost = expected_error(level, &factor, held);
        if !cost.is_finite() {
            continue;
        }
        if best.is_none_or(|best| cost < best.cost) {
            best = Some(Chosen { damping: factor.damping(), cost, trace });
        }
    }
    best.ok_or(NotPositive { column: 0, damping: f64::NAN })
}

/// `tr(U^-1 H U^-T)`.
fn expected_error(level: CpuLevel, factor: &Factor, h: &[f32]) -> f64 {
    let n = factor.n();
    let inverse = inverse(factor.upper(), n);
    let mut product = vec![0.0f32; n * n];
    fixed_product(level, (n, n, n), Operand::rows(&inverse, n), Operand::rows(h, n), &mut product, n);
    product.iter().zip(&inverse).map(|(&p, &v)| f64::from(p) * f64::from(v)).sum()
}

/// The inverse of a unit upper triangular matrix: row k is `e_k - sum over j > k of U[k][j] row j`.
fn inverse(upper: &[f32], n: usize) -> Vec<f32> {
    let mut inverse = vec![0.0f32; n * n];
    for k in (0..n).rev() {
        let (head, below) = inverse.split_at_mut((k + 1) * n);
        let row = &mut head[k * n..];
        row[k] = 1.0;
        for j in k + 1..n {
            let u = upper[k * n + j];
            let other = &below[(j - k - 1) * n + j..(j - k) * n];
            row[j..].iter_mut().zip(other).for_each(|(x, &y)| *x -= u * y);
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs that are correlated along the width.
    fn moment(n: usize, tokens: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let mut h = vec![0.0f32; n * n];
        for _ in 0..tokens {
            let mut last = 0.0;
            let x: Vec<f32> = (0..n)
                .map(|_| {
                    last = 0.9 * last + noise();
                    last
                })
                .collect();
            for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
                h[i * n + j] += x[i] * x[j] / tokens as f32;
            }
        }
        h
    }

    #[test]
    fn feedback_lowers_the_expected_error_and_few_tokens_want_more_damping() {
        let (n, level) = (64, CpuLevel::detect());
        let held = moment(n, 4000, 7);
        let many = choose(level, &moment(n, 8000, 1), &held, n).unwrap();
        let few = choose(level, &moment(n, 80, 1), &held, n).unwrap();
        assert!(many.cost < 0.5 * many.trace, "{many:?}");
        assert!(few.damping > many.damping, "{few:?} {many:?}");
        assert!(few.cost > many.cost);
    }

    #[test]
    fn inverses() {
        let n = 33;
        let factor = Factor::new(&moment(n, 500, 3), n, 0.01).unwrap();
        let inverse = inverse(factor.upper(), n);
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let sum: f32 = (0..n).map(|k| inverse[i * n + k] * factor.upper()[k * n + j]).sum();
            assert!((sum - f32::from(u8::from(i == j))).abs() < 1e-4);
        }
    }
}
