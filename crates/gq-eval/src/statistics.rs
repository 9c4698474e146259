//! Means with error bars, and quantiles.

use serde::{Deserialize, Serialize};

/// A value and its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub value: f64,
    /// Its standard error.
    pub stderr: f64,
}

/// Mean and its standard error (sample deviation over root n; 0 for fewer than two values).
pub(crate) fn estimate(values: impl ExactSizeIterator<Item = f64> + Clone) -> Estimate {
    let n = values.len().max(1) as f64;
    let mean = values.clone().sum::<f64>() / n;
    let squares: f64 = values.map(|x| (x - mean) * (x - mean)).sum();
    let stderr = if n < 2.0 { 0.0 } else { (squares / (n - 1.0) / n).sqrt() };
    Estimate { value: mean, stderr }
}

/// The value at quantile `q` of sorted values, interpolated between neighbors.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    let at = q * sorted.len().saturating_sub(1) as f64;
    let low = at.floor() as usize;
    let Some(&below) = sorted.get(low) else { return 0.0 };
    let above = sorted.get(low + 1).copied().unwrap_or(below);
    // Two infinite neighbors have no difference.
    if below == above { below } else { below + (above - below) * (at - low as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_known_values() {
        let e = estimate([1.0, 2.0, 3.0, 4.0].into_iter());
        assert_eq!(e.value, 2.5);
        assert!((e.stderr - (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-15);
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 10.0], 0.5), 1.5);
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 10.0], 1.0), 10.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
        assert_eq!(quantile(&[1.0, f64::INFINITY, f64::INFINITY], 0.8), f64::INFINITY);
    }
}
