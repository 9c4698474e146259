//! Weight files mapped into memory, for a runtime that uses them in place.

use crate::tensor::Span;
use crate::{Checkpoint, FileKind, ReadError, SourceTensor};
use gq_files::Mapped;
use std::ops::Range;

/// Every weight file of a checkpoint, mapped.
#[derive(Debug)]
pub struct MappedWeights {
    maps: Vec<Mapped>,
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
            Mapped::new(&file.path, handle)
                .map_err(|source| ReadError::Io { path: file.path.clone(), source })
        });
        Ok(MappedWeights { maps: maps.collect::<Result<_, _>>()? })
    }
}

impl MappedWeights {
    /// The bytes of a tensor of the same checkpoint; empty if it is another's and lies outside the files, or if it is
    /// in several pieces.
    ///
    /// The address need not be aligned to the element size.
    pub fn bytes(&self, tensor: &SourceTensor) -> &[u8] {
        match tensor.spans(0..tensor.bytes)[..] {
            [span] => self.span(span),
            _ => &[],
        }
    }

    /// The bytes of rows of a tensor of the same checkpoint as the files have them, one slice for each piece that has some;
    /// those of a piece are whole rows. Empty ones where a tensor is another's and lies outside the files.
    pub fn pieces_of_rows(&self, tensor: &SourceTensor, rows: Range<usize>) -> Vec<&[u8]> {
        let at = |row: usize| (row as u64).saturating_mul(tensor.row_bytes() as u64);
        tensor.spans(at(rows.start)..at(rows.end)).into_iter().map(|span| self.span(span)).collect()
    }

    /// Bytes of a file; empty if they lie outside.
    pub(crate) fn span(&self, span: Span) -> &[u8] {
        let end = span.offset.saturating_add(span.bytes);
        let range = usize::try_from(span.offset).ok().zip(usize::try_from(end).ok());
        let file = self.maps.get(span.file);
        file.zip(range).and_then(|(file, (start, end))| file.get(start..end)).unwrap_or(&[])
    }
}
