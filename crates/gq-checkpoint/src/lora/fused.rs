//! Modules whose weight is several parts of the graph (Phi's `qkv_proj`): each part gets its rows of `B` and of whatever
//! else has a row for each output, and all of `A`.

use super::AdapterError;
use super::modules::Module;
use crate::safetensors::HeaderEntry;
use std::ops::Range;

/// A module's tensors, of those with one entry for each of all `rows` some of them alone.
pub(super) fn cut(module: &Module, rows: usize, part: &Range<usize>) -> Result<Module, AdapterError> {
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
