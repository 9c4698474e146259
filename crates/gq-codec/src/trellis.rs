//! Trellis codes: a bitshift trellis over an integer codebook (QTIP, arXiv 2406.11235, section 3), run down the
//! rows of one column of a strip. `formats/encodings.md` is the definition.
//!
//! The state after a row is the last L code bits; its level is a Gaussian quantile picked by the upper byte of
//! `state * multiplier mod 2^L`. The multiplication permutes the states, so every level is picked equally often,
//! and the branches out of a state land on well-spread levels.

use gq_tensor::{Encoding, States};

/// Levels of the upper half of the codebook: `round(127 * z((i + 128.5) / 256) / z(255.5 / 256))`, z the normal
/// quantile; the lower half is its mirror image.
#[rustfmt::skip]
pub(crate) const MAGNITUDES: [i8; 128] = [
    0, 1, 1, 2, 2, 2, 3, 3, 4, 4, 5, 5, 5, 6, 6, 7,
    7, 8, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 12, 13, 13, 14,
    14, 15, 15, 16, 16, 17, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21,
    22, 22, 23, 23, 24, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29,
    30, 31, 31, 32, 32, 33, 33, 34, 34, 35, 36, 36, 37, 37, 38, 39,
    39, 40, 41, 41, 42, 43, 43, 44, 45, 46, 46, 47, 48, 49, 49, 50,
    51, 52, 53, 54, 55, 56, 57, 57, 59, 60, 61, 62, 63, 64, 65, 67,
    68, 70, 71, 73, 75, 77, 79, 81, 83, 86, 89, 93, 97, 103, 111, 127,
];

/// A trellis with its tables.
#[derive(Clone, Debug)]
pub struct Trellis {
    pub(crate) bits: u32,
    pub(crate) log_states: u32,
    pub(crate) multiplier: u16,
    pub(crate) magnitudes: [i8; 128],
    /// Level of every state.
    pub(crate) levels: Vec<i8>,
    /// The same, for the search.
    pub(crate) values: Vec<f32>,
    numbers: Numbers,
}

/// What was searched for, and what it achieves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    multiplier: u16,
    /// Standard deviation, in levels, that rows should have.
    deviation: f64,
    /// Mean squared error of N(0, 1).
    pub(crate) distortion: f64,
}

impl Trellis {
    /// Value of a level in units of a row's scale.
    pub const UNIT: f32 = 1.0 / 32.0;

    /// The trellis of an encoding; `None` for other encodings.
    pub fn of(encoding: Encoding) -> Option<Trellis> {
        let Encoding::Trellis { bits, states } = encoding else { return None };
        Some(Trellis::with(bits, states, Numbers::of(bits, states)?))
    }

    /// The trellis of the registry with these numbers.
    pub(crate) fn with(bits: u8, states: States, numbers: Numbers) -> Trellis {
        Trellis::build(bits, states, MAGNITUDES, numbers)
    }

    /// A trellis that no encoding has: for searching.
    ///
    /// `magnitudes` are the levels of the upper half of the codebook, not negative; `deviation` is the standard
    /// deviation, in levels, that rows are to have.
    pub fn experimental(
        bits: u8,
        states: States,
        multiplier: u16,
        magnitudes: [i8; 128],
        deviation: f64,
    ) -> Trellis {
        Trellis::build(bits, states, magnitudes, Numbers { multiplier, deviation, distortion: f64::NAN })
    }

    fn build(bits: u8, states: States, magnitudes: [i8; 128], numbers: Numbers) -> Trellis {
        let (log_states, multiplier) = (states.log2(), numbers.multiplier);
        let level = |state: u32| {
            let mixed = state.wrapping_mul(multiplier.into()) & ((1 << log_states) - 1);
            let index = (mixed >> (log_states - 8)) as usize;
            if index < 128 { -magnitudes[127 - index] } else { magnitudes[index - 128] }
        };
        let levels: Vec<i8> = (0..1 << log_states).map(level).collect();
        let values = levels.iter().map(|&level| f32::from(level)).collect();
        Trellis { bits: bits.into(), log_states, multiplier, magnitudes, levels, values, numbers }
    }

    /// Bits per element.
    pub fn bits(&self) -> usize {
        self.bits as usize
    }

    /// What states are multiplied by to choose their levels.
    pub fn multiplier(&self) -> u16 {
        self.multiplier
    }

    /// Level of every state.
    pub fn levels(&self) -> &[i8] {
        &self.levels
    }

    /// Scale of least error for rows of standard deviation 1.
    pub fn gaussian_scale(&self) -> f64 {
        1.0 / (self.numbers.deviation * f64::from(Self::UNIT))
    }

    /// Mean squared error of N(0, 1) at [`gaussian_scale`](Self::gaussian_scale).
    pub fn distortion(&self) -> f64 {
        self.numbers.distortion
    }

    /// Bytes of one column of a strip of `rows` rows: 8 rows fill whole bytes, and fewer take as much.
    pub fn column_bytes(&self, rows: usize) -> usize {
        rows.div_ceil(8) * self.bits as usize
    }
}

impl Numbers {
    /// Of the registry, found by `examples/trellis_search.rs`; `None` where it has no such trellis.
    pub(crate) fn of(bits: u8, states: States) -> Option<Numbers> {
        let (multiplier, deviation, distortion) = match (states, bits) {
            (States::S10, 2) => (0x109, 41.424, 0.072514),
            (States::S10, 3) => (0x083, 39.963, 0.018611),
            (States::S10, 4) => (0x03D, 37.461, 0.004865),
            (States::S10, 5) => (0x2A1, 34.875, 0.001318),
            (States::S10, 6) => (0x21F, 31.752, 0.000376),
            (States::S12, 2) => (0xBD9, 42.269, 0.070781),
            (States::S12, 3) => (0xDF5, 40.796, 0.018001),
            (States::S12, 4) => (0x107, 37.491, 0.004679),
            (States::S12, 5) => (0x981, 35.586, 0.001255),
            (States::S12, 6) => (0x33F, 31.752, 0.000358),
            (States::S14, 2) => (0x0FA1, 42.320, 0.070078),
            (States::S14, 3) => (0x37A1, 40.796, 0.017684),
            (States::S14, 4) => (0x2961, 38.211, 0.004597),
            (States::S14, 5) => (0x0A01, 34.889, 0.001235),
            (States::S14, 6) => (0x3501, 31.752, 0.000347),
            _ => return None,
        };
        Some(Numbers { multiplier, deviation, distortion })
    }
}
