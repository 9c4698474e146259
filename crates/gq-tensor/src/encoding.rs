//! The table of encodings: code, name, bits, block and bytes. How each is computed lives in `gq-codec`.

use crate::{DType, Grid, Rounding, Spacing};
use serde::{Deserialize, Serialize};

/// How a matrix's elements are stored; see `formats/encodings.md`.
///
/// A payload is the codes, then `rows` scale rows of [`scales_row_bytes`](Encoding::scales_row_bytes) each.
/// Rows are independent, `rows` code rows of [`codes_row_bytes`](Encoding::codes_row_bytes) each, except those of
/// `Trellis`, which are coded in strips of [`strip_rows`](Encoding::strip_rows).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Elements as the source has them, little-endian.
    Exact(DType),
    /// TurboQuant_mse: scalar Lloyd-Max codes of 1 to 8 bits, fp16 scale per row or group.
    Turbo {
        /// Bits per element, 1..=8.
        bits: u8,
        /// What one fp16 scale covers.
        group: ScaleGroup,
    },
    /// TurboQuant_prod: a `bits - 1` code and a 1-bit sketch of its residual. Reference mode.
    Prod {
        /// Bits per element, 2..=5.
        bits: u8,
        /// Distribution of the sketching matrix.
        sketch: Sketch,
    },
    /// PolarQuant: recursive polar angles over blocks of 16, fp16 radius each. Reference mode.
    Polar(Polar),
    /// Trellis code: paths of a bitshift trellis down the rows of a strip, one per column, fp16 scale per row.
    Trellis {
        /// Bits per element, 2..=6.
        bits: u8,
        /// How many states a path chooses from.
        states: States,
    },
    /// Weights that already sit on a grid, stored as they are: integer codes and what spaces them.
    Grid(Grid),
    /// OCP MXFP4: four-bit floats and a power of two per 32 elements, stored as they are.
    Mxfp4,
}

/// States of a trellis: more of them lose less and take longer to encode; decoding costs the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum States {
    /// 2^10.
    S10,
    /// 2^12.
    S12,
    /// 2^14.
    S14,
}

impl States {
    /// Every number of states, in code order.
    pub const ALL: [States; 3] = [States::S10, States::S12, States::S14];

    /// Base-2 logarithm of the number of states.
    pub const fn log2(self) -> u32 {
        match self {
            States::S10 => 10,
            States::S12 => 12,
            States::S14 => 14,
        }
    }

    const fn code(self) -> u16 {
        match self {
            States::S10 => 0,
            States::S12 => 1,
            States::S14 => 2,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            States::S10 => "",
            States::S12 => "-s12",
            States::S14 => "-s14",
        }
    }
}

/// What one fp16 scale covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScaleGroup {
    /// The whole row.
    Row,
    /// 32 consecutive elements.
    G32,
    /// 64 consecutive elements.
    G64,
    /// 128 consecutive elements.
    G128,
}

impl ScaleGroup {
    /// Every group, in code order.
    pub const ALL: [ScaleGroup; 4] = [ScaleGroup::Row, ScaleGroup::G32, ScaleGroup::G64, ScaleGroup::G128];

    /// Elements covered in a row of `cols` elements.
    pub const fn len(self, cols: usize) -> usize {
        match self {
            ScaleGroup::Row => cols,
            ScaleGroup::G32 => 32,
            ScaleGroup::G64 => 64,
            ScaleGroup::G128 => 128,
        }
    }

    const fn code(self) -> u16 {
        match self {
            ScaleGroup::Row => 0,
            ScaleGroup::G32 => 1,
            ScaleGroup::G64 => 2,
            ScaleGroup::G128 => 3,
        }
    }

    const fn suffix(self) -> &'static str {
        match self {
            ScaleGroup::Row => "",
            ScaleGroup::G32 => "-g32",
            ScaleGroup::G64 => "-g64",
            ScaleGroup::G128 => "-g128",
        }
    }
}

