//! The source as one stream of pieces: every byte of every weight file is read once, in order,
//! so that the files' digests cost no second pass.
//!
//! A stack that files have in many matrices is read by itself, in the order of its rows, where the first of them lies; its
//! bytes are read once more as they come in the stream.

use crate::plan::Shared;
use gq_checkpoint::{Checkpoint, ReadError, SourceFile, SourceTensor};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::ops::Range;

/// Bytes of one file of the source that are read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Index of the file.
    pub file: usize,
    /// Bytes to read; they follow the previous piece of the same file, but for those of a stack.
    pub bytes: usize,
    /// The tensor, among the checkpoint's, whose rows are read wherever they are: a stack.
    pub stack: Option<usize>,
    /// What to do with them.
    pub use_: Use,
}

/// What a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Header or a tensor that is left out: hashed only.
    Hash,
    /// Rows of a tensor that is stored.
    Rows {
        /// Index of the tensor among those that are stored.
        tensor: usize,
        /// Rows.
        rows: Range<usize>,
        /// Whether these are the last rows.
        last: bool,
    },
}

/// Cuts the files into pieces: blocks of whole rows, and what lies between tensors.
pub(crate) fn pieces(
    shared: &[Shared],
    tensors: &[SourceTensor],
    files: &[SourceFile],
    block: u64,
) -> Vec<Piece> {
    let stored: HashMap<&str, usize> =
        shared.iter().enumerate().map(|(index, shared)| (shared.tensor.as_str(), index)).collect();
    let mut pieces = Vec::new();
    for (file, source) in files.iter().enumerate() {
        let mut tensors: Vec<_> =
            tensors.iter().enumerate().filter(|(_, tensor)| tensor.file == file).collect();
        tensors.sort_by_key(|(_, tensor)| tensor.offset);
        let mut at = 0;
        for (number, tensor) in tensors {
            let stored = stored.get(tensor.name.as_str()).copied();
            if !tensor.pieces.is_empty() {
                // What lies here is hashed with what lies around it.
                stored
                    .into_iter()
                    .for_each(|index| rows_of(&mut pieces, &shared[index], index, file, Some(number)));
                continue;
            }
            hash_only(&mut pieces, file, tensor.offset.saturating_sub(at), block);
            match stored {
                Some(index) => rows_of(&mut pieces, &shared[index], index, file, None),
                None => hash_only(&mut pieces, file, tensor.bytes, block),
            }
            at = tensor.offset + tensor.bytes;
        }
        hash_only(&mut pieces, file, source.bytes.saturating_sub(at), block);
    }
    pieces
}

fn hash_only(pieces: &mut Vec<Piece>, file: usize, mut bytes: u64, block: u64) {
    while bytes > 0 {
        let now = bytes.min(block);
        pieces.push(Piece { file, bytes: now as usize, stack: None, use_: Use::Hash });
        bytes -= now;
    }
}

fn rows_of(pieces: &mut Vec<Piece>, shared: &Shared, tensor: usize, file: usize, stack: Option<usize>) {
    for matrix in (0..shared.rows).step_by(shared.rows_per_matrix.max(1)) {
        let end = matrix + shared.rows_per_matrix;
        for start in (matrix..end).step_by(shared.block_rows) {
            let rows = start..(start + shared.block_rows).min(end);
            let (bytes, last) = (rows.len() * shared.row_bytes, rows.end == shared.rows);
            pieces.push(Piece { file, bytes, stack, use_: Use::Rows { tensor, rows, last } });
        }
    }
}

/// Reads pieces in order and hashes each file on the way: what is recorded is what was read.
pub(crate) struct SourceReader<'a> {
    checkpoint: &'a Checkpoint,
    /// The current file, where its next piece begins, and the digest so far.
    open: Option<(usize, u64, Sha256)>,
    /// The digest so far of the stack that is read by itself.
    stack: Option<Sha256>,
    digests: Vec<Option<String>>,
}

impl<'a> SourceReader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> SourceReader<'a> {
        let digests = vec![None; checkpoint.files().len()];
        SourceReader { checkpoint, open: None, stack: None, digests }
    }

    /// Reads the next piece into `buffer`, which gets its length.
    pub(crate) fn read(&mut self, piece: &Piece, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
        if let (Some(stack), Use::Rows { rows, .. }) = (piece.stack, &piece.use_) {
            return self.read_stack(stack, rows, piece.bytes, buffer);
        }
        self.stack = None;
        if self.open.as_ref().is_none_or(|(file, ..)| *file != piece.file) {
            self.close();
            self.open = Some((piece.file, 0, Sha256::new()));
        }
        buffer.resize(piece.bytes, 0);
        if let Some((file, at, hash)) = &mut self.open {
            self.checkpoint.read_file(*file, *at, buffer)?;
            *at += piece.bytes as u64;
            hash.update(&buffer[..]);
        }
        Ok(())
    }

    /// Rows of a stack, from wherever they are.
    fn read_stack(
        &mut self,
        stack: usize,
        rows: &Range<usize>,
        bytes: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<(), ReadError> {
        let Some(tensor) = self.checkpoint.tensors().get(stack) else { return Ok(()) };
        let start = rows.start as u64 * tensor.row_bytes() as u64;
        buffer.resize(bytes, 0);
        self.checkpoint.read_bytes(tensor, start..start + bytes as u64, buffer)?;
        let hash = if rows.start == 0 { None } else { self.stack.take() };
        self.stack.insert(hash.unwrap_or_default()).update(&buffer[..]);
        Ok(())
    }

    /// sha256 of the current file from its beginning to the end of the last piece read; of a stack, of its rows so far.
    pub(crate) fn prefix_digest(&self) -> String {
        let hash = self.stack.as_ref().or(self.open.as_ref().map(|(_, _, hash)| hash));
        hash.map_or_else(String::new, |hash| hex::encode(hash.clone().finalize()))
    }

    /// Digests of all files, once every piece has been read.
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.close();
        self.digests.into_iter().map(Option::unwrap_or_default).collect()
    }

    fn close(&mut self) {
        if let Some((file, _, hash)) = self.open.take() {
            self.digests[file] = Some(hex::encode(hash.finalize()));
        }
    }
}
