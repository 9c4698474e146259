//! How far a product's outputs behind rounded layers are from the original's.
//!
//! With x the original's input at a token and x~ the rounded model's, a row w rounded to q errs by
//! `E (w x - q x~)^2 = d H d^T + 2 d B w^T + w K w^T`, where d = q - w, `H = E x~ x~^T`, `B = E x~ (x~ - x)^T` and
//! `K = E (x~ - x)(x~ - x)^T`. Without rounding, its least is at `w + w (C - H) H^-1` with `C = E x x~^T`: asymmetric
//! calibration (GPTAQ, arXiv 2504.02692), here with the damping of H pulling toward w. Where a norm comes right after the
//! product, x and x~ are both over the size of the original's outputs at the token.

use gq_calibrate::{DualObservation, Moment, rotate, square};
use gq_codec::{Factor, Operand, Parallelism, ProductShape, Rotation, fixed_product};
use gq_model::Matrix;
use gq_tensor::Isa;

/// Sums over tokens of both models' inputs to one product.
pub(super) struct Joint {
    rounded: Moment,
    original: Moment,
    /// Sum of `x x~^T`, `[n, n]`.
    cross: Vec<f32>,
}

impl Joint {
    pub(super) fn new(n: usize) -> Joint {
        Joint { rounded: Moment::new(n), original: Moment::new(n), cross: vec![0.0; n * n] }
    }

    pub(super) fn add(&mut self, level: Isa, seen: &DualObservation<'_>) {
        let (x, y) = (seen.original, seen.rounded);
        self.original.add(level, x);
        self.rounded.add(level, y);
        self.add_cross(level, x, y);
    }

    fn add_cross(&mut self, level: Isa, x: &Matrix, y: &Matrix) {
        let n = self.rounded.n;
        let left = Operand::rows(&x.data, n).t();
        fixed_product(
            level,
            Parallelism::Threads,
            ProductShape { rows: n, cols: n, depth: x.rows() },
            left,
            Operand::rows(&y.data, n),
            &mut self.cross,
            n,
        );
    }

    /// The error's form in the basis of the codes.
    pub(super) fn form(&self, level: Isa, rotation: &Rotation) -> Form {
        let n = self.rounded.n;
        let factor = 1.0 / self.rounded.tokens.max(1) as f64;
        let mut h = square(self.rounded.triangle(), n);
        let mut k = square(self.original.triangle(), n);
        let mut b = vec![0.0f32; n * n];
        for (i, j) in (0..n).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let (ij, ji) = (self.cross[i * n + j], self.cross[j * n + i]);
            let (c, c_t) = (f64::from(ij) * factor, f64::from(ji) * factor);
            let h = f64::from(h[i * n + j]);
            b[i * n + j] = (h - c_t) as f32;
            k[i * n + j] = (h - c - c_t + f64::from(k[i * n + j])) as f32;
        }
        [&mut h, &mut b, &mut k].into_iter().for_each(|m| rotate(level, m, rotation));
        Form { n, h, b, k }
    }
}

/// The error of a row as a function of what it is rounded to, and the original's energy.
pub(super) struct Form {
    n: usize,
    /// `[n, n]` each.
    pub(super) h: Vec<f32>,
    b: Vec<f32>,
    k: Vec<f32>,
}

/// Sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Errors {
    /// `E (w x - q x~)^2`.
    pub(super) error: f64,
    /// `E (w x)^2`.
    pub(super) energy: f64,
}

impl Errors {
    pub(super) fn add(&mut self, other: Errors) {
        self.error += other.error;
        self.energy += other.energy;
    }
}

impl Form {
    /// E of the best rows without rounding, `w + w E`, for H as `factor` damps it.
    pub(super) fn correction(&self, factor: &Factor) -> Vec<f32> {
        let n = self.n;
        let mut e = vec![0.0f32; n * n];
        for (i, row) in e.chunks_exact_mut(n).enumerate() {
            row.iter_mut().enumerate().for_each(|(j, e)| *e = -self.b[j * n + i]);
        }
        factor.solve(&mut e);
        e
    }

