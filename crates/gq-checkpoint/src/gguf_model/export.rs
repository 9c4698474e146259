//! A model as a GGUF: which tensors, of which types, with which metadata. Planned first, then written in one pass.

use super::export_meta::model_metadata;
use super::export_rope::stored_factors;
use super::export_source::{ExportOptions, ExportSource, ExportTensor};
use super::export_tokenizer::tokenizer_metadata;
use super::names::transform_of;
use super::range::{Beyond, Reach};
use super::stacks::stored_as;
use crate::fused::FusedTensor;
use crate::gguf::{
    GgmlType, GgufError, GgufWriter, Metadata, NewTensor, Transform, encode_blocks, is_encodable,
};
use crate::{Part, Role};
use std::ops::Range;
use std::path::Path;

/// Everything about the file but the weights.
#[derive(Clone, Debug)]
pub struct ExportPlan {
    metadata: Metadata,
    tensors: Vec<ExportTensor>,
    file_bytes: u64,
    threads: usize,
}

/// Rows as f32: canonical name, rows, where to put them.
pub type ReadRows<'a, E> = dyn FnMut(&str, Range<usize>, &mut [f32]) -> Result<(), E> + 'a;

/// Rows to bytes of their tensor's type: tensor, rows as the file has them, values, where to put them. False: not done.
pub type EncodeRows<'a, E> =
    dyn FnMut(&ExportTensor, Range<usize>, &[f32], &mut [u8]) -> Result<bool, E> + 'a;

/// An export that stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError<E: std::error::Error + 'static> {
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] GgufError),
    /// A weight is no number or infinite.
    #[error("{name} has a weight that is {value}, in row {row}")]
    NotFinite {
        /// Canonical name of the tensor.
        name: String,
        /// Row as it is stored in the file.
        row: usize,
        /// The weight.
        value: f32,
    },
    /// Types that do not hold their tensors' weights; all of them are named.
    #[error("{} does not hold the weights of {}, up to {:e}", tensors[0].kind, tensors[0].name, tensors[0].largest)]
    Beyond {
        /// The tensors, at least one.
        tensors: Vec<Beyond>,
    },
    /// The source could not be read.
    #[error("reading {name}")]
    Read {
        /// Canonical name of the tensor.
        name: String,
        /// Why.
        #[source]
        source: E,
    },
}

impl ExportPlan {
    /// Decides everything; reads and writes nothing.
    ///
    /// # Errors
    /// When GGUF has no place for something that the model is: a tokenizer, an attention scale, a tensor, a type.
    pub fn new(source: ExportSource<'_>, options: &ExportOptions) -> Result<ExportPlan, GgufError> {
        let spec = source.spec;
        let mut tensors: Vec<ExportTensor> =
            stored_factors(spec)?.into_iter().map(|(name, values)| made_tensor(name, values)).collect();
        for (name, shape) in source.tensors {
            let unknown =
                || GgufError::UnknownTensor { name: name.clone(), architecture: spec.family.name() };
            let (declared, _) = spec.declaration(name).ok_or_else(unknown)?;
            if let Some(fused) = spec.fused(name) {
                if fused.first() == name {
                    tensors.push(fused_tensor(fused, declared.role, options)?);
                }
                continue;
            }
            let (stored, role) = (stored_as(spec.family, name, shape), declared.role);
            if stored.is_empty() {
                return Err(unknown());
            }
            let wanted = options.overrides.get(name).copied().unwrap_or(options.kind);
            // An untied copy of the embedding is not written twice.
            if declared.part == Part::Head && spec.tied_head {
                continue;
            }
            let transform = transform_of(spec, name);
            for (gguf, shape, part) in stored {
                let kind = kind_for(role, &shape, wanted, options.coded)?;
                let (new, source) = (NewTensor { name: gguf, shape, kind }, Some(name.clone()));
                let (fused, values) = (None, Vec::new());
                tensors.push(ExportTensor { new, source, role, transform, part, fused, values });
            }
        }
        let mut metadata = Metadata::default();
        model_metadata(&mut metadata, source, options, &tensors)?;
        tokenizer_metadata(&mut metadata, source, options.allow_other_tokens)?;
        let new: Vec<_> = tensors.iter().map(|tensor| tensor.new.clone()).collect();
        let file_bytes = GgufWriter::file_bytes(&metadata, &new)?;
        Ok(ExportPlan { metadata, tensors, file_bytes, threads: options.threads.max(1) })
    }

    /// Metadata, in file order.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Sets or adds an entry, such as provenance; before writing.
    ///
    /// # Errors
    /// As [`GgufWriter::file_bytes`].
    pub fn set(&mut self, key: &str, value: crate::gguf::Value) -> Result<(), GgufError> {
        self.metadata.set(key, value);
        let new: Vec<_> = self.tensors.iter().map(|tensor| tensor.new.clone()).collect();
        self.file_bytes = GgufWriter::file_bytes(&self.metadata, &new)?;
        Ok(())
    }

