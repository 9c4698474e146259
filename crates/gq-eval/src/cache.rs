//! Reference logits kept on disk, so that a second candidate does not pay for the reference again.
//!
//! One file per reference, tokens and arithmetic: a head of [`HEAD_BYTES`] and one block per piece of a window, f32
//! logits and their CRC-32. Nothing is trusted: an entry that is not whole is removed and computed again, and one
//! that cannot be written is not kept. Both cost time and nothing else, so neither is an error.

use crate::report::NoiseFloor;
use crc32fast::Hasher;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What an entry begins with; the last byte counts versions of the layout.
const MAGIC: [u8; 8] = *b"gqlogit\x02";
/// Room for the head: magic, length, JSON, zeros, checksum.
const HEAD_BYTES: usize = 4096;
/// Bytes of a checksum.
const CHECKSUM: usize = 4;
/// Elements that are converted at a time.
const STEP: usize = 1 << 14;
/// An unfinished entry this old was left by a program that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory of reference logits with a size limit; those not used for longest go first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogitCache {
    dir: PathBuf,
    limit_bytes: u64,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    key: String,
    /// Logits of each block, in order; blocks of a window repeat.
    logits: u64,
    noise: Option<NoiseFloor>,
}

impl LogitCache {
    /// A cache in `dir`, which is created when something is kept, of up to `limit_bytes`.
    pub fn new(dir: &Path, limit_bytes: u64) -> LogitCache {
        LogitCache { dir: dir.to_owned(), limit_bytes }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.bytes).sum()
    }

    /// Opens the entry `key` of `blocks` logits, if it is there and whole; it counts as used now.
    pub(crate) fn open(&self, key: &str, blocks: &[usize]) -> Option<CacheReader> {
        let path = self.entry(key);
        let reader = CacheReader::open(&path, key, blocks);
        match &reader {
            Some(reader) => {
                // The order of use is a convenience; without it entries go by age.
                let _ = reader.file.set_modified(SystemTime::now());
            }
            None => remove(&path),
        }
        reader
    }

    /// Begins the entry `key` of `blocks` logits, after making room; `None` when it is beyond the limit or the
    /// directory cannot be written.
    pub(crate) fn create(&self, key: &str, blocks: &[usize]) -> Option<CacheWriter> {
        let needed = entry_bytes(blocks);
        if needed > self.limit_bytes {
            return None;
        }
        std::fs::create_dir_all(&self.dir).ok()?;
        self.evict(self.limit_bytes - needed);
        let path = self.entry(key);
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let mut file = BufWriter::with_capacity(1 << 20, gq_files::begin(&partial).ok()?);
        let begun = file.write_all(&[0; HEAD_BYTES]);
        let logits = blocks.iter().map(|&block| block as u64).sum();
        let head = Head { key: key.to_owned(), logits, noise: None };
        let writer = CacheWriter { path, partial, file, head, written: 0, named: false };
        begun.is_ok().then_some(writer)
    }

    /// Removes entries, those not used for longest first, until at most `bytes` are left.
    fn evict(&self, bytes: u64) {
        let mut files = self.files();
        files.sort_by_key(|file| std::cmp::Reverse(file.used));
        let mut kept = 0;
        for file in files {
            kept += file.bytes;
            let abandoned = file.partial && file.used.elapsed().is_ok_and(|age| age > ABANDONED);
            if abandoned || (kept > bytes && !file.partial) {
                remove(&file.path);
                kept -= file.bytes;
            }
        }
    }

    fn files(&self) -> Vec<CacheFile> {
        let Ok(entries) = std::fs::read_dir(&self.dir) else { return Vec::new() };
        let file = |entry: std::fs::DirEntry| {
            let (path, metadata) = (entry.path(), entry.metadata().ok()?);
            let (ours, partial) = (is_entry(&path), is_partial(&path));
            let used = metadata.modified().ok()?;
            (ours || partial).then_some(CacheFile { path, bytes: metadata.len(), used, partial })
        };
        entries.filter_map(|entry| file(entry.ok()?)).collect()
    }

    fn entry(&self, key: &str) -> PathBuf {
        self.dir.join(format!("{key}.logits"))
    }
}

/// Whether a name is one of ours: a digest and `logits`. The folder may hold anything else.
fn is_entry(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "logits") && path.file_stem().is_some_and(is_key)
}

/// The same of an entry that is being written, or was: a digest, a process and `partial`.
fn is_partial(path: &Path) -> bool {
    let of_process = |name: &OsStr| {
        let (key, process) = name.to_str()?.split_once('.')?;
        let number = !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit());
        Some(number && is_key(OsStr::new(key)))
    };
    path.extension().is_some_and(|end| end == "partial")
        && path.file_stem().and_then(of_process).unwrap_or(false)
}

