//! Streams a file to disk: next to its place until it is complete, and to be taken up again after an interruption.

use crate::digest::{Digest, Hasher};
use crate::entry::{TensorEntry, TensorSpec, payload_digest};
use crate::error::{WriteError, WriteRule};
use crate::header::{Header, MINOR};
use crate::layout::{self, ALIGNMENT, HEADER_BYTES, TEXT_ENTRY_BYTES, align};
use crate::limits;
use crate::text::StoredText;
use gq_files::{Existing, Placed, open_locked, open_own, partial_path};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Bytes gathered before they are handed to the operating system.
const BUFFER_BYTES: usize = 1 << 20;

/// A file in the making. Dropped unfinished, it leaves its partial file, which [`Writer::resume`] takes up again.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    partial: PathBuf,
    /// Removed while the file is held: nobody takes it up in between.
    leftover: Option<Leftover>,
    file: BufWriter<File>,
    /// Where the next byte goes.
    at: u64,
    entries: Vec<TensorEntry>,
    names: HashSet<String>,
    open: Option<Open>,
}

/// A partial file that is removed unless it got its name.
#[derive(Debug)]
struct Leftover(PathBuf);

impl Drop for Leftover {
    fn drop(&mut self) {
        // Nothing can be done about a failure here.
        let _ = gq_files::remove_begun(&self.0);
    }
}

/// A file that is whole and durable, but has no name yet. Dropped, it is left as an unfinished one is.
#[derive(Debug)]
#[must_use = "it has no name yet"]
pub struct Sealed {
    path: PathBuf,
    partial: PathBuf,
    finished: Finished,
    leftover: Option<Leftover>,
    /// Held until the file has its name: no other process takes it up.
    _file: File,
}

impl Sealed {
    /// Where it lies.
    pub fn partial(&self) -> &Path {
        &self.partial
    }

    /// Gives the file its name; what has that is replaced or kept.
    ///
    /// # Errors
    /// When the system refuses. [`WriteError::Taken`]: the file is finished under another name.
    pub fn place(self, existing: Existing) -> Result<Finished, WriteError> {
        let failed = |source| WriteError::Io { path: self.path.clone(), source };
        let placed = gq_files::place(&self.partial, &self.path, existing).map_err(failed)?;
        // It has a name now.
        if let Some(leftover) = self.leftover {
            std::mem::forget(leftover);
        }
        match placed {
            Placed::There => Ok(self.finished),
            Placed::NextTo(kept) => Err(WriteError::Taken { path: self.path, kept }),
        }
    }
}

/// A tensor whose payload is being written.
#[derive(Debug)]
struct Open {
    spec: TensorSpec,
    offset: u64,
    limit: u64,
    written: u64,
    hasher: Hasher,
}

/// A complete file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Its length.
    pub file_bytes: u64,
    /// Digest of all tensors.
    pub payload_sha256: Digest,
    /// Digest that stands for every byte of the file.
    pub file_sha256: Digest,
}

impl Writer {
    /// Begins the file that will appear at `path`; what an interrupted writer left is discarded.
    ///
    /// # Errors
    /// When the partial file cannot be made, or another process is writing it.
    pub fn create(path: &Path) -> Result<Writer, WriteError> {
        let writer = Writer::open(path)?;
        writer.begin_at(HEADER_BYTES as u64)
    }

    /// Begins a file that nobody takes up again: when it is not finished, nothing is left of it.
    ///
    /// # Errors
    /// As [`Writer::create`].
    pub fn create_once(path: &Path) -> Result<Writer, WriteError> {
        let mut writer = Writer::open(path)?;
        writer.leftover = Some(Leftover(writer.partial.clone()));
        writer.begin_at(HEADER_BYTES as u64)
    }