    /// Tensors, in file order.
    pub fn tensors(&self) -> &[ExportTensor] {
        &self.tensors
    }

    /// Bytes of the finished file, exactly.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Writes the file; it gets its name when it is whole. `progress` gets bytes of weights written so far.
    ///
    /// # Errors
    /// When the source fails or the disk does; nothing is left then.
    pub fn write<E: std::error::Error + 'static>(
        &self,
        path: &Path,
        read: &mut ReadRows<'_, E>,
        progress: &dyn Fn(u64),
    ) -> Result<u64, ExportError<E>> {
        self.write_coded(path, read, &mut |_, _, _, _| Ok(false), progress)
    }

    /// The same with rows rounded by `encode`, but for those that it leaves: they are rounded to nearest.
    ///
    /// # Errors
    /// Those of [`write`](ExportPlan::write) and of `encode`; when a type is left that cannot be rounded to nearest here.
    pub fn write_coded<E: std::error::Error + 'static>(
        &self,
        path: &Path,
        read: &mut ReadRows<'_, E>,
        encode: &mut EncodeRows<'_, E>,
        progress: &dyn Fn(u64),
    ) -> Result<u64, ExportError<E>> {
        let new: Vec<_> = self.tensors.iter().map(|tensor| tensor.new.clone()).collect();
        let mut writer = GgufWriter::create(path, &self.metadata, &new)?;
        let mut done = 0;
        let (mut values, mut bytes, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
        for tensor in &self.tensors {
            let cols = tensor.new.shape.last().copied().unwrap_or(1);
            let row_bytes = tensor.new.kind.row_bytes(cols).unwrap_or(0);
            let rows = tensor.new.bytes().unwrap_or(0) as usize / row_bytes.max(1);
            // A head is read whole, so that its rows can be put in order.
            let unit = match tensor.transform {
                Transform::Interleave { heads } if tensor.new.shape.len() > 1 => rows / heads.max(1),
                _ => 1,
            };
            let mut reach = Reach::new(tensor.new.kind);
            let step = ((1 << 20) / (cols * unit).max(1)).max(1) * unit;
            for first in (0..rows).step_by(step) {
                let now = first..(first + step).min(rows);
                values.resize(now.len() * cols, 0.0);
                tensor.fill(now.clone(), cols, &mut values, read)?;
                bytes.resize(now.len() * row_bytes, 0);
                // Values first: what is no number is not rounded.
                let (mut at, mut coded) = (values.iter().position(|value| !value.is_finite()), false);
                if at.is_none() {
                    let encoded = encode(tensor, now, &values, &mut bytes);
                    let failed = |source| ExportError::Read {
                        name: tensor.source.clone().unwrap_or_default(),
                        source,
                    };
                    coded = encoded.map_err(failed)?;
                }
                if coded {
                    reach.coded(&values, &bytes);
                } else if at.is_none() {
                    if !is_writable(tensor.new.kind) {
                        return Err(unwritable(tensor.new.kind).into());
                    }
                    encode_rows(tensor.new.kind, &values, &mut bytes, row_bytes, cols, self.threads);
                    at = reach.rows(&values, &bytes);
                }
                if let Some(at) = at {
                    let (name, value) = (tensor.source.clone().unwrap_or_default(), values[at]);
                    return Err(ExportError::NotFinite { name, row: first + at / cols.max(1), value });
                }
                writer.append(&bytes)?;
                done += bytes.len() as u64;
                progress(done);
            }
            beyond.extend(tensor.source.as_ref().and_then(|name| reach.beyond(name)));
        }
        if !beyond.is_empty() {
            return Err(ExportError::Beyond { tensors: beyond });
        }
        Ok(writer.finish()?)
    }
}

impl ExportTensor {
    /// Rows of the source that these rows are made of, by canonical name; within a run, heads may have theirs in another
    /// order.
    pub fn source_rows(&self, rows: Range<usize>) -> Vec<(&str, Range<usize>)> {
        let Some(name) = self.source.as_deref() else { return Vec::new() };
        match (&self.fused, self.part) {
            (Some(fused), _) => fused.runs(rows),
            (None, Some(part)) => part.runs(rows).into_iter().map(|run| (name, run)).collect(),
            (None, None) => vec![(name, rows)],
        }
    }

    /// Canonical names of what it is made from: several where it has the rows of several.
    pub fn sources(&self) -> Vec<&str> {
        match &self.fused {
            Some(fused) => fused.parts.iter().map(|part| part.name.as_str()).collect(),
            None => self.source.as_deref().into_iter().collect(),
        }
    }

