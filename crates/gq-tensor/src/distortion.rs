//! How far decoded values are from the originals.

/// Sums over pairs of (original, decoded) values; metrics are read off at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Distortion {
    /// Pairs seen.
    pub count: u64,
    /// Sum of squared errors.
    pub error: f64,
    /// Sum of squared originals.
    pub energy: f64,
    /// Sum of products of original and decoded.
    pub product: f64,
    /// Sum of squared decoded values.
    pub decoded_energy: f64,
    /// Largest absolute error.
    pub max_error: f64,
    /// Pairs whose signs differ, zeros aside.
    pub sign_flips: u64,
}

impl Distortion {
    /// Adds pairs in order.
    pub fn add(&mut self, original: &[f32], decoded: &[f32]) {
        for (&x, &y) in original.iter().zip(decoded) {
            let (x, y) = (f64::from(x), f64::from(y));
            self.count += 1;
            self.error += (x - y) * (x - y);
            self.energy += x * x;
            self.product += x * y;
            self.decoded_energy += y * y;
            self.max_error = self.max_error.max((x - y).abs());
            self.sign_flips += u64::from(x * y < 0.0);
        }
    }

    /// Adds another sum, such as the next row's.
    pub fn merge(&mut self, other: &Distortion) {
        self.count += other.count;
        self.error += other.error;
        self.energy += other.energy;
        self.product += other.product;
        self.decoded_energy += other.decoded_energy;
        self.max_error = self.max_error.max(other.max_error);
        self.sign_flips += other.sign_flips;
    }

    /// Squared error over squared norm; 0 for nothing or zeros decoded as zeros.
    pub fn relative_mse(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { self.error / self.energy }
    }

    /// Cosine of the angle between original and decoded.
    pub fn cosine(&self) -> f64 {
        let norms = (self.energy * self.decoded_energy).sqrt();
        if norms == 0.0 { 1.0 } else { self.product / norms }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_a_known_pair() {
        let mut d = Distortion::default();
        d.add(&[3.0, 4.0], &[3.0, -1.0]);
        assert_eq!(d.relative_mse(), 1.0);
        assert_eq!(d.sign_flips, 1);
        assert_eq!(d.max_error, 5.0);
        assert!((d.cosine() - 5.0 / (5.0 * 10f64.sqrt())).abs() < 1e-12);
    }
}
