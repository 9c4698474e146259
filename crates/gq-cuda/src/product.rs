//! Products of weights in planes (scalar codes, grids, MXFP4) with int8 activations.

use crate::call::{Call, MOST, MOST_OTHER, bytes};
use crate::{Launch, LaunchError, Module, Span};
use gq_tensor::{Encoding, Grid, ScaleGroup, Spacing};

/// What codes in planes stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaneCode {
    /// A scalar code of 1 to 8 bits.
    Scalar(u8),
    /// Four-bit floats.
    Mxfp4,
    /// Signed levels of 4, 5, 6 or 8 bits.
    Grid(u8),
    /// Levels of 4 or 5 bits above a minimum.
    GridFromMinimum(u8),
}

/// Where scales are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleForm {
    /// An f16 for a row.
    RowHalf,
    /// An f16 for `2^shift` groups of 32 elements.
    GroupHalf {
        /// Power of two.
        shift: u32,
    },
    /// An f16 scale and an f16 minimum for 32 elements.
    GroupHalves,
    /// An f32 scale and an f32 minimum for 32 elements.
    GroupFloats,
    /// An f32 for a row.
    RowFloat,
    /// A byte for 32 elements: a power of two.
    GroupExponent,
}

impl ScaleForm {
    pub(crate) fn number(self) -> (u32, u32) {
        match self {
            ScaleForm::RowHalf => (0, 0),
            ScaleForm::GroupHalf { shift } => (1, shift),
            ScaleForm::GroupHalves => (2, 0),
            ScaleForm::GroupFloats => (3, 0),
            ScaleForm::RowFloat => (4, 0),
            ScaleForm::GroupExponent => (5, 0),
        }
    }

    /// Bytes of the scales of a row.
    pub fn row_bytes(self, cols: usize) -> usize {
        match self {
            ScaleForm::RowHalf => 2,
            ScaleForm::GroupHalf { shift } => 2 * ((cols / 32) >> shift),
            ScaleForm::GroupHalves => cols / 32 * 4,
            ScaleForm::GroupFloats => cols / 32 * 8,
            ScaleForm::RowFloat => 4,
            ScaleForm::GroupExponent => cols / 32,
        }
    }
}

impl PlaneCode {
    /// Code and scales of an encoding; `None` where it has no planes.
    pub fn of(encoding: Encoding) -> Option<(PlaneCode, ScaleForm)> {
        match encoding {
            Encoding::Turbo { bits, group } => {
                let form = match group {
                    ScaleGroup::Row => ScaleForm::RowHalf,
                    ScaleGroup::G32 => ScaleForm::GroupHalf { shift: 0 },
                    ScaleGroup::G64 => ScaleForm::GroupHalf { shift: 1 },
                    ScaleGroup::G128 => ScaleForm::GroupHalf { shift: 2 },
                };
                Some((PlaneCode::Scalar(bits), form))
            }
            Encoding::Grid(Grid { bits, spacing, .. }) => Some(match spacing {
                Spacing::Scale => (PlaneCode::Grid(bits), ScaleForm::GroupHalf { shift: 0 }),
                Spacing::Minimum => (PlaneCode::GridFromMinimum(bits), ScaleForm::GroupHalves),
                Spacing::Wide => (PlaneCode::GridFromMinimum(bits), ScaleForm::GroupFloats),
                Spacing::Row => (PlaneCode::Grid(bits), ScaleForm::RowFloat),
            }),
            Encoding::Mxfp4 => Some((PlaneCode::Mxfp4, ScaleForm::GroupExponent)),
            _ => None,
        }
    }

    /// Bits per element.
    pub fn bits(self) -> u8 {
        match self {
            PlaneCode::Scalar(bits) | PlaneCode::Grid(bits) | PlaneCode::GridFromMinimum(bits) => bits,
            PlaneCode::Mxfp4 => 4,
        }
    }

    /// What a level is multiplied by, in addition to the scale.
    pub fn unit(self) -> f32 {
        match self {
            PlaneCode::Scalar(2..=5 | 8) => 1.0 / 32.0,
            PlaneCode::Scalar(6) => 1.0 / 2048.0,
            PlaneCode::Scalar(7) => 1.0 / 1024.0,
            PlaneCode::Mxfp4 => 0.5,
            PlaneCode::Scalar(_) | PlaneCode::Grid(_) | PlaneCode::GridFromMinimum(_) => 1.0,
        }
    }

