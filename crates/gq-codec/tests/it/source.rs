//! Seeded test data, independent of the streams that the crate draws its rotations from.

/// A distribution of independent elements with variance 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Gaussian,
    Laplace,
    Student5,
}

#[allow(dead_code)]
pub const ALL: [Source; 3] = [Source::Gaussian, Source::Laplace, Source::Student5];

/// xorshift64*: unrelated to SplitMix64.
pub struct Generator(u64);

impl Generator {
    pub fn new(seed: u64) -> Generator {
        Generator(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ 0x1234_5678_9ABC_DEF1)
    }

    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform on (0, 1).
    pub fn uniform(&mut self) -> f64 {
        ((self.word() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    /// Box and Muller.
    pub fn gaussian(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }
}

/// `rows * cols` elements.
pub fn rows(source: Source, rows: usize, cols: usize, seed: u64) -> Vec<f32> {
    let mut g = Generator::new(seed);
    let element = |g: &mut Generator| match source {
        Source::Gaussian => g.gaussian(),
        Source::Laplace => {
            let magnitude = -g.uniform().ln() * std::f64::consts::FRAC_1_SQRT_2;
            if g.word() >> 63 == 0 { magnitude } else { -magnitude }
        }
        Source::Student5 => {
            let chi_squared: f64 = (0..5).map(|_| g.gaussian().powi(2)).sum();
            g.gaussian() / (chi_squared / 5.0).sqrt() * 0.6f64.sqrt()
        }
    };
    (0..rows * cols).map(|_| element(&mut g) as f32).collect()
}
