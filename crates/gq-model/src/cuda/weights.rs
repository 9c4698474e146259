//! Weights on a device: each is brought there once, in the order that kernels want.

use super::arena::GRAIN;
use super::plan::{Form, RotationKey, rotation_bytes, rotation_of, weight_bytes};
use super::store::Store;
use crate::error::DeviceError;
use crate::ids::WeightId;
use crate::linear::Linear;
use crate::ops::{Norm, Router};
use gq_checkpoint::{RouterSpec, Scoring};
use gq_cuda::{Gpu, PlaneCode, RotationTables, ScaleForm, Span, TrellisCode, layout};
use gq_tensor::{DType, Isa, Storage};
use std::collections::BTreeMap;

/// A matrix, or several stacked.
pub(super) struct Weight {
    pub(super) codes: Codes,
    /// What activations are rotated by before they meet it.
    pub(super) rotation: Option<RotationKey>,
}

pub(super) enum Codes {
    Planes { code: PlaneCode, form: ScaleForm, codes: Span, scales: Span },
    Trellis { code: TrellisCode, codes: Span, scales: Span },
    Exact { dtype: DType, values: Span },
}

pub(super) struct Rotation {
    pub(super) tables: RotationTables,
    signs: Span,
    factors: Span,
}

impl Rotation {
    pub(super) fn spans(&self) -> [Span; 2] {
        [self.signs, self.factors]
    }
}

/// All that a model has there.
#[derive(Default)]
pub(super) struct Weights {
    store: Store,
    matrices: BTreeMap<WeightId, Weight>,
    /// Biases of matrices, f32 `[rows]`.
    biases: BTreeMap<WeightId, Span>,
    norms: BTreeMap<WeightId, Span>,
    rotations: BTreeMap<RotationKey, Rotation>,
    /// Other vectors, by what they hold.
    constants: BTreeMap<Vec<u32>, Span>,
}

/// What a model multiplies by.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) matrices: BTreeMap<WeightId, Linear>,
    /// Those whose bias is added on the device: no kernel adds an expert's.
    pub(super) biased: Vec<WeightId>,
    pub(super) norms: BTreeMap<WeightId, Norm>,
    /// Other vectors, one for each operator that takes one.
    pub(super) constants: Vec<Vec<f32>>,
}

/// Whether the kernel chooses experts by this rule.
pub(super) fn chooses(spec: &RouterSpec, scaled: bool, experts: usize) -> bool {
    spec.scoring == Scoring::Softmax
        && spec.renormalize
        && spec.groups.is_none()
        && !spec.selection_bias
        && (!scaled || spec.scale == 1.0)
        && experts <= 512
        && spec.top_k <= experts.min(32)
}

/// The factor of each expert as the kernel takes it; `None` where the kernel does not choose.
pub(super) fn expert_factors(router: &Router, experts: usize) -> Option<Vec<f32>> {
    let Router { spec, scales, .. } = router;
    let by_kernel = chooses(spec, scales.is_some(), experts) && router.selection_bias.is_none();
    by_kernel.then(|| scales.clone().unwrap_or_else(|| vec![spec.scale; experts]))
}

