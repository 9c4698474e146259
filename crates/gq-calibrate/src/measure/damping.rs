//! How much a second moment is damped, chosen on tokens that were held out.

use gq_codec::{Factor, NotPositive, Operand, Parallelism, ProductShape, fixed_product};
use gq_tensor::Isa;

/// Candidates, in units of the mean diagonal.
const CANDIDATES: [f64; 5] = [0.003, 0.01, 0.03, 0.1, 0.3];

/// Candidates of wider inputs, where a factorization takes minutes: from the middle one on, so that two are often enough.
/// Their errors are found with rows of residuals drawn at random, for the exact trace costs as much as a factorization.
const WIDE_CANDIDATES: [f64; 3] = [0.1, 0.03, 0.3];
const WIDEST: usize = 8192;
/// The same of inputs that a layer has a hundred of.
const WIDEST_OF_MANY: usize = 1024;
const PROBES: usize = 64;

/// Rows that are inverted, and multiplied, together.
const BLOCK: usize = 128;

/// A damping and what it promises.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    /// In units of the mean diagonal.
    pub damping: f64,
    /// Expected squared error per row on the held-out tokens, for a unit variance of rounding errors.
    pub cost: f64,
    /// The same without feedback: the trace of H.
    pub trace: f64,
}

/// Factors `train` with each candidate and takes the one with the least expected error under `held`.
///
/// LDLQ leaves residuals `r = e U` that are independent, so `e = r U^-1` and
/// `E[e H e^T] = var(r) tr(U^-1 H U^-T)`.
///
/// # Errors
/// [`NotPositive`] when no damping makes the matrix positive definite.
pub fn choose(level: Isa, train: &[f32], held: &[f32], n: usize) -> Result<Chosen, NotPositive> {
    choose_as(n > WIDEST, level, train, held, n)
}

/// The same for one of many inputs, in less time.
pub(super) fn choose_for_one_of_many(
    level: Isa,
    train: &[f32],
    held: &[f32],
    n: usize,
) -> Result<Chosen, NotPositive> {
    choose_as(n > WIDEST_OF_MANY, level, train, held, n)
}

fn choose_as(wide: bool, level: Isa, train: &[f32], held: &[f32], n: usize) -> Result<Chosen, NotPositive> {
    let trace: f64 = (0..n).map(|i| f64::from(held[i * n + i])).sum();
    // Nothing was seen: a factor of nothing would be rounding to nearest under another name.
    if trace > 0.0 && (0..n).all(|i| train[i * n + i] == 0.0) {
        return Err(NotPositive { column: 0, damping: 0.0 });
    }
    let candidates = if wide { &WIDE_CANDIDATES[..] } else { &CANDIDATES[..] };
    let mut best: Option<Chosen> = None;
    for &damping in candidates {
        let factor = Factor::new(level, train, n, damping)?;
        let cost =
            if wide { probed_error(level, &factor, held) } else { expected_error(level, &factor, held) };
        if !cost.is_finite() {
            continue;
        }
        let before = best.filter(|best| cost >= best.cost);
        // Errors are taken to have one minimum: where less damping is better, more is not tried.
        let settled = wide && best.is_some() && before.is_none();
        best = before.or(Some(Chosen { damping: factor.damping(), cost, trace }));
        if settled {
            break;
        }
    }
    best.ok_or(NotPositive { column: 0, damping: f64::NAN })
}

/// An estimate of [`expected_error`], how good a one docs/CALIBRATION.md says: the mean of `e H e^T` over errors of
/// residuals of plus or minus 1.
fn probed_error(level: Isa, factor: &Factor, h: &[f32]) -> f64 {
    let n = factor.n();
    let mut state = 0u64;
    let mut sign = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 0 { 1.0f32 } else { -1.0 }
    };
    let mut errors: Vec<f32> = (0..PROBES * n).map(|_| sign()).collect();
    factor.errors(&mut errors);
    let mut product = vec![0.0f32; errors.len()];
    fixed_product(
        level,
        Parallelism::Threads,
        ProductShape { rows: PROBES, cols: n, depth: n },
        Operand::rows(&errors, n),
        Operand::rows(h, n),
        &mut product,
        n,
    );
    let sum: f64 = product.iter().zip(&errors).map(|(&p, &e)| f64::from(p) * f64::from(e)).sum();
    sum / PROBES as f64
}

/// `tr(U^-1 H U^-T)`.
fn expected_error(level: Isa, factor: &Factor, h: &[f32]) -> f64 {
    let n = factor.n();
    let inverse = inverse(level, factor.upper(), n);
    let mut product = vec![0.0f32; BLOCK.min(n) * n];
    let mut sum = 0.0;
    for start in (0..n).step_by(BLOCK) {
        // Rows of the inverse begin at their own column.
        let (rows, width) = (BLOCK.min(n - start), n - start);
        let (product, left) = (&mut product[..rows * width], &inverse[start * n + start..]);
        product.fill(0.0);
        let moment = Operand::rows(&h[start * n + start..], n);
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows, cols: width, depth: width },
            Operand::rows(left, n),
            moment,
            product,
            width,
        );
        for (product, row) in product.chunks_exact(width).zip(left.chunks(n)) {
            sum += product.iter().zip(row).map(|(&p, &v)| f64::from(p) * f64::from(v)).sum::<f64>();
        }
    }
    sum
}