    /// Errors of rows `w` rounded to `q`, `[rows, n]` each.
    pub(super) fn errors(&self, level: Isa, parallelism: Parallelism, w: &[f32], q: &[f32]) -> Errors {
        let d: Vec<f32> = q.iter().zip(w).map(|(q, w)| q - w).collect();
        let (wb, wh, wk) = (
            self.times(level, parallelism, w, &self.b, true),
            self.times(level, parallelism, w, &self.h, false),
            { self.times(level, parallelism, w, &self.k, false) },
        );
        let dh = self.times(level, parallelism, &d, &self.h, false);
        let (of_w, of_d) = (dot(&wk, w), dot(&dh, &d) + 2.0 * dot(&wb, &d));
        // w H_x w^T, of which K and B are made.
        let energy = of_w + dot(&wh, w) - 2.0 * dot(&wb, w);
        Errors { error: at_least_0(of_w + of_d), energy: at_least_0(energy) }
    }

    /// Whether all sums are finite numbers.
    pub(super) fn is_finite(&self) -> bool {
        [&self.h, &self.b, &self.k].into_iter().flatten().all(|x| x.is_finite())
    }

    /// `(a, b)`: by how much the errors of rows `w` change where they are replaced by `w + s e`: `a s^2 + b s`.
    pub(super) fn along(&self, level: Isa, parallelism: Parallelism, w: &[f32], e: &[f32]) -> (f64, f64) {
        let (eh, wb) = (
            self.times(level, parallelism, e, &self.h, false),
            self.times(level, parallelism, w, &self.b, true),
        );
        (dot(&eh, e), 2.0 * dot(&wb, e))
    }

    /// `x M`, or `x M^T`.
    fn times(
        &self,
        level: Isa,
        parallelism: Parallelism,
        x: &[f32],
        m: &[f32],
        transposed: bool,
    ) -> Vec<f32> {
        times(level, parallelism, x, m, self.n, transposed)
    }
}

/// A sum of squares: a hair below zero is rounding, and what is no number is infinite, so that it is never the better one.
fn at_least_0(sum: f64) -> f64 {
    if sum.is_finite() { sum.max(0.0) } else { f64::INFINITY }
}

