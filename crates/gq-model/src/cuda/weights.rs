//! Weights on a device: each is brought there once, in the order that kernels want.

use super::arena::GRAIN;
use super::plan::{Form, RotationKey, chooses, rotation_bytes, rotation_of, weight_bytes};
use super::store::Store;
use crate::error::DeviceError;
use crate::ids::WeightId;
use crate::linear::Linear;
use crate::ops::{Norm, Router};
use gq_cuda::{Gpu, PlaneCode, RotationTables, ScaleForm, Span, TrellisCode, layout};
use gq_tensor::{DType, Isa, MatrixShape, Storage};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

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
    /// By the numbers of what lies there as one matrix, row after row.
    matrices: BTreeMap<Vec<WeightId>, Weight>,
    /// Biases of the same, f32 `[rows]`.
    biases: BTreeMap<Vec<WeightId>, Span>,
    norms: BTreeMap<WeightId, Span>,
    rotations: BTreeMap<RotationKey, Rotation>,
    /// Other vectors, by what they hold.
    constants: BTreeMap<Vec<u32>, Span>,
}

/// What a model multiplies by.
#[derive(Default)]
pub(super) struct Wanted {
    pub(super) matrices: BTreeMap<WeightId, Linear>,
    /// Those that are brought as one matrix each.
    pub(super) joined: Vec<Vec<WeightId>>,
    /// Those whose bias is added on the device: no kernel adds an expert's.
    pub(super) biased: Vec<WeightId>,
    pub(super) norms: BTreeMap<WeightId, Norm>,
    /// Other vectors, one for each operator that takes one.
    pub(super) constants: Vec<Vec<f32>>,
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

/// Which of several weights that meet one input lie next to each other as one matrix.
pub(super) fn runs(weights: &[&Linear]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, linear) in weights.iter().enumerate() {
        match runs.last_mut() {
            Some(run) if joins(&weights[run.clone()], linear) => run.end = index + 1,
            _ => runs.push(index..index + 1),
        }
    }
    runs
}

