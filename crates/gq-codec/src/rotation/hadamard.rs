//! Randomized Hadamard transform of any width that is a multiple of 32.

use super::{PRIME_LIMIT, hartley::hartley_matrix};
use crate::{
    error::RotationError,
    kernel,
    random::{Purpose, Stream},
};
use gq_tensor::Isa;

/// `(F ⊗ H) D` of width `m 2^k`, m odd: signs D, Walsh-Hadamard H within each block of 2^k,
/// and F, a Kronecker product of one Hartley matrix per prime factor of m, across the m blocks.
#[derive(Clone, Debug)]
pub(super) struct Hadamard {
    /// Sign of each element times `2^(-k/2)`.
    signs: Vec<f32>,
    /// `2^k`.
    block: usize,
    /// Prime factors of m, ascending.
    factors: Vec<Factor>,
}

/// One Hartley matrix, applied to a row seen as `[outer, p, inner]` along its middle axis.
#[derive(Clone, Debug)]
struct Factor {
    p: usize,
    inner: usize,
    matrix: Vec<f32>,
}

impl Hadamard {
    pub(super) fn new(seed: u64, cols: usize) -> Result<Hadamard, RotationError> {
        check(cols)?;
        let k = cols.trailing_zeros();
        let block = 1 << k;
        let mut primes = prime_factors(cols >> k);
        let mut inner = cols;
        let factors = primes
            .drain(..)
            .map(|p| {
                inner /= p;
                Factor { p, inner, matrix: hartley_matrix(p) }
            })
            .collect();
        let half = 1.0 / f64::from(1 << (k / 2));
        let factor = if k.is_multiple_of(2) { half } else { half * std::f64::consts::FRAC_1_SQRT_2 } as f32;
        let stream = Stream::new(seed, Purpose::Signs, cols);
        let negative = |i: usize| stream.word(i as u64 / 64) >> (i % 64) & 1 == 1;
        let signs = (0..cols).map(|i| if negative(i) { -factor } else { factor }).collect();
        Ok(Hadamard { signs, block, factors })
    }

    pub(super) fn forward(&self, level: Isa, x: &mut [f32], scratch: &mut Vec<f32>) {
        kernel::multiply(level, x, &self.signs);
        kernel::walsh_hadamard(level, x, self.block);
        for factor in &self.factors {
            factor.apply(level, x, scratch);
        }
    }

    pub(super) fn inverse(&self, level: Isa, x: &mut [f32], scratch: &mut Vec<f32>) {
        for factor in self.factors.iter().rev() {
            factor.apply(level, x, scratch);
        }
        kernel::walsh_hadamard(level, x, self.block);
        kernel::multiply(level, x, &self.signs);
    }
}

impl Factor {
    fn apply(&self, level: Isa, x: &mut [f32], scratch: &mut Vec<f32>) {
        scratch.resize(x.len(), 0.0);
        kernel::mix_blocks(level, &self.matrix, self.p, self.inner, x, scratch);
        x.copy_from_slice(scratch);
    }
}

/// Prime factors, ascending, with multiplicity.
fn prime_factors(mut n: usize) -> Vec<usize> {
    let mut factors = Vec::new();
    let mut p = 2;
    while p * p <= n {
        while n.is_multiple_of(p) {
            factors.push(p);
            n /= p;
        }
        p += 1;
    }
    if n > 1 {
        factors.push(n);
    }
    factors
}

/// Whether every prime factor of the odd part is small enough for a dense matrix.
pub(super) fn check(cols: usize) -> Result<(), RotationError> {
    match prime_factors(cols >> cols.trailing_zeros().min(63)).last() {
        Some(&prime) if prime > PRIME_LIMIT => {
            Err(RotationError::PrimeFactor { cols, prime, limit: PRIME_LIMIT })
        }
        _ => Ok(()),
    }
}