/// The sketching matrix S of TurboQuant_prod (arXiv 2504.19874, Algorithm 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sketch {
    /// Independent N(0, 1) entries, as in the paper.
    Gaussian,
    /// Orthogonal rows, as in the released code; lower variance.
    Orthogonal,
}

/// Bits per angle of the four polar levels (arXiv 2502.02617, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Polar {
    /// 4, 2, 2, 2 bits: the paper's setting.
    P4222,
    /// 4, 3, 2, 2 bits.
    P4322,
    /// 5, 3, 3, 3 bits.
    P5333,
}

impl Polar {
    /// Every setting, in code order.
    pub const ALL: [Polar; 3] = [Polar::P4222, Polar::P4322, Polar::P5333];

    /// Bits per angle at levels 1 to 4; level l has `cols / 2^l` angles.
    pub const fn level_bits(self) -> [u8; 4] {
        match self {
            Polar::P4222 => [4, 2, 2, 2],
            Polar::P4322 => [4, 3, 2, 2],
            Polar::P5333 => [5, 3, 3, 3],
        }
    }
}

impl Encoding {
    /// Every grid, in code order.
    pub fn grids() -> Vec<Encoding> {
        let mut all = Vec::new();
        for rounding in Rounding::ALL {
            for spacing in Spacing::ALL {
                let bits = spacing.bits().iter().copied();
                all.extend(bits.map(|bits| Encoding::Grid(Grid { bits, spacing, rounding })));
            }
        }
        all.push(Encoding::Mxfp4);
        all
    }

    /// Widths must be a multiple of this for every encoding but `Exact`.
    pub const WIDTH_MULTIPLE: usize = 32;

    /// Rows of a strip of a trellis code; the last strip of a matrix may have fewer.
    pub const STRIP_ROWS: usize = 256;

    /// Every encoding of the registry, in code order.
    pub fn all() -> Vec<Encoding> {
        let floats = [DType::F32, DType::F16, DType::BF16, DType::F8E4M3, DType::F8E5M2, DType::F64];
        let mut all: Vec<_> = floats.into_iter().map(Encoding::Exact).collect();
        for group in ScaleGroup::ALL {
            all.extend((1..=8).map(|bits| Encoding::Turbo { bits, group }));
        }
        for sketch in [Sketch::Gaussian, Sketch::Orthogonal] {
            all.extend((2..=5).map(|bits| Encoding::Prod { bits, sketch }));
        }
        all.extend(Polar::ALL.map(Encoding::Polar));
        for states in States::ALL {
            all.extend((2..=6).map(|bits| Encoding::Trellis { bits, states }));
        }
        all.extend(Encoding::grids());
        all
    }

    /// The number in `formats/registry.md`. `Exact` of an integer dtype has none and gives 0.
    pub const fn code(self) -> u16 {
        match self {
            Encoding::Exact(DType::F32) => 0x0001,
            Encoding::Exact(DType::F16) => 0x0002,
            Encoding::Exact(DType::BF16) => 0x0003,
            Encoding::Exact(DType::F8E4M3) => 0x0004,
            Encoding::Exact(DType::F8E5M2) => 0x0005,
            Encoding::Exact(DType::F64) => 0x0006,
            Encoding::Exact(DType::I64 | DType::I32 | DType::I16 | DType::I8 | DType::U8 | DType::Bool) => 0,
            Encoding::Turbo { bits, group } => 0x0100 | group.code() << 4 | bits as u16,
            Encoding::Prod { bits, sketch: Sketch::Gaussian } => 0x0200 | bits as u16,
            Encoding::Prod { bits, sketch: Sketch::Orthogonal } => 0x0210 | bits as u16,
            Encoding::Polar(Polar::P4222) => 0x0300,
            Encoding::Polar(Polar::P4322) => 0x0301,
            Encoding::Polar(Polar::P5333) => 0x0302,
            Encoding::Trellis { bits, states } => 0x0400 | states.code() << 4 | bits as u16,
            Encoding::Grid(grid) => 0x0500 | grid.code(),
            Encoding::Mxfp4 => 0x0601,
        }
    }

