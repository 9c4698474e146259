//! An unfinished file: bytes at their final offsets, and a journal of which chunks are there.
//!
//! The journal is a 32-byte header (magic, file size, chunk size, zeros; little-endian) and one 32-byte slot per
//! chunk: zeros, or the chunk's sha256, written after the chunk's bytes. A slot never straddles a page, and
//! whatever a crash leaves behind is found when the slots are compared with the bytes at the next start.

use super::PartialPaths;
use crate::HubError;
use crate::cache::{create_new, open_own};
use sha2::{Digest, Sha256};
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;

const MAGIC: [u8; 8] = *b"gqchunk1";
const SLOT: u64 = 32;
/// Chunks of other sizes are not continued.
const CHUNK_RANGE: Range<u64> = 1 << 10..(1 << 32);

/// An open unfinished file.
pub(super) struct Partial {
    data: File,
    journal: File,
    paths: PartialPaths,
    size: u64,
    chunk_bytes: u64,
}

impl Partial {
    /// Bytes that the journal promises, without checking them; 0 when there is none.
    pub(super) fn peek(paths: &PartialPaths, size: u64) -> u64 {
        let Some((_, chunk_bytes, slots)) = read_journal(paths, size) else { return 0 };
        let done = (0..).zip(&slots).filter(|(_, slot)| **slot != [0; 32]).map(|(i, _)| i);
        done.map(|i| chunk_range(size, chunk_bytes, i)).map(|r| r.end - r.start).sum()
    }

    /// Opens the file, continuing an earlier one where its journal and bytes agree.
    ///
    /// Gives the chunks that are still to be fetched.
    pub(super) fn open(
        paths: PartialPaths,
        size: u64,
        chunk_bytes: u64,
    ) -> Result<(Partial, Vec<u64>), HubError> {
        let chunk_bytes = chunk_bytes.clamp(CHUNK_RANGE.start, CHUNK_RANGE.end - 1);
        if let Some((journal, chunk_bytes, slots)) = read_journal(&paths, size)
            && let Some(data) = open_own(&paths.data).filter(|f| f.metadata().is_ok_and(|m| m.len() == size))
        {
            let partial = Partial { data, journal, paths, size, chunk_bytes };
            let missing = partial.missing(&slots)?;
            return Ok((partial, missing));
        }
        let create = |path: &PathBuf| create_new(path).map_err(HubError::io("create", path));
        let chunks = chunk_count(size, chunk_bytes);
        let data = create(&paths.data)?;
        data.set_len(size).map_err(HubError::io("extend", &paths.data))?;
        let journal = create(&paths.journal)?;
        journal.set_len(SLOT * (1 + chunks)).map_err(HubError::io("extend", &paths.journal))?;
        let mut header = [0; SLOT as usize];
        header[..8].copy_from_slice(&MAGIC);
        header[8..16].copy_from_slice(&size.to_le_bytes());
        header[16..24].copy_from_slice(&chunk_bytes.to_le_bytes());
        write_at(&journal, &header, 0).map_err(HubError::io("write", &paths.journal))?;
        Ok((Partial { data, journal, paths, size, chunk_bytes }, (0..chunks).collect()))
    }

    /// Chunks whose slot is empty or does not match the bytes.
    fn missing(&self, slots: &[[u8; 32]]) -> Result<Vec<u64>, HubError> {
        let read = HubError::io("read", &self.paths.data);
        let check = || -> std::io::Result<Vec<u64>> {
            let mut missing = Vec::new();
            for (i, slot) in (0..).zip(slots) {
                if *slot == [0; 32] || self.hash_chunk(i)? != *slot {
                    missing.push(i);
                }
            }
            Ok(missing)
        };
        check().map_err(read)
    }

    fn hash_chunk(&self, chunk: u64) -> std::io::Result<[u8; 32]> {
        let range = chunk_range(self.size, self.chunk_bytes, chunk);
        (&self.data).seek(SeekFrom::Start(range.start))?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 18];
        let mut reader = (&self.data).take(range.end - range.start);
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(hasher.finalize().into()),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// Byte range of a chunk.
    pub(super) fn range(&self, chunk: u64) -> Range<u64> {
        chunk_range(self.size, self.chunk_bytes, chunk)
    }

