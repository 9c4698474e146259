//! How KL divergences are spread over decades.

use serde::{Deserialize, Serialize};

/// Decimal logarithm where the first bin begins.
const FIRST_LOG10: f64 = -8.0;
/// Width of a bin in decimal logarithms.
const STEP_LOG10: f64 = 0.25;
/// Bins: up to 100 nats.
const BINS: usize = 40;

/// Counts of positive values in bins of equal width in their logarithm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Decimal logarithm of the first bin's lower edge.
    pub first_log10: f64,
    /// Width of a bin.
    pub step_log10: f64,
    /// Values per bin; those beyond the bins are in the outermost ones.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Counts values that are not negative.
    pub(crate) fn new(values: &[f64]) -> Histogram {
        let mut counts = vec![0; BINS];
        for value in values {
            // A float that is too large or too small for the integer is cut to its range.
            let bin = ((value.log10() - FIRST_LOG10) / STEP_LOG10).floor() as usize;
            counts[bin.min(BINS - 1)] += 1;
        }
        Histogram { first_log10: FIRST_LOG10, step_log10: STEP_LOG10, counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_counted_once() {
        let counts = Histogram::new(&[0.0, 1e-12, 1.2e-8, 1.1, 1.2, 1e9]).counts;
        assert_eq!((counts[0], counts[32], counts[BINS - 1], counts.iter().sum::<u64>()), (3, 2, 1, 6));
    }
}
