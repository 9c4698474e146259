//! What decides a reference's logits, as one number.

use gq_container::{Digest, Hasher};
use gq_model::RunOptions;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Bytes that are digested at a time.
const STEP_BYTES: usize = 1 << 20;
/// Where digests are remembered, inside the cache's directory.
const MEMORY: &str = "digests.json";

/// Stands for the content of a reference's files, its arithmetic and the program that computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    digest: Digest,
}

/// A file as the file system describes it; any write changes this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    bytes: u64,
    modified_ns: u64,
    changed_ns: i64,
    inode: u64,
    sha256: Digest,
}

impl Identity {
    /// Digests `files`: a `.gq` file, or a checkpoint's weights and configuration.
    ///
    /// Digests are remembered in `dir` for as long as a file's size, times and inode do not change. `build` tells
    /// programs apart that may compute differently. `progress` gets bytes digested and bytes in all.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn of_files(
        files: &[PathBuf],
        options: RunOptions,
        build: &str,
        dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> std::io::Result<Identity> {
        let mut memory = read_memory(dir);
        let mut stamps = Vec::new();
        for path in files {
            stamps.push((
                std::fs::canonicalize(path)?.to_string_lossy().into_owned(),
                std::fs::metadata(path)?,
            ));
        }
        let known = |name: &str, metadata: &Metadata, memory: &BTreeMap<String, Stamp>| {
            let stamp = memory.get(name)?;
            (*stamp == Stamp::new(metadata, stamp.sha256)).then_some(stamp.sha256)
        };
        let missing = stamps.iter().filter(|(name, metadata)| known(name, metadata, &memory).is_none());
        let total = missing.map(|(_, metadata)| metadata.len()).sum();
        let (mut done, mut hasher) = (0, Hasher::default());
        for (path, (name, metadata)) in files.iter().zip(&stamps) {
            let digest = match known(name, metadata, &memory) {
                Some(digest) => digest,
                None => {
                    let digest = digest_file(path, |bytes| {
                        done += bytes;
                        progress(done, total);
                    })?;
                    memory.insert(name.clone(), Stamp::new(metadata, digest));
                    digest
                }
            };
            hasher.update(&digest.0);
        }
        if total > 0 {
            write_memory(dir, &memory);
        }
        let RunOptions { level, activations, kv } = options;
        hasher.update(format!("{} {activations:?} {kv:?} {build}", level.name()).as_bytes());
        Ok(Identity { digest: hasher.finish() })
    }

    /// The name of the reference's logits on these windows, of which some positions are scored.
    pub(crate) fn key(&self, windows: &[Vec<u32>], scored: &std::ops::Range<usize>) -> String {
        let mut hasher = Hasher::default();
        hasher.update(&self.digest.0);
        for number in [windows.len(), scored.start, scored.end] {
            hasher.update(&(number as u64).to_le_bytes());
        }
        for window in windows {
            hasher.update(&(window.len() as u64).to_le_bytes());
            window.iter().for_each(|token| hasher.update(&token.to_le_bytes()));
        }
        hasher.finish().to_string()
    }
}

impl Stamp {
    fn new(metadata: &Metadata, sha256: Digest) -> Stamp {
        use std::os::unix::fs::MetadataExt;
        let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified_ns = modified.map_or(0, |since| since.as_nanos() as u64);
        let changed_ns = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
        Stamp { bytes: metadata.len(), modified_ns, changed_ns, inode: metadata.ino(), sha256 }
    }
}

fn digest_file(path: &Path, mut progress: impl FnMut(u64)) -> std::io::Result<Digest> {
    let (mut file, mut hasher, mut bytes) = (File::open(path)?, Hasher::default(), vec![0; STEP_BYTES]);
    loop {
        let read = file.read(&mut bytes)?;
        if read == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(bytes.get(..read).unwrap_or_default());
        progress(read as u64);
    }
}

/// What is remembered; nothing if it cannot be read.
fn read_memory(dir: &Path) -> BTreeMap<String, Stamp> {
    let text = std::fs::read(dir.join(MEMORY)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Remembers; without success the files are digested again next time.
fn write_memory(dir: &Path, memory: &BTreeMap<String, Stamp>) {
    let Ok(text) = serde_json::to_vec(memory) else { return };
    let made = std::fs::create_dir_all(dir);
    // Nothing depends on it.
    let _ = made.and_then(|()| gq_files::write_whole(&dir.join(MEMORY), &text));
}
