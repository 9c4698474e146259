//! Weights on a device: each is brought there once, in the order that kernels want.

use super::plan::{Form, RotationKey, rotation_bytes, rotation_of, weight_bytes};
use crate::error::DeviceError;
use crate::ids::WeightId;
use crate::linear::Linear;
use crate::ops::Norm;
use gq_cuda::{Buffer, Gpu, PlaneCode, RotationTables, ScaleForm, Span, TrellisCode, layout};
use gq_tensor::{DType, Isa, Storage};
use std::collections::BTreeMap;

/// A matrix, or several stacked.
pub(super) struct Weight {
    pub(super) codes: Codes,
    /// What activations are rotated by before they meet it.
    pub(super) rotation: Option<RotationKey>,
    /// f32 `[rows]`.
    pub(super) bias: Option<Buffer>,
}

pub(super) enum Codes {
    Planes { code: PlaneCode, form: ScaleForm, codes: Buffer, scales: Buffer },
    Trellis { code: TrellisCode, codes: Buffer, scales: Buffer },
    Exact { dtype: DType, values: Buffer },
}

pub(super) struct Rotation {
    pub(super) tables: RotationTables,
    signs: Buffer,
    factors: Buffer,
}

impl Rotation {
    pub(super) fn spans(&self) -> [Span; 2] {
        [self.signs.span(), self.factors.span()]
    }
}

/// All that a model has there.
#[derive(Default)]
pub(super) struct Weights {
    matrices: BTreeMap<WeightId, Weight>,
    norms: BTreeMap<WeightId, Buffer>,
    rotations: BTreeMap<RotationKey, Rotation>,
    /// Other vectors, by what they hold.
    constants: BTreeMap<Vec<u32>, Buffer>,
}

/// What a model multiplies by.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) matrices: BTreeMap<WeightId, Linear>,
    pub(super) norms: BTreeMap<WeightId, Norm>,
}

impl Wanted {
    /// Bytes of all of it.
    pub(super) fn bytes(&self) -> u64 {
        let floats = |count: usize| (4 * count as u64).next_multiple_of(super::arena::GRAIN);
        let mut rotations = BTreeMap::new();
        let mut total = 0;
        for linear in self.matrices.values() {
            let storage = storage_of(linear);
            total += weight_bytes(storage, linear.shape, linear.precise);
            total += linear.bias().map_or(0, |bias| floats(bias.len()));
            if let Some(key) = rotation_of(storage, linear.shape.cols, linear.precise) {
                let bytes = || RotationTables::new(key.0, key.1).map_or(0, |tables| rotation_bytes(&tables));
                rotations.entry(key).or_insert_with(bytes);
            }
        }
        let norms = self.norms.values().filter_map(|norm| norm.weight.as_ref());
        total + norms.map(|weight| floats(weight.len())).sum::<u64>() + rotations.values().sum::<u64>()
    }
}

fn form_of(linear: &Linear) -> Form {
    Form::of(storage_of(linear), linear.shape.cols, linear.precise)
}

fn storage_of(linear: &Linear) -> Storage {
    Storage::new(linear.encoding(), linear.rotation())
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

impl Weights {
    /// Brings all of it.
    pub(super) fn bring(&mut self, gpu: &Gpu, wanted: &Wanted) -> Result<(), DeviceError> {
        for norm in wanted.norms.values() {
            self.norm(gpu, norm)?;
        }
        wanted.matrices.values().try_for_each(|linear| self.matrix(gpu, linear))
    }

    fn matrix(&mut self, gpu: &Gpu, linear: &Linear) -> Result<(), DeviceError> {
        if self.matrices.contains_key(&linear.id) {
            return Ok(());
        }
        let shape = linear.shape;
        let codes = match form_of(linear) {
            Form::Planes(code, form) => {
                let rows = linear.matrix();
                let codes = layout::planes_upload(code.bits(), shape.rows, shape.cols, rows.codes());
                let (codes, scales) = (gpu.upload(&codes)?, gpu.upload(rows.scales())?);
                Codes::Planes { code, form, codes, scales }
            }
            Form::Trellis(code) => {
                let (rows, bits) = (linear.matrix(), code.bits);
                let (each, cols, stacked) = (shape.rows_each(), shape.cols, shape.matrices);
                let codes = layout::trellis_upload(bits, each, cols, stacked, rows.codes());
                let (codes, scales) = (gpu.upload(&codes)?, gpu.upload(rows.scales())?);
                Codes::Trellis { code, codes, scales }
            }
            Form::Exact(dtype) => match linear.stored_bytes() {
                Some(bytes) => Codes::Exact { dtype, values: gpu.upload(&bytes)? },
                None => decoded(gpu, linear)?,
            },
            Form::Decoded => decoded(gpu, linear)?,
        };
        let rotation = rotation_of(storage_of(linear), shape.cols, linear.precise);
        if let Some(key) = rotation.filter(|key| !self.rotations.contains_key(key))
            && let Some(tables) = RotationTables::new(key.0, key.1)
        {
            let [signs, factors] = tables.bytes();
            let (signs, factors) = (gpu.upload(&signs)?, gpu.upload(&factors)?);
            self.rotations.insert(key, Rotation { tables, signs, factors });
        }
        let bias = linear.bias().map(|bias| gpu.upload(&floats(bias))).transpose()?;
        self.matrices.insert(linear.id, Weight { codes, rotation, bias });
        Ok(())
    }

    /// A matrix, which is brought if it is not there yet.
    pub(super) fn get(&mut self, gpu: &Gpu, linear: &Linear) -> Result<&Weight, DeviceError> {
        self.matrix(gpu, linear)?;
        self.matrices.get(&linear.id).ok_or(DeviceError::Missing)
    }

    pub(super) fn rotation(&self, key: RotationKey) -> Result<&Rotation, DeviceError> {
        self.rotations.get(&key).ok_or(DeviceError::Missing)
    }

    /// A norm's factors, if it has some.
    pub(super) fn norm(&mut self, gpu: &Gpu, norm: &Norm) -> Result<Option<Span>, DeviceError> {
        let Some(weight) = &norm.weight else { return Ok(None) };
        if let Some(buffer) = self.norms.get(&norm.id) {
            return Ok(Some(buffer.span()));
        }
        let buffer = gpu.upload(&floats(weight))?;
        let span = buffer.span();
        self.norms.insert(norm.id, buffer);
        Ok(Some(span))
    }

    /// A vector that is always the same.
    pub(super) fn constant(&mut self, gpu: &Gpu, values: &[f32]) -> Result<Span, DeviceError> {
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        if let Some(buffer) = self.constants.get(&bits) {
            return Ok(buffer.span());
        }
        let buffer = gpu.upload(&floats(values))?;
        let span = buffer.span();
        self.constants.insert(bits, buffer);
        Ok(span)
    }
}

/// Rows decoded, a few at a time.
fn decoded(gpu: &Gpu, linear: &Linear) -> Result<Codes, DeviceError> {
    const STEP: usize = 1 << 22;
    let (rows, cols) = (linear.shape.rows, linear.shape.cols);
    let mut values = gpu.reserve(4 * rows * cols)?;
    let step = (STEP / cols.max(1)).next_multiple_of(32);
    for first in (0..rows).step_by(step) {
        let some = first..(first + step).min(rows);
        let mut out = vec![0.0; some.len() * cols];
        linear.read_rows(Isa::detect(), some, &mut out);
        gpu.write(&mut values, 4 * first * cols, &floats(&out))?;
    }
    Ok(Codes::Exact { dtype: DType::F32, values })
}
