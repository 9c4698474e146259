//! Rows of the merged checkpoint, computed when they are read.

use super::change::{Change, check_targets, matched};
use super::named_module::NamedModule;
use super::tied::{HEAD, check_tied};
use super::{Adapter, AdapterError};
use crate::family;
use crate::names::canonical;
use crate::read_at::read_exact_at;
use crate::safetensors::HeaderEntry;
use crate::{ModelSpec, ReadError, SourceTensor};
use gq_tensor::decode_f32;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Tensors whose factors are in memory at a time.
const KEPT: usize = 2;

/// Adapters matched with the tensors they change.
#[derive(Debug)]
pub(crate) struct Merge {
    adapters: Vec<Adapter>,
    changes: BTreeMap<String, Vec<Change>>,
    kept: Mutex<Vec<(String, Arc<Vec<Loaded>>)>>,
}

/// Factors in memory: `scale * left [rows, rank] * right [rank, cols]`, of experts one `right` after the other.
#[derive(Debug)]
struct Loaded {
    rank: usize,
    /// Rows that share a `right`.
    rows: usize,
    scale: f64,
    left: Vec<f32>,
    right: Vec<f32>,
    magnitude: Option<Vec<f32>>,
    /// Rows of the tensor that they are for.
    of: Range<usize>,
}

impl Merge {
    /// Matches adapters with the tensors of a checkpoint, whose tables have their rows already.
    pub(crate) fn new(
        adapters: Vec<Adapter>,
        spec: &ModelSpec,
        tensors: &[SourceTensor],
    ) -> Result<Merge, AdapterError> {
        let by_name: HashMap<&str, &SourceTensor> = tensors.iter().map(|t| (t.name.as_str(), t)).collect();
        let mut changes: BTreeMap<String, Vec<Change>> = BTreeMap::new();
        for (index, adapter) in adapters.iter().enumerate() {
            check_targets(adapter, tensors)?;
            for (name, module) in &adapter.modules {
                if canonical(&format!("{name}.weight")) == HEAD && spec.tied_head {
                    if module.a.is_some() || module.tokens.is_some() {
                        return Err(AdapterError::Untied {
                            module: name.clone(),
                            other: family::EMBEDDING.module(),
                        });
                    }
                    continue; // compared with the embedding below
                }
                let of = NamedModule { adapter, name, module };
                for (tensor, change) in matched(index, of, spec, &by_name)? {
                    let list = changes.entry(tensor).or_default();
                    change.check_after(name, list)?;
                    list.push(change);
                }
            }
            if spec.tied_head {
                check_tied(adapter)?;
            }
        }
        Ok(Merge { adapters, changes, kept: Mutex::default() })
    }

    pub(crate) fn adapters(&self) -> &[Adapter] {
        &self.adapters
    }

    pub(crate) fn changes(&self, tensor: &str) -> bool {
        self.changes.contains_key(tensor)
    }

    /// Bytes that merging takes with this many threads: factors of a few tensors, three rows of f64 per thread.
    pub(crate) fn memory_bytes(&self, threads: usize, tensors: &[SourceTensor]) -> u64 {
        let factors = |list: &Vec<Change>| -> u64 {
            let factors = list.iter().filter_map(|change| change.factors.as_ref());
            factors
                .map(|f| {
                    4 * (f.a.shape.iter().product::<usize>() + f.b.shape.iter().product::<usize>()) as u64
                })
                .sum()
        };
        let largest = self.changes.values().map(factors).max().unwrap_or(0);
        let cols =
            tensors.iter().filter(|t| self.changes(&t.name)).map(SourceTensor::cols).max().unwrap_or(0);
        let known = 4096 * self.changes.values().map(Vec::len).sum::<usize>() as u64; // names and places
        // Loading a tensor's factors holds their bytes and, for embeddings, a transposed copy besides.
        known + (KEPT as u64 + 2) * largest + (threads * 3 * 8 * cols) as u64
    }

