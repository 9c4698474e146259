//! Seeded test data, independent of the streams that the crate draws its rotations from.

use gq_codec::Decoder;
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, Storage};
use half::f16;

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

/// `rows * cols` elements that sit on the grid of an encoding: any codes, the outermost in every group.
#[allow(dead_code)]
pub fn on_grid(encoding: Encoding, rows: usize, cols: usize) -> Vec<f32> {
    let mut g = Generator::new(u64::from(encoding.code()));
    let bits = 8 * encoding.codes_row_bytes(32) / 32;
    let row_bytes = encoding.codes_row_bytes(cols);
    let mut payload = vec![0; rows * row_bytes];
    payload.iter_mut().for_each(|byte| *byte = g.word() as u8);
    // Elements 0, 1 and 16 of a group: codes 0, all ones, and one above zero.
    let mut set = |row: usize, element: usize, code: usize| {
        let (group, mut plane, mut low) = (element / 32, row * row_bytes, 0);
        for width in [8, 4, 2, 1].into_iter().filter(|width| bits & width != 0) {
            let (byte, shift) = (element % 32 % (4 * width), width * (element % 32 / (4 * width)));
            let at = &mut payload[plane + group * 4 * width + byte];
            let mask = (1_usize << width) - 1;
            *at = *at & !((mask << shift) as u8) | ((code >> low & mask) << shift) as u8;
            (plane, low) = (plane + cols / 8 * width, low + width);
        }
    };
    for (row, group) in (0..rows).flat_map(|row| (0..cols / 32).map(move |group| (row, group))) {
        let last = (1 << bits) - 1;
        for (element, code) in [(0, 0), (1, last), (16, 1), (17, last / 2), (18, last / 2 + 1)] {
            set(row, 32 * group + element, code);
        }
    }
    let name = encoding.name();
    for group in 0..rows * encoding.scales_row_bytes(cols) {
        let scale = 0.003 * (1.0 + g.uniform());
        let minimum = scale * (0.5 - (1 << (bits - 1)) as f64) * (0.8 + 0.3 * g.uniform());
        let sign = if group % 3 == 1 { -1.0 } else { 1.0 };
        let half = |value: f64| f16::from_f64(value).to_le_bytes();
        let single = |value: f64| (value as f32).to_le_bytes();
        let bytes = match encoding {
            Encoding::Mxfp4 => vec![110 + (g.word() % 16) as u8],
            _ if name.contains('m') => [half(scale), half(minimum)].concat(),
            _ if name.contains("row") => single(sign * scale).to_vec(),
            // Products of an f16 and six bits, as block formats have them.
            _ if name.contains('w') => {
                let short = |value: f64| f64::from(f32::from_bits((value as f32).to_bits() & 0xFFFF_FF80));
                [single(short(scale)), single(short(minimum))].concat()
            }
            _ => half(sign * scale).to_vec(),
        };
        payload.extend(bytes);
    }
    payload.truncate(rows * (row_bytes + encoding.scales_row_bytes(cols)));
    let shape = MatrixShape::new(rows, cols);
    let matrix = CodedRows::of_payload(encoding, shape, &payload);
    let decoder = Decoder::new(Storage::unrotated(encoding), cols);
    let mut out = vec![0.0; rows * cols];
    if let (Ok(matrix), Ok(decoder)) = (matrix, decoder) {
        decoder.decode_rows(Isa::Scalar, &matrix, 0..rows, &mut out);
    }
    out
}