/// Whether a matrix may follow others in one.
fn joins(before: &[&Linear], linear: &Linear) -> bool {
    let alike = |other: &&Linear| {
        let of = |linear: &Linear| {
            let (storage, cols) = (storage_of(linear), linear.shape.cols);
            let biased = linear.bias().is_some();
            (form_of(linear), rotation_of(storage, cols, linear.precise), cols, biased)
        };
        // Strips of a trellis code have 256 rows.
        let ends = match form_of(other) {
            Form::Planes(..) => true,
            Form::Trellis(_) => other.shape.rows.is_multiple_of(256),
            Form::Exact(_) | Form::Decoded => false,
        };
        ends && of(other) == of(linear) && other.id != linear.id && other.shape.matrices == 1
    };
    linear.shape.matrices == 1 && before.iter().all(alike)
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
        let joined = wanted.joined.iter().flatten().collect::<BTreeSet<_>>();
        let alone = wanted.matrices.keys().filter(|id| !joined.contains(id)).map(|id| vec![*id]);
        for ids in wanted.joined.iter().cloned().chain(alone) {
            let linear = ids.iter().map(|id| wanted.matrices.get(id).ok_or(DeviceError::Missing));
            let linear: Vec<&Linear> = linear.collect::<Result<_, _>>()?;
            weights.joined(gpu, &linear)?;
            if ids.iter().all(|id| wanted.biased.contains(id)) {
                weights.bias(gpu, &linear)?;
            }
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

    fn matrix(&mut self, gpu: &Gpu, all: &[&Linear]) -> Result<Weight, DeviceError> {
        let first = *all.first().ok_or(DeviceError::Missing)?;
        let (shape, store) = (first.shape, &mut self.store);
        let codes = match form_of(first) {
            Form::Planes(code, form) => {
                let rows = all.iter().map(|linear| linear.shape.rows).sum();
                let matrices: Vec<_> = all.iter().map(|linear| linear.matrix()).collect();
                let stored: Vec<&[u8]> = matrices.iter().map(|rows| rows.codes()).collect();
                let codes = match stored[..] {
                    [codes] => layout::planes_upload(code.bits(), rows, shape.cols, codes),
                    _ => layout::planes_upload(code.bits(), rows, shape.cols, &stored.concat()),
                };
                let scales: Vec<&[u8]> = matrices.iter().map(|rows| rows.scales()).collect();
                let (codes, scales) = (store.put(gpu, &codes)?, store.put(gpu, &scales.concat())?);
                Codes::Planes { code, form, codes, scales }
            }
            Form::Trellis(code) => {
                let (mut codes, mut scales) = (Vec::new(), Vec::new());
                for linear in all {
                    let (rows, MatrixShape { cols, matrices, .. }) = (linear.matrix(), linear.shape);
                    let each = linear.shape.rows_each();
                    codes.extend(layout::trellis_upload(code.bits, each, cols, matrices, rows.codes()));
                    scales.extend_from_slice(rows.scales());
                }
                let (codes, scales) = (store.put(gpu, &codes)?, store.put(gpu, &scales)?);
                Codes::Trellis { code, codes, scales }
            }
            Form::Exact(dtype) => match first.stored_bytes() {
                Some(bytes) => Codes::Exact { dtype, values: store.put(gpu, &bytes)? },
                None => decoded(gpu, store, first)?,
            },
            Form::Decoded => decoded(gpu, store, first)?,
        };
        let rotation = rotation_of(storage_of(first), shape.cols, first.precise);
        if let Some(key) = rotation.filter(|key| !self.rotations.contains_key(key))
            && let Some(tables) = RotationTables::new(key.0, key.1)
        {
            let [signs, factors] = tables.bytes();
            let (signs, factors) = (store.put(gpu, &signs)?, store.put(gpu, &factors)?);
            self.rotations.insert(key, Rotation { tables, signs, factors });
        }
        Ok(Weight { codes, rotation })
    }

    /// Weights that are one matrix there ([`runs`]), which are brought if they are not there yet.
    pub(super) fn joined(&mut self, gpu: &Gpu, all: &[&Linear]) -> Result<&Weight, DeviceError> {
        let ids: Vec<WeightId> = all.iter().map(|linear| linear.id).collect();
        if !self.matrices.contains_key(&ids) {
            let weight = self.matrix(gpu, all)?;
            self.matrices.insert(ids.clone(), weight);
        }
        self.matrices.get(&ids).ok_or(DeviceError::Missing)
    }

    /// A matrix, which is brought if it is not there yet.
    pub(super) fn get(&mut self, gpu: &Gpu, linear: &Linear) -> Result<&Weight, DeviceError> {
        self.joined(gpu, &[linear])
    }

    pub(super) fn rotation(&self, key: RotationKey) -> Result<&Rotation, DeviceError> {
        self.rotations.get(&key).ok_or(DeviceError::Missing)
    }

    /// The bias of weights that are one matrix, if they have one.
    pub(super) fn bias(&mut self, gpu: &Gpu, all: &[&Linear]) -> Result<Option<Span>, DeviceError> {
        let biases: Vec<&[f32]> = all.iter().filter_map(|linear| linear.bias()).collect();
        if biases.is_empty() {
            return Ok(None);
        }
        let ids = all.iter().map(|linear| linear.id).collect();
        vector(&mut self.biases, &mut self.store, gpu, ids, &biases.concat()).map(Some)
    }

    /// A norm's factors, if it has some.
    pub(super) fn norm(&mut self, gpu: &Gpu, norm: &Norm) -> Result<Option<Span>, DeviceError> {
        let Some(weight) = &norm.weight else { return Ok(None) };
        vector(&mut self.norms, &mut self.store, gpu, norm.id, weight).map(Some)
    }

    /// A vector that is always the same.
    pub(super) fn constant(&mut self, gpu: &Gpu, values: &[f32]) -> Result<Span, DeviceError> {
        let bits: Vec<u32> = values.iter().map(|value| value.to_bits()).collect();
        vector(&mut self.constants, &mut self.store, gpu, bits, values)
    }
}

/// A vector among those that are there, which is brought if it is not one of them.
fn vector<K: Ord>(
    known: &mut BTreeMap<K, Span>,
    store: &mut Store,
    gpu: &Gpu,
    key: K,
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
