//! What a file says of the adapters that were merged into its source.

use gq_checkpoint::{Adapter, AdapterFile, Checkpoint};
use gq_container::{Digest, SourceAdapter, SourceFile};

/// Adapters that are merged in, by name and digest.
pub(crate) fn adapters(checkpoint: &Checkpoint) -> Vec<SourceAdapter> {
    let adapter = |adapter: &Adapter| SourceAdapter {
        name: adapter.name().to_owned(),
        weight: serde_json::Number::from_f64(adapter.weight()).unwrap_or_else(|| 1.into()),
        files: adapter.files().iter().map(adapter_file).collect(),
    };
    checkpoint.adapters().iter().map(adapter).collect()
}

pub(crate) fn adapter_file(file: &AdapterFile) -> SourceFile {
    let sha256 = digest_of(&file.sha256).unwrap_or(Digest::ZERO);
    SourceFile { name: file.name.clone(), bytes: file.bytes, sha256 }
}

pub(crate) fn digest_of(text: &str) -> Option<Digest> {
    text.parse().ok()
}
