//! Rows of the merged checkpoint, computed when they are read.

use super::modules::Module;
use super::{Adapter, AdapterError};
use crate::names::canonical;
use crate::read_at::read_exact_at;
use crate::safetensors::HeaderEntry;
use crate::{ModelSpec, ReadError, Role, SourceTensor};
use gq_tensor::decode_f32;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

const EMBEDDING: &str = "model.embed_tokens.weight";
const HEAD: &str = "lm_head.weight";
/// Tensors whose factors are in memory at a time.
const KEPT: usize = 2;

/// Adapters matched with the tensors they change.
#[derive(Debug)]
pub(crate) struct Merge {
    adapters: Vec<Adapter>,
    changes: BTreeMap<String, Vec<Change>>,
    kept: Mutex<Vec<(String, Arc<Vec<Loaded>>)>>,
}

/// What one adapter does to one tensor.
#[derive(Clone, Debug)]
struct Change {
    adapter: usize,
    whole: Option<HeaderEntry>,
    factors: Option<Factors>,
}

#[derive(Clone, Debug)]
struct Factors {
    a: HeaderEntry,
    b: HeaderEntry,
    embedding: bool,
    magnitude: Option<HeaderEntry>,
    rank: usize,
    /// Weight and scale together.
    scale: f64,
}

/// Factors in memory: `scale * left [rows, rank] * right [rank, cols]`.
#[derive(Debug)]
struct Loaded {
    rank: usize,
    scale: f64,
    left: Vec<f32>,
    right: Vec<f32>,
    magnitude: Option<Vec<f32>>,
}

impl Merge {
    /// Matches adapters with the tensors of a checkpoint.
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
                let tensor = canonical(&format!("{name}.weight"));
                if tensor == HEAD && spec.tied_head {
                    if module.a.is_some() {
                        return Err(AdapterError::Untied { module: name.clone(), other: "embed_tokens" });
                    }
                    continue; // compared with the embedding below
                }
                let Some(source) = by_name.get(tensor.as_str()) else {
                    return Err(AdapterError::NoTensor { module: name.clone(), tensor });
                };
                let change = change(index, adapter, name, module, source)?;
                let list = changes.entry(tensor).or_default();
                if change.whole.is_some() && !list.is_empty() {
                    let what = "merged after another adapter's change of it";
                    return Err(AdapterError::SavedModule { module: name.clone(), what });
                }
                list.push(change);
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
            }
            base.iter_mut().zip(&*values).for_each(|(base, value)| *base = f64::from(*value));
            now.copy_from_slice(&base);
            for factors in loaded.iter() {
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
            let (left, right) = match factors.embedding {
                false => (b, a),
                true => (transposed(&a, factors.rank), transposed(&b, tensor.cols())),
            };
            let magnitude = factors.magnitude.as_ref().map(whole).transpose()?;
            loaded.push(Loaded { rank: factors.rank, scale: factors.scale, left, right, magnitude });
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
        for (left, right) in left.iter().zip(self.right.chunks_exact(out.len().max(1))) {
            let left = f64::from(*left);
            out.iter_mut().zip(right).for_each(|(out, right)| *out += left * f64::from(*right));
        }
        out.iter_mut().for_each(|out| *out *= self.scale);
    }
}

/// `[m, n]` with `m` rows to `[n, m]`.
fn transposed(values: &[f32], rows: usize) -> Vec<f32> {
    let cols = values.len() / rows.max(1);
    (0..values.len()).map(|i| values[i % rows * cols + i / rows]).collect()
}

