//! The source as one stream of pieces: every byte of every weight file is read once, in order,
//! so that the files' digests cost no second pass.

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
    /// Bytes to read; they follow the previous piece of the same file.
    pub bytes: usize,
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
        let mut tensors: Vec<&SourceTensor> = tensors.iter().filter(|tensor| tensor.file == file).collect();
        tensors.sort_by_key(|tensor| tensor.offset);
        let mut at = 0;
        for tensor in tensors {
            hash_only(&mut pieces, file, tensor.offset.saturating_sub(at), block);
            match stored.get(tensor.name.as_str()) {
                Some(&index) => rows_of(&mut pieces, &shared[index], index, file),
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
        pieces.push(Piece { file, bytes: now as usize, use_: Use::Hash });
        bytes -= now;
    }
}

fn rows_of(pieces: &mut Vec<Piece>, shared: &Shared, tensor: usize, file: usize) {
    for matrix in (0..shared.rows).step_by(shared.height.max(1)) {
        let end = matrix + shared.height;
        for start in (matrix..end).step_by(shared.block_rows) {
            let rows = start..(start + shared.block_rows).min(end);
            let (bytes, last) = (rows.len() * shared.row_bytes, rows.end == shared.rows);
            pieces.push(Piece { file, bytes, use_: Use::Rows { tensor, rows, last } });
        }
    }
}

/// Reads pieces in order and hashes each file on the way: what is recorded is what was read.
pub(crate) struct SourceReader<'a> {
    checkpoint: &'a Checkpoint,
    /// The current file, where its next piece begins, and the digest so far.
    open: Option<(usize, u64, Sha256)>,
    digests: Vec<Option<String>>,
}

impl<'a> SourceReader<'a> {
    pub(crate) fn new(checkpoint: &'a Checkpoint) -> SourceReader<'a> {
        let digests = vec![None; checkpoint.files().len()];
        SourceReader { checkpoint, open: None, digests }
    }

    /// Reads the next piece into `buffer`, which gets its length.
    pub(crate) fn read(&mut self, piece: &Piece, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
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

    /// sha256 of the current file from its beginning to the end of the last piece read.
    pub(crate) fn prefix_digest(&self) -> String {
        self.open.as_ref().map_or_else(String::new, |(_, _, hash)| hex::encode(hash.clone().finalize()))
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
