//! Tables that the configuration ties to each other: they are changed together or not at all.

use super::{Adapter, AdapterError};
use crate::family;
use crate::names::canonical;
use crate::read_at::read_exact_at;
use crate::safetensors::HeaderEntry;

/// Canonical names of the two tables.
pub(super) const EMBEDDING: &str = family::EMBEDDING.name;
pub(super) const HEAD: &str = family::HEAD.name;

/// Under a tied head the embedding is saved together with an equal head, or not at all.
pub(super) fn check_tied(adapter: &Adapter) -> Result<(), AdapterError> {
    let saved = |tensor: &str| {
        let of = |name: &str| canonical(&format!("{name}.weight")) == tensor;
        let found = adapter.modules.iter().find(|(name, module)| of(name) && module.a.is_none());
        found.and_then(|(name, module)| Some((name.clone(), module.table()?)))
    };
    let untied = |module: String, other| Err(AdapterError::Untied { module, other });
    match (saved(EMBEDDING), saved(HEAD)) {
        (None, None) => Ok(()),
        // Saved because the vocabulary is the tokenizer's: the module itself was not trained apart from the head.
        (Some((name, _)), None) if !adapter.config.saves(&name) => Ok(()),
        (Some((name, _)), None) => untied(name, family::HEAD.module()),
        (None, Some((name, _))) => untied(name, family::EMBEDDING.module()),
        (Some((name, embedding)), Some((_, head))) => {
            let equal = embedding.dtype == head.dtype
                && embedding.shape == head.shape
                && equal_bytes(adapter, embedding, head)
                    .map_err(|source| AdapterError::Io { path: adapter.path.clone(), source })?;
            if equal { Ok(()) } else { untied(name, family::HEAD.module()) }
        }
    }
}

pub(super) fn equal_bytes(adapter: &Adapter, a: &HeaderEntry, b: &HeaderEntry) -> std::io::Result<bool> {
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