fn change(
    index: usize,
    adapter: &Adapter,
    name: &str,
    module: &Module,
    source: &SourceTensor,
) -> Result<Change, AdapterError> {
    let incomplete = |missing| AdapterError::Incomplete { module: name.to_owned(), missing };
    let whole = module.whole.clone();
    if let Some(whole) = &whole {
        check_shape(whole, &source.shape)?;
        let saved = module.a.is_none();
        let table = matches!(source.role, Role::Embedding | Role::Head);
        if saved && !table && !adapter.config.saves(name) {
            return Err(AdapterError::UnknownTensor { name: whole.name.clone() });
        }
        if saved && adapter.weight() != 1.0 {
            let what = "weighted with anything but 1";
            return Err(AdapterError::SavedModule { module: name.to_owned(), what });
        }
    }
    let (a, b) = match (module.a.clone(), module.b.clone()) {
        (Some(a), Some(b)) => (a, b),
        (Some(_), None) => return Err(incomplete("B")),
        (None, Some(_)) => return Err(incomplete("A")),
        (None, None) if module.magnitude.is_some() => return Err(incomplete("A")),
        (None, None) => return Ok(Change { adapter: index, whole, factors: None }),
    };
    let &[rows, cols] = source.shape.as_slice() else {
        return Err(AdapterError::Shape { name: a.name, actual: source.shape.clone(), expected: vec![0, 0] });
    };
    let (rank, scale) = adapter.config.rank_and_scale(name);
    let rank = usize::try_from(rank).unwrap_or(usize::MAX);
    let (a_shape, b_shape) =
        if module.embedding { ([rank, rows], [cols, rank]) } else { ([rank, cols], [rows, rank]) };
    check_shape(&a, &a_shape)?;
    check_shape(&b, &b_shape)?;
    match (&module.magnitude, adapter.config.dora) {
        (Some(_), false) => {
            return Err(AdapterError::Conflict {
                module: name.to_owned(),
                first: "lora_magnitude_vector",
                second: "use_dora false",
            });
        }
        (_, true) if module.embedding => {
            return Err(AdapterError::Option {
                option: "use_dora".to_owned(),
                value: format!("true on the embedding {name}"),
                supported: "DoRA on linear layers",
            });
        }
        (None, true) => return Err(incomplete("lora_magnitude_vector")),
        (Some(magnitude), true) => {
            let elements: usize = magnitude.shape.iter().product();
            if elements != rows {
                check_shape(magnitude, &[rows])?;
            }
        }
        (None, false) => {}
    }
    let factors = Factors {
        a,
        b,
        embedding: module.embedding,
        magnitude: module.magnitude.clone(),
        rank,
        scale: scale * adapter.weight(),
    };
    Ok(Change { adapter: index, whole, factors: Some(factors) })
}

fn check_shape(entry: &HeaderEntry, expected: &[usize]) -> Result<(), AdapterError> {
    match entry.shape == expected {
        true => Ok(()),
        false => Err(AdapterError::Shape {
            name: entry.name.clone(),
            actual: entry.shape.clone(),
            expected: expected.to_vec(),
        }),
    }
}

/// A projection that the configuration names as a target has factors.
fn check_targets(adapter: &Adapter, tensors: &[SourceTensor]) -> Result<(), AdapterError> {
    let trained: Vec<String> =
        adapter.modules.keys().map(|name| canonical(&format!("{name}.weight"))).collect();
    let projection = |tensor: &&SourceTensor| {
        use Role as R;
        let roles = [R::Query, R::Key, R::Value, R::Output, R::Gate, R::Up, R::Down];
        roles.contains(&tensor.role) && tensor.shape.len() == 2
    };
    for tensor in tensors.iter().filter(projection) {
        let module = tensor.source_name.strip_suffix(".weight").unwrap_or(&tensor.source_name);
        if adapter.config.demands(module) && !trained.contains(&tensor.name) {
            return Err(AdapterError::Untrained { module: module.to_owned() });
        }
    }
    Ok(())
}

/// Under a tied head the embedding is saved together with an equal head, or not at all.
fn check_tied(adapter: &Adapter) -> Result<(), AdapterError> {
    let saved = |tensor: &str| {
        let of = |name: &str| canonical(&format!("{name}.weight")) == tensor;
        let found = adapter.modules.iter().find(|(name, module)| of(name) && module.a.is_none());
        found.and_then(|(name, module)| Some((name.clone(), module.whole.as_ref()?)))
    };
    let untied = |module: String, other| Err(AdapterError::Untied { module, other });
    match (saved(EMBEDDING), saved(HEAD)) {
        (None, None) => Ok(()),
        // Saved because the vocabulary is the tokenizer's: the module itself was not trained apart from the head.
        (Some((name, _)), None) if !adapter.config.saves(&name) => Ok(()),
        (Some((name, _)), None) => untied(name, "lm_head"),
        (None, Some((name, _))) => untied(name, "embed_tokens"),
        (Some((name, embedding)), Some((_, head))) => {
            let equal = embedding.dtype == head.dtype
                && embedding.shape == head.shape
                && equal_bytes(adapter, embedding, head)
                    .map_err(|source| AdapterError::Io { path: adapter.path.clone(), source })?;
            if equal { Ok(()) } else { untied(name, "lm_head") }
        }
    }
}

fn equal_bytes(adapter: &Adapter, a: &HeaderEntry, b: &HeaderEntry) -> std::io::Result<bool> {
    let mut buffers = (vec![0; 1 << 18], vec![0; 1 << 18]);
    for start in (0..a.bytes).step_by(1 << 18) {
        let now = (a.bytes - start).min(1 << 18) as usize;
        let (x, y) = (&mut buffers.0[..now], &mut buffers.1[..now]);
        read_exact_at(&adapter.file, x, a.offset + start)?;
        read_exact_at(&adapter.file, y, b.offset + start)?;
        if x != y {
            return Ok(false);
        }
    }
    Ok(true)
}
