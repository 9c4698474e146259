//! GGUF version 3, written in one pass: the header is known before the first weight, the file appears whole or not.

use super::header::Metadata;
use super::value::write_string;
use super::{GgmlType, GgufError};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const ALIGNMENT: u64 = 32;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTensor {
    /// Name in the file.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Type.
    pub kind: GgmlType,
}

impl NewTensor {
    /// Bytes of it; `None` when blocks do not divide its rows, or it overflows.
    pub fn bytes(&self) -> Option<u64> {
        let (&cols, leading) = self.shape.split_last().unwrap_or((&1, &[]));
        let rows = leading.iter().try_fold(1u64, |rows, &dim| rows.checked_mul(dim as u64))?;
        rows.checked_mul(self.kind.row_bytes(cols)? as u64)
    }
}

/// A file being written; tensors' bytes follow in the order they were announced.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    temporary: PathBuf,
    out: Option<BufWriter<File>>,
    left: Vec<(String, u64)>,
    next: usize,
    total: u64,
}

impl GgufWriter {
    /// Bytes of the finished file.
    ///
    /// # Errors
    /// When a tensor cannot have its type.
    pub fn file_bytes(metadata: &Metadata, tensors: &[NewTensor]) -> Result<u64, GgufError> {
        let header = header(metadata, tensors)?;
        let padded = |bytes: &u64| bytes.checked_next_multiple_of(ALIGNMENT).unwrap_or(u64::MAX);
        let data = sizes(tensors)?.iter().map(|(_, bytes)| padded(bytes)).fold(0, u64::saturating_add);
        Ok(data.saturating_add(header.len() as u64))
    }

    /// Begins a file next to `path`; it gets that name when it is finished.
    ///
    /// # Errors
    /// When a tensor cannot have its type, or the disk fails.
    pub fn create(path: &Path, metadata: &Metadata, tensors: &[NewTensor]) -> Result<GgufWriter, GgufError> {
        let header = header(metadata, tensors)?;
        let temporary = gq_files::partial_path(path);
        let failed = |source| GgufError::Io { path: temporary.clone(), source };
        let left = sizes(tensors)?;
        let out = BufWriter::with_capacity(1 << 18, gq_files::begin(&temporary).map_err(failed)?);
        let path = path.to_owned();
        let mut writer = GgufWriter { path, temporary, out: Some(out), left, next: 0, total: 0 };
        writer.put(&header)?;
        Ok(writer)
    }

    /// Appends bytes of the current tensor; the next one begins when it is full.
    ///
    /// # Errors
    /// When there are more bytes than the current tensor has left, or the disk fails.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let Some((name, left)) = self.left.get_mut(self.next) else {
            return Err(GgufError::OutOfRange {
                name: String::new(),
                requested: format!("{} bytes after the last tensor", bytes.len()),
                actual: 0,
            });
        };
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            let requested = format!("{} bytes", bytes.len());
            return Err(GgufError::OutOfRange { name: name.clone(), requested, actual: *left });
        };
        *left = rest;
        self.put(bytes)?;
        if rest == 0 {
            self.next += 1;
            let padding = (self.total.next_multiple_of(ALIGNMENT) - self.total) as usize;
            self.put(&[0; ALIGNMENT as usize][..padding])?;
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        let failed = |source| GgufError::Io { path: self.temporary.clone(), source };
        if let Some(out) = &mut self.out {
            out.write_all(bytes).map_err(failed)?;
            self.total += bytes.len() as u64;
        }
        Ok(())
    }

    /// Makes the file durable and gives it its name; gives its bytes.
    ///
    /// # Errors
    /// When a tensor is not full, or the disk fails.
    pub fn finish(mut self) -> Result<u64, GgufError> {
        if let Some((name, left)) = self.left.get(self.next) {
            let requested = format!("end with {left} bytes missing");
            return Err(GgufError::OutOfRange { name: name.clone(), requested, actual: *left });
        }
        let failed = |source| GgufError::Io { path: self.temporary.clone(), source };
        if let Some(mut out) = self.out.take() {
            let synced = out.flush().and_then(|()| out.get_ref().sync_all()).map_err(failed);
            let placed = synced.and_then(|()| {
                gq_files::put_in_place(&self.temporary, &self.path)
                    .map_err(|source| GgufError::Io { path: self.path.clone(), source })
            });
            if placed.is_err() {
                gq_files::remove_begun(&self.temporary).ok(); // of no use, and dropping does not see it any more
            }
            placed?;
        }
        Ok(self.total)
    }
}

impl Drop for GgufWriter {
    /// An unfinished file is of no use: it is cheap to make again.
    fn drop(&mut self) {
        if let Some(held) = self.out.take() {
            gq_files::remove_begun(&self.temporary).ok();
            drop(held); // after that: nobody takes the file up in between
        }
    }
}

fn sizes(tensors: &[NewTensor]) -> Result<Vec<(String, u64)>, GgufError> {
    let size = |tensor: &NewTensor| {
        let bad = || GgufError::RowLen {
            name: tensor.name.clone(),
            kind: tensor.kind.name(),
            cols: tensor.shape.last().copied().unwrap_or(1) as u64,
            block: tensor.kind.block_len(),
        };
        Ok((tensor.name.clone(), tensor.bytes().ok_or_else(bad)?))
    };
    tensors.iter().map(size).collect()
}

/// The header with its padding.
fn header(metadata: &Metadata, tensors: &[NewTensor]) -> Result<Vec<u8>, GgufError> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata.iter() {
        write_string(&mut out, key);
        out.extend(value.code().to_le_bytes());
        value.write(&mut out);
    }
    let mut offset = 0u64;
    for (tensor, (_, bytes)) in tensors.iter().zip(sizes(tensors)?) {
        write_string(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        tensor.shape.iter().rev().for_each(|&dim| out.extend((dim as u64).to_le_bytes()));
        out.extend(tensor.kind.code().to_le_bytes());
        out.extend(offset.to_le_bytes());
        offset += bytes.next_multiple_of(ALIGNMENT);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    Ok(out)
}