    /// The encoding with this registry number.
    pub fn from_code(code: u16) -> Option<Encoding> {
        Encoding::all().into_iter().find(|e| e.code() == code)
    }

    /// The name used in options, reports and `formats/registry.md`, such as `bf16`, `tq4`, `tq3-g64`, `tqp3`, `polar4222`,
    /// `tt3`, `tt3-s12`, `grid4m-bf16`.
    pub fn name(self) -> String {
        match self {
            Encoding::Exact(dtype) => dtype.name().to_ascii_lowercase(),
            Encoding::Turbo { bits, group } => format!("tq{bits}{}", group.suffix()),
            Encoding::Prod { bits, sketch: Sketch::Gaussian } => format!("tqp{bits}"),
            Encoding::Prod { bits, sketch: Sketch::Orthogonal } => format!("tqpo{bits}"),
            Encoding::Polar(Polar::P4222) => "polar4222".to_owned(),
            Encoding::Polar(Polar::P4322) => "polar4322".to_owned(),
            Encoding::Polar(Polar::P5333) => "polar5333".to_owned(),
            Encoding::Trellis { bits, states } => format!("tt{bits}{}", states.suffix()),
            Encoding::Grid(grid) => grid.name(),
            Encoding::Mxfp4 => "mxfp4".to_owned(),
        }
    }

    /// The encoding with this name (case-insensitive).
    pub fn from_name(name: &str) -> Option<Encoding> {
        let name = name.to_ascii_lowercase();
        Encoding::all().into_iter().find(|e| e.name() == name)
    }

    /// Whether a row of `cols` elements can be stored this way.
    pub const fn supports_cols(self, cols: usize) -> bool {
        self.is_exact() || cols > 0 && cols.is_multiple_of(self.width_multiple())
    }

    /// What widths must be a multiple of: whole groups of scales.
    pub const fn width_multiple(self) -> usize {
        match self {
            Encoding::Exact(_) => 1,
            Encoding::Turbo { group, .. } => group.len(Self::WIDTH_MULTIPLE),
            Encoding::Prod { .. }
            | Encoding::Polar(_)
            | Encoding::Trellis { .. }
            | Encoding::Grid(_)
            | Encoding::Mxfp4 => Self::WIDTH_MULTIPLE,
        }
    }

    /// Rows that are coded together: 1 where rows are independent.
    pub const fn strip_rows(self) -> usize {
        match self {
            Encoding::Trellis { .. } => Self::STRIP_ROWS,
            _ => 1,
        }
    }

    /// Bytes of one row of codes, `cols` elements wide; of a trellis code, the share of one row of a whole strip.
    pub fn codes_row_bytes(self, cols: usize) -> usize {
        match self {
            Encoding::Exact(dtype) => cols * dtype.size(),
            Encoding::Turbo { bits, .. }
            | Encoding::Prod { bits, .. }
            | Encoding::Trellis { bits, .. }
            | Encoding::Grid(Grid { bits, .. }) => cols * bits as usize / 8,
            Encoding::Mxfp4 => cols / 2,
            Encoding::Polar(polar) => {
                let plane = |(level, bits): (usize, u8)| ((cols >> (level + 1)) * bits as usize).div_ceil(8);
                polar.level_bits().into_iter().enumerate().map(plane).sum()
            }
        }
    }

    /// Bytes of one row of scales, `cols` elements wide: fp16, but for grids.
    pub fn scales_row_bytes(self, cols: usize) -> usize {
        match self {
            Encoding::Exact(_) => 0,
            Encoding::Turbo { group, .. } => 2 * cols.div_ceil(group.len(cols).max(1)),
            Encoding::Prod { .. } => 4, // row scale, residual norm
            Encoding::Polar(_) => 2 * cols.div_ceil(16),
            Encoding::Trellis { .. } => 2,
            Encoding::Grid(grid) => grid.spacing.row_bytes(cols),
            Encoding::Mxfp4 => cols / 32,
        }
    }