    /// Takes up an interrupted file that holds `finished`, its first tensors in order as [`Writer::end_tensor`]
    /// gave them. Whatever follows them is cut off, and the finished file's bytes are those of an uninterrupted one.
    ///
    /// The payloads are trusted; [`Writer::intact`] checks them.
    ///
    /// # Errors
    /// When the partial file is missing or shorter than the tensors, or the entries do not follow each other.
    pub fn resume(path: &Path, finished: &[TensorEntry]) -> Result<Writer, WriteError> {
        let mut writer = Writer::open(path)?;
        for entry in finished {
            let limit = writer.admit(&entry.spec())?;
            let begin = writer.entries.last().map_or(Some(HEADER_BYTES as u64), end);
            if begin != Some(entry.offset) || entry.bytes != limit {
                return Err(writer.refuse(WriteRule::OutOfTurn));
            }
            writer.names.insert(entry.name.clone());
            writer.entries.push(entry.clone());
        }
        // The last payload need not be padded yet; without one, there is nothing to keep.
        let used = finished.last().map_or(0, |last| last.offset.saturating_add(last.bytes));
        let actual = writer.file.get_ref().metadata().map_err(|error| writer.failed(error))?.len();
        if actual < used {
            return Err(writer.refuse(WriteRule::PartialTooShort { limit: used, actual }));
        }
        writer.begin_at(used.max(HEADER_BYTES as u64))?.pad()
    }