/// `x M` of rows x `[_, n]`, or `x M^T`.
pub(super) fn times(
    level: Isa,
    parallelism: Parallelism,
    x: &[f32],
    m: &[f32],
    n: usize,
    transposed: bool,
) -> Vec<f32> {
    let mut products = vec![0.0f32; x.len()];
    let m = Operand::rows(m, n);
    let m = if transposed { m.t() } else { m };
    fixed_product(
        level,
        parallelism,
        ProductShape { rows: x.len() / n.max(1), cols: n, depth: n },
        Operand::rows(x, n),
        m,
        &mut products,
        n,
    );
    products
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_tensor::{RotationKind, RotationSpec};

    const N: usize = 32;

    fn noise(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| next()).collect()
    }

    /// Inputs of tokens, and what they are behind a perturbation that is mostly linear in them.
    fn inputs(tokens: usize, seed: u32) -> (Matrix, Matrix) {
        let mix = noise(N * N, 77);
        let x = noise(tokens * N, seed);
        let own = noise(tokens * N, seed + 1);
        let y = times(Isa::Scalar, Parallelism::Threads, &x, &mix, N, false);
        let y = x.iter().zip(y).zip(own).map(|((x, y), own)| x + 0.05 * y + 0.02 * own).collect();
        (Matrix { width: N, data: x }, Matrix { width: N, data: y })
    }

    fn joint(tokens: usize, seed: u32) -> (Joint, Matrix, Matrix) {
        let (original, rounded) = inputs(tokens, seed);
        let mut joint = Joint::new(N);
        joint.add(Isa::detect(), &DualObservation { sequence: 0, original: &original, rounded: &rounded });
        (joint, original, rounded)
    }

    fn rotation() -> Rotation {
        Rotation::new(RotationSpec { kind: RotationKind::Hadamard, seed: 3 }, N).unwrap()
    }

    /// Mean squared differences of `w x` and `q x~`, and of `w x` and 0, token by token.
    fn measured(w: &[f32], q: &[f32], x: &Matrix, y: &Matrix) -> (f64, f64) {
        let (mut error, mut energy) = (0.0, 0.0);
        for (w, q) in w.chunks_exact(N).zip(q.chunks_exact(N)) {
            for (x, y) in x.data.chunks_exact(N).zip(y.data.chunks_exact(N)) {
                error += (dot(w, x) - dot(q, y)).powi(2);
                energy += dot(w, x).powi(2);
            }
        }
        (error / x.rows() as f64, energy / x.rows() as f64)
    }

    #[test]
    fn the_form_is_the_error_that_tokens_show() {
        let (joint, x, y) = joint(300, 5);
        let (rotation, level) = (rotation(), Isa::detect());
        let form = joint.form(level, &rotation);
        let w = noise(4 * N, 9);
        let q: Vec<f32> = w.iter().zip(noise(4 * N, 10)).map(|(w, e)| w + 0.1 * e).collect();
        let (error, energy) = measured(&w, &q, &x, &y);
        let (mut rw, mut rq) = (w.clone(), q.clone());
        rotation.forward(level, &mut rw, &mut Vec::new());
        rotation.forward(level, &mut rq, &mut Vec::new());
        let errors = form.errors(level, Parallelism::Threads, &rw, &rq);
        assert!((errors.error / error - 1.0).abs() < 1e-3, "{errors:?} {error}");
        assert!((errors.energy / energy - 1.0).abs() < 1e-3, "{errors:?} {energy}");
        let e: Vec<f32> = rq.iter().zip(&rw).map(|(q, w)| q - w).collect();
        let (a, b) = form.along(level, Parallelism::Threads, &rw, &e);
        let start = form.errors(level, Parallelism::Threads, &rw, &rw).error;
        assert!(((start + a + b) / error - 1.0).abs() < 1e-3, "{a} {b}");
    }

    #[test]
    fn errors_that_are_no_numbers_are_infinite() {
        let (joint, _, _) = joint(50, 5);
        let form = joint.form(Isa::detect(), &rotation());
        assert!(form.is_finite());
        let w = noise(N, 9);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut q = w.clone();
            q[3] = bad;
            assert_eq!(
                form.errors(Isa::detect(), Parallelism::Threads, &w, &q).error,
                f64::INFINITY,
                "{bad}"
            );
        }
        let mut broken = joint.form(Isa::detect(), &rotation());
        broken.k[7] = f32::NAN;
        assert!(
            !broken.is_finite()
                && broken.errors(Isa::detect(), Parallelism::Threads, &w, &w).error == f64::INFINITY
        );
    }

    /// The normal equations of the ridge problem, solved by descent on the tokens themselves.
    #[test]
    fn the_correction_is_the_least_squares_solution() {
        let (joint, x, y) = joint(400, 5);
        let (rotation, level) = (rotation(), Isa::detect());
        let form = joint.form(level, &rotation);
        let damping = 0.01;
        let factor = Factor::new(level, &form.h, N, damping).unwrap();
        let lambda =
            damping * y.data.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>() / y.rows() as f64 / N as f64;
        let w = noise(N, 21);
        let mut best: Vec<f64> = w.iter().map(|&w| f64::from(w)).collect();
        for _ in 0..20_000 {
            let mut slope: Vec<f64> =
                best.iter().zip(&w).map(|(b, &w)| lambda * (b - f64::from(w))).collect();
            for (x, y) in x.data.chunks_exact(N).zip(y.data.chunks_exact(N)) {
                let miss: f64 = y.iter().zip(&best).map(|(&y, b)| f64::from(y) * b).sum::<f64>() - dot(&w, x);
                let each = miss / 400.0;
                slope.iter_mut().zip(y).for_each(|(s, &y)| *s += each * f64::from(y));
            }
            best.iter_mut().zip(slope).for_each(|(b, s)| *b -= 0.8 * s);
        }
        let mut row = w.clone();
        rotation.forward(level, &mut row, &mut Vec::new());
        let e = times(level, Parallelism::Threads, &row, &form.correction(&factor), N, false);
        let mut corrected: Vec<f32> = row.iter().zip(e).map(|(w, e)| w + e).collect();
        rotation.inverse(level, &mut corrected, &mut Vec::new());
        for (c, b) in corrected.iter().zip(&best) {
            assert!((f64::from(*c) - b).abs() < 2e-3, "{c} {b}");
        }
        // And it pays on tokens that it was not made from.
        let (x, y) = inputs(500, 50);
        let (before, _) = measured(&w, &w, &x, &y);
        let (after, _) = measured(&w, &corrected, &x, &y);
        assert!(after < 0.5 * before, "{before} {after}");
    }
}