    /// Kernels for 1, up to 4, up to 8 and more tokens; `None` for bits that no encoding has.
    fn kernels(self) -> Option<(Module, [&'static str; 4])> {
        macro_rules! kernels {
            ($module:ident, $name:literal) => {
                Some((
                    Module::$module,
                    [
                        concat!("gemv_", $name, "_x1"),
                        concat!("gemv_", $name, "_x4"),
                        concat!("gemv_", $name, "_x8"),
                        concat!("prefill_", $name),
                    ],
                ))
            };
        }
        match self {
            PlaneCode::Scalar(1) => kernels!(Scalar, "tq1"),
            PlaneCode::Scalar(2) => kernels!(Scalar, "tq2"),
            PlaneCode::Scalar(3) => kernels!(Scalar, "tq3"),
            PlaneCode::Scalar(4) => kernels!(Scalar, "tq4"),
            PlaneCode::Scalar(5) => kernels!(Scalar, "tq5"),
            PlaneCode::Scalar(6) => kernels!(Scalar, "tq6"),
            PlaneCode::Scalar(7) => kernels!(Scalar, "tq7"),
            PlaneCode::Scalar(8) | PlaneCode::Grid(8) => kernels!(Scalar, "bytes"),
            PlaneCode::Mxfp4 => kernels!(Grid, "mxfp4"),
            PlaneCode::Grid(4) => kernels!(Grid, "grid4"),
            PlaneCode::Grid(5) => kernels!(Grid, "grid5"),
            PlaneCode::Grid(6) => kernels!(Grid, "grid6"),
            PlaneCode::GridFromMinimum(4) => kernels!(Grid, "grid4m"),
            PlaneCode::GridFromMinimum(5) => kernels!(Grid, "grid5m"),
            _ => None,
        }
    }
}

/// Products of chosen experts: matrices of as many rows each, stacked.
#[derive(Clone, Copy, Debug)]
pub struct Experts {
    /// Which expert each slot multiplies by: u32 `[slots]`, each below `stacked`.
    pub ids: Span,
    /// Slots: chosen experts of all tokens. Each has a row of the output.
    pub slots: usize,
    /// Slots that share a row of activations.
    pub per: usize,
    /// Matrices.
    pub stacked: usize,
}

/// Warps that share a row: more where a row is long and rows are few.
pub fn row_split(rows: usize, cols: usize) -> usize {
    match (rows, cols) {
        (_, ..=1024) => 1,
        (..=2048, 4096..) => 4,
        (..=4096, 2048..) => 2,
        _ => 1,
    }
}

/// `y[t, row] = <row, x[t]>`; [`define::plane_product`](crate::define::plane_product), above 8 tokens
/// [`define::plane_product_of_many`](crate::define::plane_product_of_many).
#[derive(Clone, Copy, Debug)]
pub struct PlaneProduct {
    /// What codes stand for.
    pub code: PlaneCode,
    /// Where scales are.
    pub form: ScaleForm,
    /// [`layout::planes_upload`](crate::layout::planes_upload) of all matrices.
    pub codes: Span,
    /// Scales as they are stored.
    pub scales: Span,
    /// Activations in int8 `[tokens, cols]`; with experts `[slots / per, cols]`.
    pub values: Span,
    /// Their scales, f32 `[tokens, cols / 32]`.
    pub steps: Span,
    /// f32 `[tokens, rows]`; with experts `[slots, rows]`.
    pub y: Span,
    /// Rows of a matrix.
    pub rows: usize,
    /// Elements of a row, a multiple of 32.
    pub cols: usize,
    /// Any number; 1 with experts.
    pub tokens: usize,
    /// Chosen matrices of several.
    pub experts: Option<Experts>,
}

impl PlaneProduct {
    /// The launch.
    ///
    /// # Errors
    /// When a range of memory is too short or a number out of range.
    pub fn launch(&self) -> Result<Launch, LaunchError> {
        let bits = usize::from(self.code.bits());
        let Some((module, names)) = self.code.kernels() else {
            let kernel = "gemv";
            return Err(LaunchError::Range { kernel, what: "bits", actual: bits, least: 1, most: 8 });
        };
        let many = self.tokens > 8;
        let place = usize::from(self.tokens > 1) + usize::from(self.tokens > 4) + usize::from(many);
        let mut call = Call::new(if many { Module::Prefill } else { module }, names[place]);
        let most_tokens = if self.experts.is_some() { 1 } else { MOST_OTHER * 64 };
        let tokens = call.check("tokens", self.tokens, 1, most_tokens)?;
        call.multiple("cols", self.cols, 32)?;
        let (slots, per, stacked) = self.experts.map_or((1, 1, 1), |e| (e.slots, e.per, e.stacked));
        call.check("slots", slots, 1, MOST_OTHER)?;
        call.check("slots of a token", per, 1, slots)?;
        call.multiple("slots", slots, per)?;
        let (form, shift) = self.form.number();
        call.multiple("cols", self.cols, 32 << shift)?;
        let inputs = if self.experts.is_some() { slots / per } else { self.tokens };
        let outputs = self.tokens.max(slots);
        call.span("codes", self.codes, bytes(&[stacked, self.rows, self.cols / 8, bits], 1), 16)?;
        let scales = bytes(&[stacked, self.rows, self.form.row_bytes(self.cols)], 1);
        call.span("scales", self.scales, scales, 8)?;
        call.u32(form);
        call.u32(shift);
        call.f32(self.code.unit());
        call.span("values", self.values, bytes(&[inputs, self.cols], 1), 16)?;
        call.span("steps", self.steps, bytes(&[inputs, self.cols / 32], 4), 4)?;
        call.span("y", self.y, bytes(&[outputs, self.rows], 4), 4)?;
        let rows = call.number("rows", self.rows, 1, MOST)?;
        if many {
            call.number("cols", self.cols, 32, MOST)?;
            call.u32(tokens);
            return Ok(call.on([rows.div_ceil(64), tokens.div_ceil(64), 1], 128, 0));
        }
        call.number("rows of all matrices", self.rows.saturating_mul(stacked), 1, MOST)?;
        call.number("cols", self.cols, 32, MOST)?;
        call.u32(tokens);
        let split = row_split(self.rows, self.cols) as u32;
        call.u32(split);
        call.optional("experts", self.experts.map(|e| e.ids), bytes(&[slots], 4), 4)?;
        call.u32(per as u32);
        Ok(call.on([rows.div_ceil(4 / split), slots as u32, 1], 128, 0))
    }
}
