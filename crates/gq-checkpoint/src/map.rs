//! Weight files mapped into memory, for a runtime that uses them in place.

use crate::{Checkpoint, FileKind, ReadError, SourceTensor};
use memmap2::Mmap;

/// Every weight file of a checkpoint, mapped.
#[derive(Debug)]
pub struct MappedWeights {
    maps: Vec<Mmap>,
}

impl Checkpoint {
    /// Maps the weight files. They must not be changed or cut while the mapping lives.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn map(&self) -> Result<MappedWeights, ReadError> {
        let weights =
            self.files().iter().filter(|file| matches!(file.kind, FileKind::Weights | FileKind::Adapter));
        let maps = weights.zip(self.handles()).map(|(file, handle)| {
            map_file(handle).map_err(|source| ReadError::Io { path: file.path.clone(), source })
        });
        Ok(MappedWeights { maps: maps.collect::<Result<_, _>>()? })
    }
}

impl MappedWeights {
    /// The bytes of a tensor of the same checkpoint; empty if it is another's and lies outside the files.
    ///
    /// The address need not be aligned to the element size.
    pub fn bytes(&self, tensor: &SourceTensor) -> &[u8] {
        let end = tensor.offset.saturating_add(tensor.bytes);
        let range = usize::try_from(tensor.offset).ok().zip(usize::try_from(end).ok());
        let file = self.maps.get(tensor.file);
        file.zip(range).and_then(|(file, (start, end))| file.get(start..end)).unwrap_or(&[])
    }
}

#[allow(unsafe_code)]
fn map_file(file: &std::fs::File) -> std::io::Result<Mmap> {
    // SAFETY: The mapping is private and read-only. It is sound as long as nobody writes to or truncates the file
    // while it is mapped, which `Checkpoint::map` asks of its caller; this crate never writes to source files.
    unsafe { Mmap::map(file) }
}
