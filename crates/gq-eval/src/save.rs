//! Writes a model's outputs as a file of reference outputs.

use crate::outputs::OutputsError;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `input_ids` and f32 `logits` position by position; the file appears only when it is complete.
#[derive(Debug)]
pub struct OutputsWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    announced: usize,
    written: usize,
    named: bool,
}

impl OutputsWriter {
    /// Begins a file of `rows`, all of one length, with `vocab` logits for each position, next to its final name.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path, rows: &[Vec<u32>], vocab: usize) -> Result<OutputsWriter, OutputsError> {
        let partial = gq_files::partial_path(path);
        let positions = rows.first().map_or(0, Vec::len);
        let announced = rows.len() * positions * vocab;
        let header = header(rows.len(), positions, vocab);
        let begin = || {
            let mut file = BufWriter::with_capacity(1 << 20, gq_files::begin(&partial)?);
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            for token in rows.iter().flatten() {
                file.write_all(&i64::from(*token).to_le_bytes())?;
            }
            Ok(file)
        };
        let file = begin().map_err(|source| OutputsError::Io { path: path.to_owned(), source })?;
        Ok(OutputsWriter { path: path.to_owned(), partial, file, announced, written: 0, named: false })
    }

    /// Bytes of a file of `rows` rows of `positions` positions, with `vocab` logits for each.
    pub fn file_bytes(rows: usize, positions: usize, vocab: usize) -> u64 {
        let each = 4u64.saturating_mul(vocab as u64).saturating_add(8);
        let all = (rows as u64).saturating_mul(positions as u64).saturating_mul(each);
        all.saturating_add(8 + header(rows, positions, vocab).len() as u64)
    }

    /// Adds logits of the next positions.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, logits: &[f32]) -> Result<(), OutputsError> {
        self.written += logits.len();
        let written = logits.iter().try_for_each(|logit| self.file.write_all(&logit.to_le_bytes()));
        written.map_err(|source| OutputsError::Io { path: self.path.clone(), source })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// When logits are missing, or the file cannot be synced or renamed.
    pub fn finish(mut self) -> Result<(), OutputsError> {
        let path = self.path.clone();
        if self.written != self.announced {
            let (limit, actual) = (self.announced, self.written);
            return Err(OutputsError::Written { path, limit, actual });
        }
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        let renamed = synced.and_then(|()| gq_files::put_in_place(&self.partial, &self.path));
        self.named = renamed.is_ok();
        renamed.map_err(|source| OutputsError::Io { path, source })
    }
}

/// Names, shapes and places, padded to a multiple of 8 bytes.
fn header(rows: usize, positions: usize, vocab: usize) -> String {
    let positions_in_all = (rows as u64).saturating_mul(positions as u64);
    let ids = positions_in_all.saturating_mul(8);
    let end = ids.saturating_add(positions_in_all.saturating_mul(vocab as u64).saturating_mul(4));
    let mut header = serde_json::json!({
        "input_ids": {"dtype": "I64", "shape": [rows, positions], "data_offsets": [0, ids]},
        "logits": {"dtype": "F32", "shape": [rows, positions, vocab], "data_offsets": [ids, end]},
    })
    .to_string();
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    header
}

impl Drop for OutputsWriter {
    fn drop(&mut self) {
        if !self.named {
            // Nothing can be done about a failure, and the file is of no use either way.
            let _ = gq_files::remove_begun(&self.partial);
        }
    }
}