/// The inverse V of a unit upper triangular matrix, blocks of rows from the last to the first: a block's own square is
/// inverted by substitution, what is right of it is `-V[k][k] U[k][later] V[later]`.
fn inverse(level: Isa, upper: &[f32], n: usize) -> Vec<f32> {
    let mut inverse = vec![0.0f32; n * n];
    let mut right = vec![0.0f32; BLOCK.min(n) * n];
    for start in (0..n).step_by(BLOCK).rev() {
        let end = n.min(start + BLOCK);
        let (size, width) = (end - start, n - end);
        let (head, below) = inverse.split_at_mut(end * n);
        let rows = &mut head[start * n..];
        for k in (start..end).rev() {
            let (head, later) = rows.split_at_mut((k - start + 1) * n);
            let row = &mut head[(k - start) * n..];
            row[k] = 1.0;
            for (j, other) in (k + 1..end).zip(later.chunks_exact(n)) {
                let u = upper[k * n + j];
                row[j..end].iter_mut().zip(&other[j..]).for_each(|(x, &y)| *x -= u * y);
            }
        }
        if width == 0 {
            continue;
        }
        let own: Vec<f32> = rows.chunks_exact(n).flat_map(|row| row[start..end].iter().map(|x| -x)).collect();
        let right = &mut right[..size * width];
        right.fill(0.0);
        let (u, v) = (Operand::rows(&upper[start * n + end..], n), Operand::rows(&below[end..], n));
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows: size, cols: width, depth: width },
            u,
            v,
            right,
            width,
        );
        let (own, right) = (Operand::rows(&own, size), Operand::rows(right, width));
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows: size, cols: width, depth: size },
            own,
            right,
            &mut rows[end..],
            n,
        );
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
        let (n, level) = (64, Isa::detect());
        let held = moment(n, 4000, 7);
        let many = choose(level, &moment(n, 8000, 1), &held, n).unwrap();
        let few = choose(level, &moment(n, 80, 1), &held, n).unwrap();
        assert!(many.cost < 0.5 * many.trace, "{many:?}");
        assert!(few.damping > many.damping, "{few:?} {many:?}");
        assert!(few.cost > many.cost);
    }

    /// The way of wide inputs takes what the exact errors of its three candidates say.
    #[test]
    fn wide_inputs_take_the_best_of_their_candidates() {
        let (n, level) = (64, Isa::detect());
        let held = moment(n, 4000, 7);
        let mut taken = Vec::new();
        for tokens in [20, 40, 80, 160, 320, 8000] {
            let train = moment(n, tokens, 1);
            let exact = WIDE_CANDIDATES.map(|damping| {
                let factor = Factor::new(level, &train, n, damping).unwrap();
                (factor.damping(), expected_error(level, &factor, &held))
            });
            let best = exact.iter().fold(exact[0], |best, next| if next.1 < best.1 { *next } else { best });
            let chosen = choose_as(true, level, &train, &held, n).unwrap();
            let its = exact.iter().find(|(damping, _)| *damping == chosen.damping).unwrap();
            // 64 probes of so narrow an input are good for a tenth.
            assert!(its.1 < 1.1 * best.1, "{tokens}: {chosen:?} {exact:?}");
            assert!((chosen.cost / its.1 - 1.0).abs() < 0.1, "{tokens}: {chosen:?} {exact:?}");
            taken.push(chosen.damping);
        }
        assert!(taken[0] > 0.25 && taken[5] < 0.05, "{taken:?}");
    }

    #[test]
    fn expected_errors_are_the_trace_and_probes_come_close() {
        let (n, level) = (2 * BLOCK + 33, Isa::detect());
        let held = moment(n, 700, 5);
        let factor = Factor::new(level, &moment(n, 500, 3), n, 0.01).unwrap();
        let inverse = inverse(level, factor.upper(), n);
        let plain: f64 = (0..n)
            .map(|k| {
                let row = &inverse[k * n..(k + 1) * n];
                let along = |i: usize| -> f64 {
                    row.iter().zip(&held[i * n..]).map(|(&v, &h)| f64::from(v) * f64::from(h)).sum()
                };
                (0..n).map(|i| f64::from(row[i]) * along(i)).sum::<f64>()
            })
            .sum();
        let exact = expected_error(level, &factor, &held);
        assert!((exact / plain - 1.0).abs() < 1e-4, "{exact} {plain}");
        let probed = probed_error(level, &factor, &held);
        assert!((probed / plain - 1.0).abs() < 0.03, "{probed} {plain}");
    }

    #[test]
    fn inverses() {
        let (n, level) = (2 * BLOCK + 33, Isa::detect());
        let factor = Factor::new(level, &moment(n, 500, 3), n, 0.01).unwrap();
        let inverse = inverse(level, factor.upper(), n);
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let sum: f32 = (0..n).map(|k| inverse[i * n + k] * factor.upper()[k * n + j]).sum();
            assert!((sum - f32::from(u8::from(i == j))).abs() < 1e-4);
        }
    }
}