    /// Puts bytes where they belong. Threads write disjoint ranges.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), HubError> {
        write_at(&self.data, bytes, offset).map_err(|e| match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                HubError::DiskFull { path: self.paths.data.clone(), needed: bytes.len() as u64, available: 0 }
            }
            _ => HubError::io("write", &self.paths.data)(e),
        })
    }

    /// Notes that a chunk's bytes, which hash to `sha256`, have been written.
    pub(super) fn mark(&self, chunk: u64, sha256: [u8; 32]) -> Result<(), HubError> {
        write_at(&self.journal, &sha256, SLOT * (1 + chunk))
            .map_err(HubError::io("write", &self.paths.journal))
    }

    /// Makes the bytes durable.
    pub(super) fn sync(&self) -> Result<(), HubError> {
        self.data.sync_all().map_err(HubError::io("sync", &self.paths.data))
    }

    /// The bytes, from the first on, and the file that they are in.
    pub(super) fn bytes(&self) -> std::io::Result<&File> {
        (&self.data).seek(SeekFrom::Start(0))?;
        Ok(&self.data)
    }

    /// Where the bytes are.
    pub(super) fn paths(&self) -> &PartialPaths {
        &self.paths
    }
}

impl PartialPaths {
    /// Removes what is left of the unfinished file.
    pub(super) fn forget(&self) {
        std::fs::remove_file(&self.journal).ok();
        std::fs::remove_file(&self.data).ok();
    }
}

fn chunk_count(size: u64, chunk_bytes: u64) -> u64 {
    size.div_ceil(chunk_bytes)
}

fn chunk_range(size: u64, chunk_bytes: u64, chunk: u64) -> Range<u64> {
    let start = chunk * chunk_bytes;
    start..start.saturating_add(chunk_bytes).min(size)
}

type Journal = (File, u64, Vec<[u8; 32]>);

/// The journal, its chunk size and its slots; `None` when it is not one for a file of this size.
fn read_journal(paths: &PartialPaths, size: u64) -> Option<Journal> {
    let mut file = open_own(&paths.journal)?;
    let data_len = std::fs::symlink_metadata(&paths.data).ok().filter(Metadata::is_file)?.len();
    let mut header = [0; SLOT as usize];
    file.read_exact(&mut header).ok()?;
    let number = |at: usize| header[at..at + 8].try_into().ok().map(u64::from_le_bytes);
    let (stored_size, chunk_bytes) = (number(8)?, number(16)?);
    let expected_len = chunk_count(size, chunk_bytes.max(1)).checked_add(1)?.checked_mul(SLOT)?;
    let valid = header[..8] == MAGIC
        && stored_size == size
        && data_len == size
        && CHUNK_RANGE.contains(&chunk_bytes)
        && file.metadata().ok()?.len() == expected_len;
    if !valid {
        return None;
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).ok()?;
    Some((file, chunk_bytes, bytes.as_chunks::<32>().0.to_vec()))
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(dir: &std::path::Path) -> PartialPaths {
        PartialPaths { data: dir.join("d"), journal: dir.join("j") }
    }

    #[test]
    fn a_chunk_counts_only_when_its_bytes_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let (partial, missing) = Partial::open(paths(dir.path()), 2500, 1024).unwrap();
        assert_eq!(missing, [0, 1, 2]);
        assert_eq!(partial.range(2), 2048..2500);
        let bytes = [7; 1024];
        partial.write(&bytes, 1024).unwrap();
        partial.mark(1, Sha256::digest(bytes).into()).unwrap();
        partial.mark(0, [1; 32]).unwrap(); // promised, never written
        drop(partial);
        assert_eq!(Partial::peek(&paths(dir.path()), 2500), 2048);
        // Another chunk size does not lose what is there.
        let (partial, missing) = Partial::open(paths(dir.path()), 2500, 4096).unwrap();
        assert_eq!(missing, [0, 2]);
        drop(partial);
        // Another file size does.
        let (_, missing) = Partial::open(paths(dir.path()), 2600, 2048).unwrap();
        assert_eq!(missing, [0, 1]);
    }

    #[test]
    fn a_damaged_journal_starts_over() {
        let dir = tempfile::tempdir().unwrap();
        for (at, value) in [(0, b'x'), (8, 1), (16, 0), (23, 0xFF)] {
            paths(dir.path()).forget();
            drop(Partial::open(paths(dir.path()), 3000, 1024).unwrap());
            let journal = File::options().write(true).open(dir.path().join("j")).unwrap();
            write_at(&journal, &[value], at).unwrap();
            assert_eq!(Partial::peek(&paths(dir.path()), 3000), 0);
            assert_eq!(Partial::open(paths(dir.path()), 3000, 1024).unwrap().1, [0, 1, 2]);
        }
    }
}
