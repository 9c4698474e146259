//! Scalar codebooks: integer levels, nearest level, decoded value.

use crate::tables::{SCALAR, ScalarTable};

/// The integer codebook of one width of code; see `formats/encodings.md`, "Scalar codes".
///
/// A code of B < 8 bits is a sign bit (1 = negative, most significant) above the index of a magnitude.
/// A code of 8 bits is a level in two's complement. The decoded value is `scale * level * 2^-shift`.
///
/// This is the quantizer alone: it knows no rows. Drivers choose the scale and the order of rounding.
#[derive(Clone, Copy, Debug)]
pub struct Codebook {
    bits: u8,
    table: &'static ScalarTable,
}

impl Codebook {
    /// The codebook of `bits` per element; `None` outside 1..=8.
    pub fn of(bits: u8) -> Option<Codebook> {
        let table = SCALAR.get(usize::from(bits).checked_sub(1)?)?;
        Some(Codebook { bits, table })
    }

    /// Bits per code.
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Positive levels in ascending order, at most 64; empty for the uniform code of 8 bits.
    pub fn magnitudes(&self) -> &'static [u16] {
        self.table.magnitudes
    }

    /// What a level is multiplied by, in addition to the scale: a power of two.
    pub fn unit(&self) -> f32 {
        f32::from_bits((127 - self.table.shift) << 23)
    }

    /// The scale that decodes N(0, 1) with the least error.
    pub fn gaussian_scale(&self) -> f64 {
        self.table.gaussian_scale
    }

    /// The least mean squared error of this integer codebook on N(0, 1).
    pub fn distortion(&self) -> f64 {
        self.table.distortion
    }

    /// The mean squared error of the real-valued Lloyd-Max code of as many levels (256 at 8 bits).
    pub fn real_distortion(&self) -> f64 {
        self.table.real_distortion
    }

    /// Midpoints between neighbouring magnitudes, ascending; halves of integers, exact in f32.
    pub fn thresholds(&self) -> impl Iterator<Item = f32> + use<> {
        let above = self.table.magnitudes.iter().skip(1);
        self.table.magnitudes.iter().zip(above).map(|(&low, &high)| f32::from(low + high) * 0.5)
    }

    /// The level of a code.
    pub fn level(&self, code: u8) -> i32 {
        if self.bits == 8 {
            return i32::from(code as i8);
        }
        let sign_bit = 1 << (self.bits - 1);
        let index = usize::from(code & (sign_bit - 1));
        let magnitude = self.table.magnitudes.get(index).map_or(0, |&m| i32::from(m));
        if code & sign_bit == 0 { magnitude } else { -magnitude }
    }

    /// The code of the level nearest to `target`, a value in units of levels (value / (scale * unit)).
    /// Ties go to the smaller magnitude below 8 bits and to the even level at 8; NaN goes to code 0.
    pub fn nearest(&self, target: f32) -> u8 {
        if self.bits == 8 {
            return target.round_ties_even().clamp(-127.0, 127.0) as i8 as u8;
        }
        let above = |threshold: &f32| target.abs() > *threshold;
        let index = self.thresholds().filter(above).count();
        let sign_bit = if target < 0.0 { 1 << (self.bits - 1) } else { 0 };
        index as u8 | sign_bit
    }
}

/// Levels of every code, laid out for kernels.
#[derive(Clone, Debug)]
pub(crate) struct LevelTables {
    /// Level of each code byte.
    pub(crate) levels: [i16; 256],
    /// Levels of the codes of up to 4 bits.
    pub(crate) signed: [i8; 16],
    /// Magnitude `m` of index `16 t + i` is `64 * high[t][i] + low[t][i]` above 5 bits, `low[t][i]` below.
    pub(crate) high: [[u8; 16]; 4],
    pub(crate) low: [[u8; 16]; 4],
}

impl LevelTables {
    pub(crate) fn new(book: Codebook) -> LevelTables {
        let mask = if book.bits == 8 { u8::MAX } else { (1 << book.bits) - 1 };
        let level = |code: usize| book.level(code as u8 & mask);
        let magnitude = |t: usize, i: usize| book.magnitudes().get(16 * t + i).copied().unwrap_or(0);
        let split = if book.bits > 5 { 64 } else { 256 };
        let table = |part: fn(u16, u16) -> u16| {
            std::array::from_fn(|t| std::array::from_fn(|i| part(magnitude(t, i), split) as u8))
        };
        LevelTables {
            levels: std::array::from_fn(|code| level(code) as i16),
            signed: std::array::from_fn(|code| level(code) as i8),
            high: table(|m, split| m / split),
            low: table(|m, split| m % split),
        }
    }
}
