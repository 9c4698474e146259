//! Which levels and scales each block type has.

use super::fit::{Form, Minimum, Stored};
use super::levels::Levels;
use gq_tensor::ggml::{GgmlType, IQ4_LEVELS};

/// A block type that rows can be rounded to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockCode {
    kind: GgmlType,
    pub(super) sub: usize,
    pub(super) levels: Levels,
    pub(super) scales: Scales,
}

/// How scales and minima of sub-blocks are stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scales {
    /// In half precision.
    Half,
    /// A scale and a minimum in half precision.
    HalfAndMin,
    /// Signed integers times one scale in half precision.
    Coded { low: f32, high: f32 },
    /// Integers from 0 on for scale and minimum, each times a scale in half precision.
    CodedAndMin { top: f32 },
}

use Levels::{Integers, Iq4};
use Scales::{Coded, CodedAndMin, Half, HalfAndMin};

const fn code(kind: GgmlType, sub: usize, levels: Levels, scales: Scales) -> BlockCode {
    BlockCode { kind, sub, levels, scales }
}

const fn integers(low: i8, high: i8) -> Levels {
    Integers { low: low as f32, high: high as f32 }
}

/// In ascending order of bits.
const TABLE: [BlockCode; 12] = [
    code(GgmlType::Q2_K, 16, integers(0, 3), CodedAndMin { top: 15.0 }),
    code(GgmlType::Q3_K, 16, integers(-4, 3), Coded { low: -32.0, high: 31.0 }),
    code(GgmlType::IQ4_XS, 32, Iq4, Coded { low: -32.0, high: 31.0 }),
    code(GgmlType::IQ4_NL, 32, Iq4, Half),
    code(GgmlType::Q4_0, 32, integers(-8, 7), Half),
    code(GgmlType::Q4_K, 32, integers(0, 15), CodedAndMin { top: 63.0 }),
    code(GgmlType::Q4_1, 32, integers(0, 15), HalfAndMin),
    code(GgmlType::Q5_0, 32, integers(-16, 15), Half),
    code(GgmlType::Q5_K, 32, integers(0, 31), CodedAndMin { top: 63.0 }),
    code(GgmlType::Q5_1, 32, integers(0, 31), HalfAndMin),
    code(GgmlType::Q6_K, 16, integers(-32, 31), Coded { low: -128.0, high: 127.0 }),
    code(GgmlType::Q8_0, 32, integers(-127, 127), Half),
];

impl BlockCode {
    /// Every type that rows can be rounded to, in ascending order of bits.
    pub fn all() -> impl Iterator<Item = BlockCode> {
        TABLE.into_iter()
    }

    /// How a type is rounded to; `None` for types that rows cannot be rounded to here.
    pub fn of(kind: GgmlType) -> Option<BlockCode> {
        TABLE.into_iter().find(|code| code.kind == kind)
    }

    /// The type.
    pub fn kind(self) -> GgmlType {
        self.kind
    }

    /// What values of a sub-block may be before scales of scales are chosen.
    pub(super) fn form(self) -> Form {
        let (minimum, stored) = match self.scales {
            Half => (Minimum::None, Stored::Half),
            HalfAndMin => (Minimum::Signed, Stored::Half),
            Coded { .. } => (Minimum::None, Stored::Later),
            CodedAndMin { .. } => (Minimum::Subtracted, Stored::Later),
        };
        Form { levels: self.levels, minimum, stored }
    }

    /// The code that a level has in a block.
    pub(super) fn stored(self, level: f32) -> u8 {
        match self.levels {
            // As a signed byte.
            Integers { .. } if self.kind == GgmlType::Q8_0 => (level as i8).cast_unsigned(),
            Integers { low, .. } => (level - low) as u8,
            Iq4 => IQ4_LEVELS.iter().position(|&l| f32::from(l) == level).unwrap_or(0) as u8,
        }
    }
}