impl Wanted {
    /// Bytes of all of it.
    pub(super) fn bytes(&self) -> u64 {
        let floats = |count: usize| (4 * count as u64).next_multiple_of(GRAIN);
        let mut rotations = BTreeMap::new();
        let mut total = 0;
        for linear in self.matrices.values() {
            let storage = storage_of(linear);
            total += weight_bytes(storage, linear.shape, linear.precise);
            if let Some(key) = rotation_of(storage, linear.shape.cols, linear.precise) {
                let bytes = || RotationTables::new(key.0, key.1).map_or(0, |tables| rotation_bytes(&tables));
                rotations.entry(key).or_insert_with(bytes);
            }
        }
        let bits = |values: &Vec<f32>| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let constants: BTreeMap<_, _> = self.constants.iter().map(|values| (bits(values), values)).collect();
        let biases = self.biased.iter().filter_map(|id| self.matrices.get(id)?.bias());
        let norms = self.norms.values().filter_map(|norm| norm.weight.as_deref());
        let vectors = biases.chain(norms).chain(constants.into_values().map(Vec::as_slice));
        total + vectors.map(|vector| floats(vector.len())).sum::<u64>() + rotations.values().sum::<u64>()
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
    /// Brings all of it, to memory of as many bytes as it was said to take.
    pub(super) fn bring(gpu: &Gpu, wanted: &Wanted) -> Result<Weights, DeviceError> {
        let store = Store::planned(gpu, wanted.bytes())?;
        let mut weights = Weights { store, ..Weights::default() };
        for norm in wanted.norms.values() {
            weights.norm(gpu, norm)?;
        }
        wanted.matrices.values().try_for_each(|linear| weights.matrix(gpu, linear))?;
        for id in &wanted.biased {
            let linear = wanted.matrices.get(id).ok_or(DeviceError::Missing)?;
            weights.bias(gpu, linear)?;
        }
        for constant in &wanted.constants {
            weights.constant(gpu, constant)?;
        }
        Ok(weights)
    }

    /// Bytes that are there, and bytes that were planned.
    pub(super) fn filled(&self) -> (u64, Option<u64>) {
        self.store.filled()
    }

    fn matrix(&mut self, gpu: &Gpu, linear: &Linear) -> Result<(), DeviceError> {
        if self.matrices.contains_key(&linear.id) {
            return Ok(());
        }
        let (shape, store) = (linear.shape, &mut self.store);
        let codes = match form_of(linear) {
            Form::Planes(code, form) => {
                let rows = linear.matrix();
                let codes = layout::planes_upload(code.bits(), shape.rows, shape.cols, rows.codes());
                let (codes, scales) = (store.put(gpu, &codes)?, store.put(gpu, rows.scales())?);
                Codes::Planes { code, form, codes, scales }
            }
            Form::Trellis(code) => {
                let (rows, bits) = (linear.matrix(), code.bits);
                let (each, cols, stacked) = (shape.rows_each(), shape.cols, shape.matrices);
                let codes = layout::trellis_upload(bits, each, cols, stacked, rows.codes());
                let (codes, scales) = (store.put(gpu, &codes)?, store.put(gpu, rows.scales())?);
                Codes::Trellis { code, codes, scales }
            }
            Form::Exact(dtype) => match linear.stored_bytes() {
                Some(bytes) => Codes::Exact { dtype, values: store.put(gpu, &bytes)? },
                None => decoded(gpu, store, linear)?,
            },
            Form::Decoded => decoded(gpu, store, linear)?,
        };
        let rotation = rotation_of(storage_of(linear), shape.cols, linear.precise);
        if let Some(key) = rotation.filter(|key| !self.rotations.contains_key(key))
            && let Some(tables) = RotationTables::new(key.0, key.1)
        {
            let [signs, factors] = tables.bytes();
            let (signs, factors) = (store.put(gpu, &signs)?, store.put(gpu, &factors)?);
            self.rotations.insert(key, Rotation { tables, signs, factors });
        }
        self.matrices.insert(linear.id, Weight { codes, rotation });
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

    /// A matrix's bias, if it has one.
    pub(super) fn bias(&mut self, gpu: &Gpu, linear: &Linear) -> Result<Option<Span>, DeviceError> {
        let Some(bias) = linear.bias() else { return Ok(None) };
        vector(&mut self.biases, &mut self.store, (gpu, linear.id), bias).map(Some)
    }

    /// A norm's factors, if it has some.
    pub(super) fn norm(&mut self, gpu: &Gpu, norm: &Norm) -> Result<Option<Span>, DeviceError> {
        let Some(weight) = &norm.weight else { return Ok(None) };
        vector(&mut self.norms, &mut self.store, (gpu, norm.id), weight).map(Some)
    }

    /// A vector that is always the same.
    pub(super) fn constant(&mut self, gpu: &Gpu, values: &[f32]) -> Result<Span, DeviceError> {
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        vector(&mut self.constants, &mut self.store, (gpu, bits), values)
    }
}

/// A vector among those that are there, which is brought if it is not one of them.
fn vector<K: Ord>(
    known: &mut BTreeMap<K, Span>,
    store: &mut Store,
    (gpu, key): (&Gpu, K),
    values: &[f32],
) -> Result<Span, DeviceError> {
    if let Some(span) = known.get(&key) {
        return Ok(*span);
    }
    let span = store.put(gpu, &floats(values))?;
    known.insert(key, span);
    Ok(span)
}

/// Rows decoded, a few at a time.
fn decoded(gpu: &Gpu, store: &mut Store, linear: &Linear) -> Result<Codes, DeviceError> {
    const STEP: usize = 1 << 22;
    let (rows, cols) = (linear.shape.rows, linear.shape.cols);
    let place = store.take(gpu, 4 * rows * cols)?;
    let step = (STEP / cols.max(1)).max(1).next_multiple_of(32);
    for first in (0..rows).step_by(step) {
        let some = first..(first + step).min(rows);
        let mut out = vec![0.0; some.len() * cols];
        linear.read_rows(Isa::detect(), some, &mut out);
        store.write(gpu, place, 4 * first * cols, &floats(&out))?;
    }
    Ok(Codes::Exact { dtype: DType::F32, values: place.span })
}
