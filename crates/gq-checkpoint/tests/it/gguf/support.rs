//! Fixtures.

use gq_checkpoint::gguf::{Gguf, GgufError, GgufWriter, Metadata, NewTensor};
use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/gguf").join(name)
}

/// The f32 tensors of a safetensors file, by name.
pub fn floats(path: &Path, name: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data().to_vec();
    data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// Writes a file with `fill(index)` as the bytes of each tensor.
pub fn write(
    path: &Path,
    metadata: &Metadata,
    tensors: &[NewTensor],
    fill: impl Fn(usize) -> Vec<u8>,
) -> Result<u64, GgufError> {
    let mut writer = GgufWriter::create(path, metadata, tensors)?;
    for index in 0..tensors.len() {
        writer.append(&fill(index))?;
    }
    writer.finish()
}

/// Opens a file of these bytes.
pub fn open_bytes(bytes: &[u8]) -> Result<Gguf, GgufError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    std::fs::write(&path, bytes).unwrap();
    Gguf::open(&path)
}
