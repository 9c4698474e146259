//! Grids that weights may already sit on: how levels are spaced, and what they were rounded to.

use crate::DType;
use serde::{Deserialize, Serialize};

/// A grid of integer levels: `value = rounded(scale * level + minimum)`; see `formats/encodings.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// Bits per element; see [`Spacing::bits`].
    pub bits: u8,
    /// How levels are spaced.
    pub spacing: Spacing,
    /// What values are rounded to.
    pub rounding: Rounding,
}

/// What spaces the levels of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Spacing {
    /// Signed levels, an f16 scale per 32 elements.
    Scale,
    /// Unsigned levels, an f16 scale and an f16 minimum per 32 elements.
    Minimum,
    /// Unsigned levels, an f32 scale and an f32 minimum per 32 elements.
    Wide,
    /// Signed levels, an f32 scale per row.
    Row,
}

impl Spacing {
    /// Every spacing, in code order.
    pub const ALL: [Spacing; 4] = [Spacing::Scale, Spacing::Minimum, Spacing::Wide, Spacing::Row];

    /// Bits per element that are registered.
    pub const fn bits(self) -> &'static [u8] {
        match self {
            Spacing::Scale | Spacing::Row => &[4, 5, 6, 8],
            Spacing::Minimum | Spacing::Wide => &[4, 5],
        }
    }

    /// Whether a minimum is added; levels are unsigned then.
    pub const fn has_minimum(self) -> bool {
        matches!(self, Spacing::Minimum | Spacing::Wide)
    }

    /// Bytes of scales and minima of a row.
    pub const fn row_bytes(self, cols: usize) -> usize {
        match self {
            Spacing::Scale => 2 * (cols / 32),
            Spacing::Minimum => 4 * (cols / 32),
            Spacing::Wide => 8 * (cols / 32),
            Spacing::Row => 4,
        }
    }

    const fn code(self) -> u16 {
        match self {
            Spacing::Scale => 0,
            Spacing::Minimum => 1,
            Spacing::Wide => 2,
            Spacing::Row => 3,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Spacing::Scale => "",
            Spacing::Minimum => "m",
            Spacing::Wide => "w",
            Spacing::Row => "-row",
        }
    }
}

/// What the values of a grid are rounded to: the source's dtype.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rounding {
    /// Nothing more: products and sums are f32.
    F32,
    /// Binary16, nearest even.
    F16,
    /// Bfloat16, nearest even.
    BF16,
}

impl Rounding {
    /// Every rounding, in code order.
    pub const ALL: [Rounding; 3] = [Rounding::F32, Rounding::F16, Rounding::BF16];

    /// What a source of this dtype was rounded to; `None` where f32 does not hold its values.
    pub const fn of(dtype: DType) -> Option<Rounding> {
        match dtype {
            DType::F32 | DType::F8E4M3 | DType::F8E5M2 => Some(Rounding::F32),
            DType::F16 => Some(Rounding::F16),
            DType::BF16 => Some(Rounding::BF16),
            DType::F64 | DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool => None,
        }
    }

    const fn code(self) -> u16 {
        match self {
            Rounding::F32 => 0,
            Rounding::F16 => 1,
            Rounding::BF16 => 2,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            Rounding::F32 => "",
            Rounding::F16 => "-f16",
            Rounding::BF16 => "-bf16",
        }
    }
}

impl Grid {
    /// The lower byte of the number in `formats/registry.md`.
    pub(crate) const fn code(self) -> u16 {
        self.rounding.code() << 6 | self.spacing.code() << 4 | self.bits as u16
    }

    pub(crate) fn name(self) -> String {
        format!("grid{}{}{}", self.bits, self.spacing.suffix(), self.rounding.suffix())
    }
}
