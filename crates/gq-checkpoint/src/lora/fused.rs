//! Modules whose weight is several parts of the graph (Phi's `qkv_proj`): each part gets its rows of `B` and of whatever
//! else has a row for each output, and all of `A`.

use super::AdapterError;
use super::change::{Change, of_weight};
use super::modules::Module;
use super::named_module::NamedModule;
use crate::SourceTensor;
use crate::fused::FusedTensor;
use crate::safetensors::HeaderEntry;
use std::collections::HashMap;
use std::ops::Range;

/// What a module with factors for all rows does to each of the parts.
pub(super) fn of_fused(
    index: usize,
    of: NamedModule<'_>,
    fused: &FusedTensor,
    tensors: &HashMap<&str, &SourceTensor>,
) -> Result<Vec<(String, Change)>, AdapterError> {
    let NamedModule { adapter, name, module } = of;
    if module.whole_bias.is_some() || module.b_bias.is_some() {
        return Err(AdapterError::NoBias { module: name.to_owned() });
    }
    if adapter.config.mlx {
        return Err(AdapterError::Option {
            option: "lora_parameters.keys".to_owned(),
            value: name.to_owned(),
            supported: "adapters of PEFT on projections that files have in one tensor",
        });
    }
    let rows = fused.shape().first().copied().unwrap_or(0);
    let mut changes = Vec::new();
    for part in &fused.parts {
        let no_tensor = || AdapterError::NoTensor { module: name.to_owned(), tensor: part.name.clone() };
        let source = *tensors.get(part.name.as_str()).ok_or_else(no_tensor)?;
        let module = cut(module, rows, &part.rows)?;
        let change = of_weight(index, NamedModule { adapter, name, module: &module }, source)?;
        if !change.is_empty() {
            changes.push((part.name.clone(), change));
        }
    }
    Ok(changes)
}

/// A module's tensors, of those with one entry for each of all `rows` some of them alone.
fn cut(module: &Module, rows: usize, part: &Range<usize>) -> Result<Module, AdapterError> {
    let cut =
        |entry: &Option<HeaderEntry>| entry.as_ref().map(|entry| cut_entry(entry, rows, part)).transpose();
    Ok(Module {
        b: cut(&module.b)?,
        magnitude: cut(&module.magnitude)?,
        whole: cut(&module.whole)?,
        saved: cut(&module.saved)?,
        ..module.clone()
    })
}

fn cut_entry(entry: &HeaderEntry, rows: usize, part: &Range<usize>) -> Result<HeaderEntry, AdapterError> {
    let mut shape = entry.shape.clone();
    // DoRA's norms may stand as a row.
    let along = shape.iter().position(|&size| size == rows);
    let leading = along.is_some_and(|along| shape[..along].iter().all(|&size| size == 1));
    let Some(along) = along.filter(|_| leading) else {
        let expected = [&[rows][..], shape.get(1..).unwrap_or_default()].concat();
        return Err(AdapterError::Shape { name: entry.name.clone(), actual: shape, expected });
    };
    let row_bytes = entry.bytes / rows.max(1) as u64;
    shape[along] = part.len();
    Ok(HeaderEntry {
        offset: entry.offset + part.start as u64 * row_bytes,
        bytes: part.len() as u64 * row_bytes,
        shape,
        ..entry.clone()
    })
}