    /// Merges into decoded rows `[rows.len(), cols]`.
    pub(crate) fn apply(
        &self,
        tensor: &SourceTensor,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), ReadError> {
        let Some(changes) = self.changes.get(&tensor.name) else { return Ok(()) };
        let loaded = self.load(tensor, changes)?;
        let cols = tensor.cols();
        let (mut delta, mut now, mut base) = (vec![0.0; cols], vec![0.0; cols], vec![0.0; cols]);
        for (row, values) in rows.zip(out.chunks_exact_mut(cols.max(1))) {
            for change in changes {
                if let Some(whole) = &change.whole {
                    self.read(change.adapter, whole, row, values)?;
                }
                if let Some((tokens, place)) = change.tokens.as_ref().and_then(|tokens| tokens.place(row)) {
                    self.read(change.adapter, tokens, place, values)?;
                }
            }
            base.iter_mut().zip(&*values).for_each(|(base, value)| *base = f64::from(*value));
            now.copy_from_slice(&base);
            for factors in loaded.iter() {
                let Some(row) = row.checked_sub(factors.of.start).filter(|row| *row < factors.of.len())
                else {
                    continue;
                };
                factors.delta(row, &mut delta);
                let factor = match &factors.magnitude {
                    None => 1.0,
                    Some(magnitude) => {
                        let squares: f64 = base.iter().zip(&delta).map(|(w, d)| (w + d) * (w + d)).sum();
                        f64::from(magnitude.get(row).copied().unwrap_or(f32::NAN)) / squares.sqrt()
                    }
                };
                now.iter_mut().zip(&delta).for_each(|(now, delta)| *now = factor * (*now + delta));
            }
            for change in changes {
                if let Some((added, scale)) = &change.added {
                    let mut bias = vec![0.0; cols];
                    self.read(change.adapter, added, 0, &mut bias)?;
                    now.iter_mut().zip(&bias).for_each(|(now, bias)| *now += scale * f64::from(*bias));
                }
            }
            values.iter_mut().zip(&now).for_each(|(value, now)| *value = *now as f32);
        }
        Ok(())
    }

    /// Factors of a tensor, read once while it is being worked on.
    fn load(&self, tensor: &SourceTensor, changes: &[Change]) -> Result<Arc<Vec<Loaded>>, ReadError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, loaded)) = kept.iter().find(|(name, _)| *name == tensor.name) {
            return Ok(loaded.clone());
        }
        let mut loaded = Vec::new();
        for change in changes {
            let Some(factors) = &change.factors else { continue };
            let whole = |entry: &HeaderEntry| {
                let mut values = vec![0.0; entry.shape.iter().product()];
                self.read(change.adapter, entry, 0, &mut values)?;
                Ok(values)
            };
            let (a, b): (Vec<f32>, Vec<f32>) = (whole(&factors.a)?, whole(&factors.b)?);
            let (left, right) = factors.order(a, b, tensor.cols());
            let magnitude = factors.magnitude.as_ref().map(whole).transpose()?;
            let of = factors.rows.clone().unwrap_or(0..tensor.rows());
            let (rank, rows, scale) = (factors.rank, of.len() / factors.experts(), factors.scale);
            loaded.push(Loaded { rank, rows, scale, left, right, magnitude, of });
        }
        let loaded = Arc::new(loaded);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((tensor.name.clone(), loaded.clone()));
        Ok(loaded)
    }

    /// Reads `out.len()` values of an adapter's tensor, from its row `row` (of that length) on.
    fn read(
        &self,
        adapter: usize,
        entry: &HeaderEntry,
        row: usize,
        out: &mut [f32],
    ) -> Result<(), ReadError> {
        let Some(adapter) = self.adapters.get(adapter) else { return Ok(()) };
        let mut bytes = vec![0; out.len() * entry.dtype.size()];
        let offset = entry.offset + (row * bytes.len()) as u64;
        read_exact_at(&adapter.file, &mut bytes, offset)
            .map_err(|source| ReadError::Io { path: adapter.path.clone(), source })?;
        decode_f32(entry.dtype, &bytes, out);
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(at) => {
                let (name, cols) = (entry.name.clone(), entry.shape.last().copied().unwrap_or(1).max(1));
                Err(ReadError::NotFinite { name, row: row + at / cols, col: at % cols, value: out[at] })
            }
        }
    }
}

impl Loaded {
    /// `scale * left[row] * right`, summed over the rank in order.
    fn delta(&self, row: usize, out: &mut [f64]) {
        out.fill(0.0);
        let left = self.left.get(row * self.rank..(row + 1) * self.rank).unwrap_or_default();
        let first = row / self.rows.max(1) * self.rank * out.len();
        let right = self.right.get(first..).unwrap_or_default();
        for (left, right) in left.iter().zip(right.chunks_exact(out.len().max(1))) {
            let left = f64::from(*left);
            out.iter_mut().zip(right).for_each(|(out, right)| *out += left * f64::from(*right));
        }
        out.iter_mut().for_each(|out| *out *= self.scale);
    }
}
