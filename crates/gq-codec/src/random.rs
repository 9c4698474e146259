//! Seeded streams of words and Gaussians, the same on every machine.

use crate::quantile::normal_quantile;
use gq_tensor::SplitMix64;

/// What a stream is for: streams of one seed and different purposes are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Signs of the Hadamard rotation.
    Signs,
    /// Gaussian matrix whose QR is the Haar rotation.
    Haar,
    /// Sketching matrix of TurboQuant_prod.
    Sketch,
}

impl Purpose {
    const fn code(self) -> u64 {
        match self {
            Purpose::Signs => 1,
            Purpose::Haar => 2,
            Purpose::Sketch => 3,
        }
    }
}

/// Words of SplitMix64 with random access.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream(SplitMix64);

impl Stream {
    /// The stream of `seed` for one purpose and one width.
    pub(crate) const fn new(seed: u64, purpose: Purpose, cols: usize) -> Stream {
        let label = purpose.code() << 56 | cols as u64;
        Stream(SplitMix64::new(SplitMix64::mix(SplitMix64::new(seed).word(0) ^ label)))
    }

    /// Output number `index`, counted from 0.
    pub(crate) const fn word(self, index: u64) -> u64 {
        self.0.word(index)
    }

    /// A standard normal value made of output number `index`.
    pub(crate) fn gaussian(self, index: u64) -> f64 {
        // 53 bits and a half: never 0 or 1.
        let unit = ((self.word(index) >> 11) as f64 + 0.5) * (1.0 / 9_007_199_254_740_992.0);
        normal_quantile(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaussian_moments() {
        let stream = Stream::new(7, Purpose::Sketch, 64);
        let n = 200_000;
        let moment = |k: i32| (0..n).map(|i| stream.gaussian(i).powi(k)).sum::<f64>() / n as f64;
        for (k, want, deviation) in [(1, 0.0, 1.0), (2, 1.0, 1.42), (3, 0.0, 3.9), (4, 3.0, 9.8)] {
            let bound = 4.0 * deviation / (n as f64).sqrt();
            assert!((moment(k) - want).abs() < bound, "moment {k}: {}", moment(k));
        }
    }
}
