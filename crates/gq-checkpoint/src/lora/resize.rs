//! Tables whose rows an adapter brings: the vocabulary grew or shrank before it was trained.

use super::tied::{EMBEDDING, HEAD};
use super::{Adapter, AdapterError};
use crate::family;
use crate::names::canonical;
use crate::safetensors::HeaderEntry;
use crate::{ModelSpec, Note, Role, SourceTensor};

/// Tables that are an adapter's whole.
#[derive(Debug)]
pub(crate) struct Resize {
    /// Rows of the vocabulary.
    pub rows: usize,
    /// Which adapter.
    pub adapter: usize,
    /// Canonical names and the adapter's tensors.
    pub tables: Vec<(&'static str, HeaderEntry)>,
}

impl Resize {
    /// Finds the adapter whose tables have other rows than the checkpoint's.
    ///
    /// # Errors
    /// When its tables do not agree or one of them is not there, or it is not the first to change them.
    pub(crate) fn find(
        adapters: &[Adapter],
        spec: &ModelSpec,
        tensors: &[SourceTensor],
    ) -> Result<Option<Resize>, AdapterError> {
        let mut changed = false;
        for (index, adapter) in adapters.iter().enumerate() {
            let Some(resize) = of_adapter(index, adapter, spec, tensors)? else {
                let tables = adapter.modules.keys().map(|name| canonical(&format!("{name}.weight")));
                changed |= tables.into_iter().any(|table| table == EMBEDDING || table == HEAD);
                continue;
            };
            if changed {
                let what = "merged after another adapter's change of it";
                let module = resize.tables.first().map_or_else(String::new, |(name, _)| (*name).to_owned());
                return Err(AdapterError::SavedModule { module, what });
            }
            return Ok(Some(resize));
        }
        Ok(None)
    }

    /// What is to be told about it.
    pub(crate) fn note(&self, adapters: &[Adapter], from: usize) -> Note {
        let adapter =
            adapters.get(self.adapter).map_or_else(String::new, |adapter| adapter.name().to_owned());
        Note::Resized { adapter, from, to: self.rows }
    }

    /// Puts the adapter's tables, in the file with this number, in the place of the checkpoint's, which are not used.
    pub(crate) fn apply(&self, file: usize, spec: &mut ModelSpec, tensors: &mut Vec<SourceTensor>) {
        for (name, entry) in &self.tables {
            let Some(old) = tensors.iter_mut().find(|tensor| tensor.name == *name) else { continue };
            let role = old.role;
            let mut new = old.clone();
            old.name = format!("{name} of the checkpoint");
            old.role = Role::Unused;
            new.source_name.clone_from(&entry.name);
            (new.dtype, new.shape) = (entry.dtype, entry.shape.clone());
            (new.file, new.offset, new.bytes) = (file, entry.offset, entry.bytes);
            (new.role, new.scaled, new.gguf) = (role, false, None);
            tensors.push(new);
        }
        tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
        spec.vocab_size = self.rows;
    }
}

fn of_adapter(
    index: usize,
    adapter: &Adapter,
    spec: &ModelSpec,
    tensors: &[SourceTensor],
) -> Result<Option<Resize>, AdapterError> {
    let mut tables = Vec::new();
    for (name, module) in &adapter.modules {
        let tensor = canonical(&format!("{name}.weight"));
        let table = [EMBEDDING, HEAD].into_iter().find(|table| *table == tensor);
        if let (Some(table), Some(entry)) = (table, module.table()) {
            tables.push((table, name.clone(), entry.clone()));
        }
    }
    let source = tensors.iter().find(|tensor| tensor.name == EMBEDDING);
    let cols = source.map_or(0, SourceTensor::cols);
    let other = |entry: &HeaderEntry| {
        entry.shape.len() == 2 && entry.shape[1] == cols && entry.shape[0] != spec.vocab_size
    };
    let Some((_, module, first)) = tables.iter().find(|(_, _, entry)| other(entry)).cloned() else {
        return Ok(None);
    };
    let rows = first.shape.first().copied().unwrap_or(0);
    let half = |other| AdapterError::HalfResized { module: module.clone(), rows, other };
    let has =
        |wanted: &str| tables.iter().any(|(table, _, entry)| *table == wanted && entry.shape == first.shape);
    if !has(EMBEDDING) {
        return Err(half(family::EMBEDDING.module()));
    }
    if !spec.tied_head && !has(HEAD) {
        return Err(half(family::HEAD.module()));
    }
    if let Some(limit) = spec.per_layer_embedding.map(|table| table.vocab_size).filter(|limit| rows > *limit)
    {
        return Err(AdapterError::PerLayerRows { module: family::EMBEDDING.module(), actual: rows, limit });
    }
    // A tied head is compared with the embedding, and not stored.
    let tables = tables.into_iter().filter(|(table, ..)| *table == EMBEDDING || !spec.tied_head);
    let tables = tables.map(|(table, _, entry)| (table, entry)).collect();
    Ok(Some(Resize { rows, adapter: index, tables }))
}
