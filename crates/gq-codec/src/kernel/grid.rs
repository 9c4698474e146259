//! What every level agrees on about grids: levels, steps and rounding.

use crate::packing::GROUP;
use gq_tensor::{Encoding, Grid, Rounding, Spacing};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// Twice the magnitudes of four-bit floats.
pub(crate) const FLOATS: [i8; 8] = [0, 1, 2, 3, 4, 6, 8, 12];

/// The four-bit floats, with a zero of each sign.
const FLOAT_VALUES: [f32; 16] =
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

/// Twice the four-bit floats.
pub(crate) const SIGNED_FLOATS: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// How the levels of a grid are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Scale,
    Minimum,
    Wide,
    Row,
    /// A power of two.
    Power,
}

/// A grid, as kernels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GridKind {
    pub(crate) bits: u8,
    pub(crate) layout: Layout,
    pub(crate) rounding: Rounding,
}

/// What levels of a group are multiplied by, and what is added then; 0 where the layout stores no minimum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) scale: f32,
    pub(crate) minimum: f32,
}

impl GridKind {
    pub(crate) fn of(encoding: Encoding) -> Option<GridKind> {
        match encoding {
            Encoding::Grid(Grid { bits, spacing, rounding }) => {
                let layout = match spacing {
                    Spacing::Scale => Layout::Scale,
                    Spacing::Minimum => Layout::Minimum,
                    Spacing::Wide => Layout::Wide,
                    Spacing::Row => Layout::Row,
                };
                Some(GridKind { bits, layout, rounding })
            }
            Encoding::Mxfp4 => Some(GridKind { bits: 4, layout: Layout::Power, rounding: Rounding::F32 }),
            _ => None,
        }
    }

    /// Elements of a scale.
    pub(crate) fn group(self, cols: usize) -> usize {
        if self.layout == Layout::Row { cols } else { GROUP }
    }

    /// Bytes of a row's scales and minima.
    pub(crate) fn scale_bytes(self, cols: usize) -> usize {
        match self.layout {
            Layout::Scale => Spacing::Scale.row_bytes(cols),
            Layout::Minimum => Spacing::Minimum.row_bytes(cols),
            Layout::Wide => Spacing::Wide.row_bytes(cols),
            Layout::Row => Spacing::Row.row_bytes(cols),
            Layout::Power => cols / GROUP,
        }
    }

    pub(crate) fn has_minimum(self) -> bool {
        matches!(self.layout, Layout::Minimum | Layout::Wide)
    }

    /// Value of level 1 over the scale: four-bit floats are stored as integers of twice their value.
    #[inline(always)]
    pub(crate) fn unit(self) -> f32 {
        if self.layout == Layout::Power { 0.5 } else { 1.0 }
    }

    /// The integer that a code stands for.
    #[inline(always)]
    pub(crate) fn level(self, code: u8) -> i8 {
        match self.layout {
            Layout::Power => SIGNED_FLOATS[usize::from(code & 15)],
            Layout::Minimum | Layout::Wide => code as i8,
            Layout::Scale | Layout::Row => {
                let shift = 8 - self.bits;
                (code << shift) as i8 >> shift
            }
        }
    }

    /// Scale and minimum of group `g` of a row.
    #[inline(always)]
    pub(crate) fn step(self, scales: &[u8], g: usize) -> Step {
        let half = |at: usize| {
            let bytes = scales.get(at..).and_then(|bytes| bytes.first_chunk::<2>());
            bytes.map_or(0.0, |bytes| f16::from_le_bytes(*bytes).to_f32())
        };
        let single = |at: usize| {
            let bytes = scales.get(at..).and_then(|bytes| bytes.first_chunk::<4>());
            bytes.map_or(0.0, |bytes| f32::from_le_bytes(*bytes))
        };
        let (scale, minimum) = match self.layout {
            Layout::Scale => (half(2 * g), 0.0),
            Layout::Minimum => (half(4 * g), half(4 * g + 2)),
            Layout::Wide => (single(8 * g), single(8 * g + 4)),
            Layout::Row => (single(0), 0.0),
            Layout::Power => match scales.get(g) {
                Some(255) => (f32::NAN, 0.0),
                Some(&exponent) => (power_of(i32::from(exponent) - 127), 0.0),
                None => (0.0, 0.0),
            },
        };
        Step { scale, minimum }
    }

    /// Writes what [`step`](GridKind::step) reads.
    pub(crate) fn write_step(self, Step { scale, minimum }: Step, out: &mut [u8]) {
        let bytes = match self.layout {
            Layout::Scale => f16::from_f32(scale).to_le_bytes().to_vec(),
            Layout::Minimum => {
                [f16::from_f32(scale).to_le_bytes(), f16::from_f32(minimum).to_le_bytes()].concat()
            }
            Layout::Wide => [scale.to_le_bytes(), minimum.to_le_bytes()].concat(),
            Layout::Row => scale.to_le_bytes().to_vec(),
            Layout::Power => vec![(scale.to_bits() >> 23) as u8],
        };
        out.copy_from_slice(&bytes);
    }
}

/// Values of a group of codes.
#[inline(always)]
pub(crate) fn decode_group(
    kind: GridKind,
    Step { scale, minimum }: Step,
    codes: &[u8; GROUP],
) -> [f32; GROUP] {
    let value = |code: u8| match kind.layout {
        Layout::Power => FLOAT_VALUES[usize::from(code & 15)],
        Layout::Scale | Layout::Minimum | Layout::Wide | Layout::Row => f32::from(kind.level(code)),
    };
    let mut values = codes.map(|code| scale * value(code));
    if kind.has_minimum() {
        values.iter_mut().for_each(|value| *value += minimum);
    }
    match kind.rounding {
        Rounding::F32 => {}
        Rounding::BF16 => values.iter_mut().for_each(|value| *value = to_bf16(*value)),
        Rounding::F16 => {
            let mut halves = [f16::ZERO; GROUP];
            halves.convert_from_f32_slice(&values);
            halves.convert_to_f32_slice(&mut values);
        }
    }
    values
}

/// The nearest bf16, ties to even; NaN stays NaN.
#[inline(always)]
fn to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000;
    f32::from_bits(if value.is_nan() { bits | 0x0040_0000 } else { rounded })
}

/// `2^power`, for powers from -127 to 127.
pub(crate) fn power_of(power: i32) -> f32 {
    match power {
        -127 => f32::from_bits(1 << 22),
        _ => f32::from_bits(((power + 127) as u32) << 23),
    }
}

/// Rows on a grid, contiguous.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GridRows<'a> {
    pub(crate) kind: GridKind,
    pub(crate) cols: usize,
    pub(crate) codes: &'a [u8],
    pub(crate) scales: &'a [u8],
}

impl<'a> GridRows<'a> {
    pub(super) fn check(&self, rows: usize) {
        assert!(self.cols > 0 && self.cols.is_multiple_of(GROUP));
        assert_eq!(self.codes.len(), rows * self.code_bytes());
        assert_eq!(self.scales.len(), rows * self.kind.scale_bytes(self.cols));
    }

    fn code_bytes(&self) -> usize {
        self.cols / 8 * usize::from(self.kind.bits)
    }

    /// Codes and scales of each row.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let scales = self.scales.chunks_exact(self.kind.scale_bytes(self.cols));
        self.codes.chunks_exact(self.code_bytes()).zip(scales)
    }
}