    /// Rows that the codes of a matrix of `rows` rows have room for: trellis codes fill whole bytes.
    pub const fn coded_rows(self, rows: usize) -> Option<usize> {
        match self {
            Encoding::Trellis { .. } => rows.checked_next_multiple_of(8),
            _ => Some(rows),
        }
    }

    /// Bytes of the codes of a matrix; `None` when they do not fit in a usize.
    pub fn codes_bytes(self, rows: usize, cols: usize) -> Option<usize> {
        self.coded_rows(rows)?.checked_mul(self.codes_row_bytes(cols))
    }

    /// Bytes of a whole matrix; `None` when they do not fit in a u64.
    pub fn payload_bytes(self, rows: usize, cols: usize) -> Option<u64> {
        let codes = (self.coded_rows(rows)? as u64).checked_mul(self.codes_row_bytes(cols) as u64)?;
        codes.checked_add((rows as u64).checked_mul(self.scales_row_bytes(cols) as u64)?)
    }

    /// Whether elements are the source's own bytes.
    pub const fn is_exact(self) -> bool {
        matches!(self, Encoding::Exact(_))
    }

    /// Whether it stores only what sits on its grid, and that without loss.
    pub const fn is_grid(self) -> bool {
        matches!(self, Encoding::Grid(_) | Encoding::Mxfp4)
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Serialize for Encoding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Encoding {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Encoding::from_name(&name)
            .ok_or_else(|| serde::de::Error::custom(format!("unknown encoding {name:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique_and_round_trip() {
        let all = Encoding::all();
        for (i, a) in all.iter().enumerate() {
            assert_eq!(Encoding::from_code(a.code()), Some(*a));
            assert_eq!(Encoding::from_name(&a.name()), Some(*a));
            assert!(all[i + 1..].iter().all(|b| a.code() != b.code() && a.name() != b.name()));
        }
    }

    #[test]
    fn bytes_per_row() {
        let tq3 = Encoding::from_name("tq3").unwrap();
        assert_eq!((tq3.codes_row_bytes(576), tq3.scales_row_bytes(576)), (216, 2));
        let grouped = Encoding::from_name("tq4-g64").unwrap();
        assert_eq!((grouped.codes_row_bytes(640), grouped.scales_row_bytes(640)), (320, 20));
        assert!(!Encoding::from_name("tq4-g128").unwrap().supports_cols(576));
        let polar = Encoding::Polar(Polar::P4222);
        assert_eq!((polar.codes_row_bytes(64), polar.scales_row_bytes(64)), (23, 8));
        assert_eq!(polar.codes_row_bytes(32), 12);
        let trellis = Encoding::from_name("tt3-s12").unwrap();
        assert_eq!(trellis, Encoding::Trellis { bits: 3, states: States::S12 });
        // Rows are rounded up to whole bytes.
        assert_eq!(trellis.codes_bytes(16, 64), Some(16 * 24));
        assert_eq!(trellis.payload_bytes(13, 64), Some(16 * 24 + 13 * 2));
        assert_eq!(trellis.payload_bytes(usize::MAX, 64), None);
        let bytes = |name: &str| {
            let grid = Encoding::from_name(name).unwrap();
            (grid.codes_row_bytes(64), grid.scales_row_bytes(64))
        };
        assert_eq!(bytes("grid4-f16"), (32, 4));
        assert_eq!(bytes("grid5m-bf16"), (40, 8));
        assert_eq!(bytes("grid4w"), (32, 16));
        assert_eq!(bytes("grid8-row-bf16"), (64, 4));
        assert_eq!(bytes("mxfp4"), (32, 2));
    }
}