    /// How many of `finished` are in the partial file as they were written: after a loss of power, the file may
    /// lack bytes that were written before its journal. `progress` gets the bytes of each step.
    ///
    /// # Errors
    /// When the partial file cannot be read; one that is missing holds no tensors.
    pub fn intact(
        path: &Path,
        finished: &[TensorEntry],
        mut progress: impl FnMut(u64),
    ) -> Result<usize, WriteError> {
        let partial = partial_path(path);
        let failed = |source| WriteError::Io { path: partial.clone(), source };
        match std::fs::symlink_metadata(&partial) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            _ => {}
        }
        let mut file = open_own(&partial).map_err(failed)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        for (count, entry) in finished.iter().enumerate() {
            file.seek(SeekFrom::Start(entry.offset)).map_err(failed)?;
            let (mut payload, mut hasher) = ((&mut file).take(entry.bytes), Hasher::default());
            loop {
                let now = payload.read(&mut buffer).map_err(failed)?;
                if now == 0 {
                    break;
                }
                hasher.update(buffer.get(..now).unwrap_or_default());
                progress(now as u64);
            }
            if hasher.finish() != entry.sha256 {
                return Ok(count);
            }
        }
        Ok(finished.len())
    }

    /// Tensors that are complete, in order.
    pub fn entries(&self) -> &[TensorEntry] {
        &self.entries
    }

    /// Begins the next tensor.
    ///
    /// # Errors
    /// When the format cannot hold it, its name is taken, or the tensor before was not ended.
    pub fn begin_tensor(&mut self, spec: TensorSpec) -> Result<(), WriteError> {
        if self.open.is_some() {
            return Err(self.refuse(WriteRule::OutOfTurn));
        }
        let limit = self.admit(&spec)?;
        let hasher = Hasher::default();
        self.open = Some(Open { spec, offset: self.at, limit, written: 0, hasher });
        Ok(())
    }

    /// Adds bytes to the tensor's payload.
    ///
    /// # Errors
    /// When there are more than its shape and encoding call for, or the disk refuses.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let Some(open) = &mut self.open else { return Err(self.refuse(WriteRule::OutOfTurn)) };
        let actual = open.written.saturating_add(bytes.len() as u64);
        if actual > open.limit {
            let (name, limit) = (open.spec.name.clone(), open.limit);
            return Err(self.refuse(WriteRule::PayloadBytes { name, limit, actual }));
        }
        open.hasher.update(bytes);
        open.written = actual;
        self.put(bytes)
    }

    /// Ends the tensor and hands its bytes to the operating system, so that a journal may say it is done.
    ///
    /// # Errors
    /// When its payload is too short, or the disk refuses.
    pub fn end_tensor(&mut self) -> Result<TensorEntry, WriteError> {
        let Some(open) = self.open.take() else { return Err(self.refuse(WriteRule::OutOfTurn)) };
        let Open { spec, offset, limit, written, hasher } = open;
        if written != limit {
            return Err(self.refuse(WriteRule::PayloadBytes { name: spec.name, limit, actual: written }));
        }
        self.put_padding()?;
        self.file.flush().map_err(|error| self.failed(error))?;
        let entry = spec.into_entry(offset, written, hasher.finish());
        self.names.insert(entry.name.clone());
        self.entries.push(entry.clone());
        Ok(entry)
    }

    /// Writes a whole tensor.
    ///
    /// # Errors
    /// As `begin_tensor`, `append` and `end_tensor`.
    pub fn write_tensor(&mut self, spec: TensorSpec, payload: &[u8]) -> Result<TensorEntry, WriteError> {
        self.begin_tensor(spec)?;
        self.append(payload)?;
        self.end_tensor()
    }

    /// Writes tables and texts (in any order), makes all of it durable, and moves the file to its place.
    ///
    /// # Errors
    /// When two texts are of one kind, a tensor was not ended, or the disk refuses.
    pub fn finish(self, texts: Vec<StoredText>) -> Result<Finished, WriteError> {
        self.seal(texts)?.place(Existing::Replaced)
    }

    /// Writes tables and texts and makes all of it durable, so that the file can be looked at before it gets its name.
    ///
    /// # Errors
    /// As [`Writer::finish`].
    pub fn seal(mut self, mut texts: Vec<StoredText>) -> Result<Sealed, WriteError> {
        if self.open.is_some() {
            return Err(self.refuse(WriteRule::OutOfTurn));
        }
        texts.sort_by_key(|text| text.kind().code());
        let mut neighbors = texts.iter().zip(texts.iter().skip(1));
        if let Some((text, _)) = neighbors.find(|(a, b)| a.kind() == b.kind()) {
            return Err(self.refuse(WriteRule::DuplicateText { kind: text.kind() }));
        }
        let (header, tail) = self.tail(&texts).ok_or_else(|| self.refuse(WriteRule::FileBytes))?;
        self.put(&tail)?;
        for text in &texts {
            self.put(text.bytes())?;
        }
        let Header { file_bytes, payload_sha256, file_sha256, .. } = header;
        self.file.seek(SeekFrom::Start(0)).map_err(|error| self.failed(error))?;
        self.put(&header.to_bytes())?;
        self.file.flush().map_err(|error| self.failed(error))?;
        self.file.get_ref().sync_all().map_err(|error| self.failed(error))?;
        let finished = Finished { file_bytes, payload_sha256, file_sha256 };
        let Writer { path, partial, file, leftover, .. } = self;
        let file = file
            .into_inner()
            .map_err(|error| WriteError::Io { path: partial.clone(), source: error.into_error() })?;
        Ok(Sealed { path, partial, finished, leftover, _file: file })
    }

    /// Gives up and removes the partial file.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn discard(self) -> Result<(), WriteError> {
        let removed = gq_files::remove_begun(&self.partial);
        removed.map_err(|error| self.failed(error))
    }

    /// Takes over all tensors of another file into an empty one: `payloads` is what lies between its header and table.
    pub(crate) fn adopt(&mut self, tensors: &[TensorEntry], payloads: &[u8]) -> Result<(), WriteError> {
        self.put(payloads)?;
        self.entries = tensors.to_vec();
        Ok(())
    }

    /// The signed header, and the bytes of both tables; `None` when a length does not fit.
    fn tail(&self, texts: &[StoredText]) -> Option<(Header, Vec<u8>)> {
        let mut tail = Vec::new();
        self.entries.iter().for_each(|entry| entry.write(&mut tail));
        let table_bytes = tail.len() as u64;
        let mut offset = self.at.checked_add(table_bytes)?;
        offset = offset.checked_add((texts.len() * TEXT_ENTRY_BYTES) as u64)?;
        for text in texts {
            text.entry(offset).write(&mut tail);
            offset = offset.checked_add(text.stored_bytes())?;
        }
        let sizes = self.entries.iter().map(|entry| (entry.name.as_str(), entry.bytes));
        let mut header = Header {
            minor: MINOR,
            file_bytes: layout::file_bytes(sizes, texts.iter().map(StoredText::stored_bytes))?,
            table_offset: self.at,
            table_bytes,
            tensors: u32::try_from(self.entries.len()).ok()?,
            texts: u32::try_from(texts.len()).ok()?,
            payload_sha256: payload_digest(&self.entries),
            file_sha256: Digest::ZERO,
        };
        let mut hasher = Hasher::default();
        hasher.update(&header.to_bytes());
        hasher.update(&tail);
        texts.iter().for_each(|text| hasher.update(text.bytes()));
        header.file_sha256 = hasher.finish();
        Some((header, tail))
    }

    fn open(path: &Path) -> Result<Writer, WriteError> {
        let partial = partial_path(path);
        let failed = |source| WriteError::Io { path: partial.clone(), source };
        let file = match open_locked(&partial) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                return Err(WriteError::Busy { path: partial });
            }
            Err(error) => return Err(failed(error)),
        };
        gq_files::note_open(&file, &partial);
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let (entries, names) = (Vec::new(), HashSet::new());
        Ok(Writer { path: path.to_owned(), partial, file, at: 0, entries, names, open: None, leftover: None })
    }

    /// Cuts the partial file to `used` bytes with an empty header, and goes on there.
    fn begin_at(mut self, used: u64) -> Result<Writer, WriteError> {
        let start = |file: &mut File| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&[0; HEADER_BYTES])?;
            file.set_len(used)?;
            file.seek(SeekFrom::Start(used))
        };
        self.at = start(self.file.get_mut()).map_err(|error| self.failed(error))?;
        Ok(self)
    }

    fn pad(mut self) -> Result<Writer, WriteError> {
        self.put_padding()?;
        Ok(self)
    }

    /// The payload's length of a tensor that may come next.
    fn admit(&self, spec: &TensorSpec) -> Result<u64, WriteError> {
        let rule = |source| self.refuse(WriteRule::Tensor { name: spec.name.clone(), source });
        let bytes = spec.payload_bytes().map_err(rule)?;
        if self.names.contains(&spec.name) {
            return Err(self.refuse(WriteRule::DuplicateName { name: spec.name.clone() }));
        }
        if self.entries.len() >= limits::TENSORS as usize {
            return Err(self.refuse(WriteRule::TensorCount { limit: limits::TENSORS }));
        }
        Ok(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.file.write_all(bytes).map_err(|error| self.failed(error))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn put_padding(&mut self) -> Result<(), WriteError> {
        let padding = align(self.at).map_or(0, |end| end - self.at);
        let zeros = [0; ALIGNMENT as usize];
        self.put(zeros.get(..padding as usize).unwrap_or_default())
    }

    fn failed(&self, source: std::io::Error) -> WriteError {
        WriteError::Io { path: self.partial.clone(), source }
    }

    fn refuse(&self, source: WriteRule) -> WriteError {
        WriteError::Rule { path: self.path.clone(), source }
    }
}

/// Where the payload after `entry` begins.
fn end(entry: &TensorEntry) -> Option<u64> {
    align(entry.offset.checked_add(entry.bytes)?)
}

/// Gives a finished file its name, durably; what had that name before is replaced at once.
///
/// # Errors
/// [`WriteError::Io`] with the new name.
pub fn put_in_place(finished: &Path, path: &Path) -> Result<(), WriteError> {
    let failed = |source| WriteError::Io { path: path.to_owned(), source };
    gq_files::put_in_place(finished, path).map_err(failed)
}