    /// Values of rows as they are stored; rows begin and end with heads where those are reordered.
    fn fill<E: std::error::Error + 'static>(
        &self,
        rows: Range<usize>,
        cols: usize,
        out: &mut [f32],
        read: &mut ReadRows<'_, E>,
    ) -> Result<(), ExportError<E>> {
        if self.source.is_none() {
            out.copy_from_slice(&self.values);
            return Ok(());
        }
        let runs = self.source_rows(rows.clone());
        let mut rest = &mut *out;
        for (name, run) in runs {
            let (now, behind) = std::mem::take(&mut rest).split_at_mut(run.len() * cols);
            read(name, run, now).map_err(|source| ExportError::Read { name: name.to_owned(), source })?;
            rest = behind;
        }
        match self.transform {
            Transform::None => {}
            Transform::PlusOne => out.iter_mut().for_each(|value| *value += 1.0),
            Transform::Interleave { heads } => {
                let (count, width) = match self.new.shape.len() {
                    1 => (out.len(), 1), // a bias: elements move as rows do
                    _ => (rows.len(), cols),
                };
                let total: usize = self.new.shape[..self.new.shape.len().max(2) - 1].iter().product();
                let heads_here = heads * count / total.max(1);
                let local = Transform::Interleave { heads: heads_here.max(1) };
                let plain = out.to_vec();
                for (row, values) in plain.chunks_exact(width.max(1)).enumerate() {
                    let at = local.stored_row(row, count) * width;
                    out[at..at + width].copy_from_slice(values);
                }
            }
        }
        Ok(())
    }
}

/// Encodes rows on several threads; each row on its own, so the bytes do not depend on their number.
fn encode_rows(
    kind: GgmlType,
    values: &[f32],
    bytes: &mut [u8],
    row_bytes: usize,
    cols: usize,
    threads: usize,
) {
    let rows = values.len() / cols.max(1);
    let share = rows.div_ceil(threads).max(1);
    if threads == 1 || rows < 2 {
        encode_blocks(kind, values, bytes);
        return;
    }
    std::thread::scope(|scope| {
        for (values, bytes) in values.chunks(share * cols).zip(bytes.chunks_mut(share * row_bytes)) {
            scope.spawn(move || encode_blocks(kind, values, bytes));
        }
    });
}

/// The type that a tensor gets when `wanted` is asked for: vectors, norms and routers stay f32; rows that blocks of
/// 256 do not divide get blocks of 32 of the next larger type, rows that those do not divide get f16.
fn kind_for(role: Role, shape: &[usize], wanted: GgmlType, coded: bool) -> Result<GgmlType, GgufError> {
    if shape.len() < 2 || matches!(role, Role::Router | Role::Bias) {
        return Ok(GgmlType::F32);
    }
    if !coded && !is_writable(wanted) {
        return Err(unwritable(wanted));
    }
    let fallback = match wanted {
        GgmlType::Q4_K => GgmlType::Q5_0,
        GgmlType::Q5_K => GgmlType::Q5_1,
        GgmlType::Q6_K => GgmlType::Q8_0,
        other => other,
    };
    let cols = shape.last().copied().unwrap_or(1);
    let fits = |kind: &GgmlType| cols.is_multiple_of(kind.block_len());
    Ok([wanted, fallback].into_iter().find(fits).unwrap_or(GgmlType::F16))
}

/// Whether values are rounded to a type here; MXFP4 is written of values on its grid.
fn is_writable(kind: GgmlType) -> bool {
    kind == GgmlType::MXFP4 || is_encodable(kind)
}

fn unwritable(kind: GgmlType) -> GgufError {
    let supported = GgmlType::all().filter(|kind| is_encodable(*kind)).map(GgmlType::name);
    GgufError::Unsupported {
        key: "type".to_owned(),
        actual: kind.name().to_owned(),
        supported: supported.collect::<Vec<_>>().join(", "),
    }
}

fn made_tensor(name: &str, values: Vec<f32>) -> ExportTensor {
    let new = NewTensor { name: name.to_owned(), shape: vec![values.len()], kind: GgmlType::F32 };
    let (source, role, transform, part) = (None, Role::Scalar, Transform::None, None);
    ExportTensor { new, source, role, transform, part, fused: None, values }
}

/// A tensor that has the rows of several: of the type that the most bits are wanted of.
fn fused_tensor(fused: FusedTensor, role: Role, options: &ExportOptions) -> Result<ExportTensor, GgufError> {
    let wanted = fused.parts.iter().filter_map(|part| options.overrides.get(&part.name)).copied();
    let wanted = wanted.max_by(|a, b| a.bits().total_cmp(&b.bits())).unwrap_or(options.kind);
    let (name, shape, source) = (fused.gguf.clone(), fused.shape(), Some(fused.first().to_owned()));
    let kind = kind_for(role, &shape, wanted, options.coded)?;
    let (new, transform, part) = (NewTensor { name, shape, kind }, Transform::None, None);
    Ok(ExportTensor { new, source, role, transform, part, fused: Some(fused), values: Vec::new() })
}