fn is_key(name: &OsStr) -> bool {
    let digits = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    name.to_str().is_some_and(|name| name.len() >= 8 && digits(name))
}

struct CacheFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
    partial: bool,
}

/// An entry that is read in order.
#[derive(Debug)]
pub(crate) struct CacheReader {
    path: PathBuf,
    file: File,
    pub(crate) noise: Option<NoiseFloor>,
}

impl CacheReader {
    fn open(path: &Path, key: &str, blocks: &[usize]) -> Option<CacheReader> {
        let mut file = File::open(path).ok()?;
        if file.metadata().ok()?.len() != entry_bytes(blocks) {
            return None;
        }
        let mut head = [0; HEAD_BYTES];
        file.read_exact(&mut head).ok()?;
        let head = read_head(&head)?;
        let logits: u64 = blocks.iter().map(|&block| block as u64).sum();
        let noise = head.noise;
        (head.key == key && head.logits == logits).then_some(CacheReader {
            path: path.to_owned(),
            file,
            noise,
        })
    }

    /// Replaces `out` by the next block, of `len` logits; `false` when it is damaged, and the entry gone.
    pub(crate) fn next(&mut self, len: usize, out: &mut Vec<f32>) -> bool {
        let whole = self.read(len, out).is_some();
        if !whole {
            remove(&self.path);
        }
        whole
    }

    fn read(&mut self, len: usize, out: &mut Vec<f32>) -> Option<()> {
        out.clear();
        let (mut bytes, mut checksum) = (vec![0; STEP * 4], Hasher::new());
        while out.len() < len {
            let part = bytes.get_mut(..4 * STEP.min(len - out.len()))?;
            self.file.read_exact(part).ok()?;
            checksum.update(part);
            out.extend(part.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)));
        }
        let mut stored = [0; CHECKSUM];
        self.file.read_exact(&mut stored).ok()?;
        (stored == checksum.finalize().to_le_bytes()).then_some(())
    }
}

/// An entry in the making; it appears only when it is complete.
#[derive(Debug)]
pub(crate) struct CacheWriter {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    head: Head,
    written: u64,
    named: bool,
}

impl CacheWriter {
    /// Adds a block; `false` when it cannot be written.
    pub(crate) fn append(&mut self, logits: &[f32]) -> bool {
        self.written += logits.len() as u64;
        let (mut bytes, mut checksum) = (Vec::with_capacity(STEP * 4), Hasher::new());
        let mut write = || {
            for part in logits.chunks(STEP) {
                bytes.clear();
                bytes.extend(part.iter().flat_map(|logit| logit.to_le_bytes()));
                checksum.update(&bytes);
                self.file.write_all(&bytes)?;
            }
            self.file.write_all(&std::mem::take(&mut checksum).finalize().to_le_bytes())
        };
        write().is_ok()
    }

    /// Gives the entry its name; `false` when it cannot, or blocks are missing.
    pub(crate) fn finish(mut self, noise: Option<NoiseFloor>) -> bool {
        self.head.noise = noise;
        let Some(head) = write_head(&self.head).filter(|_| self.written == self.head.logits) else {
            return false;
        };
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&head));
        let synced = written.and_then(|()| self.file.flush()).and_then(|()| self.file.get_ref().sync_all());
        self.named = synced.and_then(|()| gq_files::put_in_place(&self.partial, &self.path)).is_ok();
        self.named
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        if !self.named {
            remove(&self.partial);
        }
    }
}

fn entry_bytes(blocks: &[usize]) -> u64 {
    HEAD_BYTES as u64 + blocks.iter().map(|&block| (4 * block + CHECKSUM) as u64).sum::<u64>()
}

fn write_head(head: &Head) -> Option<[u8; HEAD_BYTES]> {
    let json = serde_json::to_vec(head).ok()?;
    let mut bytes = [0; HEAD_BYTES];
    let (body, checksum) = bytes.split_last_chunk_mut::<CHECKSUM>()?;
    body.get_mut(..8)?.copy_from_slice(&MAGIC);
    body.get_mut(8..12)?.copy_from_slice(&u32::try_from(json.len()).ok()?.to_le_bytes());
    body.get_mut(12..12 + json.len())?.copy_from_slice(&json);
    *checksum = crc32fast::hash(body).to_le_bytes();
    Some(bytes)
}

fn read_head(bytes: &[u8; HEAD_BYTES]) -> Option<Head> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
    if body.first_chunk() != Some(&MAGIC) || *checksum != crc32fast::hash(body).to_le_bytes() {
        return None;
    }
    let length = u32::from_le_bytes(*body.get(8..)?.first_chunk()?);
    serde_json::from_slice(body.get(12..12_usize.checked_add(length as usize)?)?).ok()
}

/// Removes a file of the cache; if that fails, it is found again and removed later.
fn remove(path: &Path) {
    let _ = gq_files::remove(path);
}
