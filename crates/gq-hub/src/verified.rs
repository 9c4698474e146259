//! Which blobs of the cache have been hashed, and how they stood then, so that a second pull need not hash them again.

use crate::cache::{read_small, write_atomic};
use crate::{FileDigest, HubError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};

/// Larger than the notes about any repository.
const MAX_BYTES: u64 = 64 << 20;

/// How a file stood when it was hashed. Whoever writes to it afterwards changes one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size: u64,
    /// Nanoseconds since 1970.
    modified: i128,
    /// Of the inode, where the system has them: changed by every write, and not to be set back.
    changed: i128,
    inode: u64,
    device: u64,
}

impl Stamp {
    /// How a file stands now.
    pub(crate) fn of(metadata: &Metadata) -> Stamp {
        let since = |time: std::time::SystemTime| time.duration_since(std::time::UNIX_EPOCH).ok();
        let modified = metadata.modified().ok().and_then(since).map_or(0, |d| d.as_nanos() as i128);
        let (changed, inode, device) = inode(metadata);
        Stamp { size: metadata.len(), modified, changed, inode, device }
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> (i128, u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let changed = i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
    (changed, metadata.ino(), metadata.dev())
}

#[cfg(not(unix))]
fn inode(_metadata: &Metadata) -> (i128, u64, u64) {
    (0, 0, 0)
}

/// The notes about one repository's blobs, by digest.
#[derive(Debug)]
pub(crate) struct Verified {
    path: PathBuf,
    stamps: BTreeMap<String, Stamp>,
    /// Files with other bytes than their names promise, of this run.
    damaged: BTreeMap<String, Stamp>,
    changed: bool,
}

impl Verified {
    /// The notes in a repository's folder; none where they cannot be read.
    pub(crate) fn open(dir: &Path) -> Verified {
        let path = dir.join("gq-verified.json");
        let stamps = read_small(&path, MAX_BYTES).and_then(|text| serde_json::from_str(&text).ok());
        Verified { path, stamps: stamps.unwrap_or_default(), damaged: BTreeMap::new(), changed: false }
    }

    /// Whether the file has been hashed to this digest and not been written to since.
    pub(crate) fn knows(&self, digest: FileDigest, metadata: &Metadata) -> bool {
        self.stamps.get(&digest.to_hex()) == Some(&Stamp::of(metadata))
    }

    /// Notes that the file hashes to its digest.
    pub(crate) fn note(&mut self, digest: FileDigest, metadata: &Metadata) {
        let old = self.stamps.insert(digest.to_hex(), Stamp::of(metadata));
        self.changed |= old != Some(Stamp::of(metadata));
    }

    /// Whether this run has found that the file hashes to something else.
    pub(crate) fn refuses(&self, digest: FileDigest, metadata: &Metadata) -> bool {
        self.damaged.get(&digest.to_hex()) == Some(&Stamp::of(metadata))
    }

    /// Notes that the file hashes to something else.
    pub(crate) fn refuse(&mut self, digest: FileDigest, metadata: &Metadata) {
        self.changed |= self.stamps.remove(&digest.to_hex()).is_some();
        self.damaged.insert(digest.to_hex(), Stamp::of(metadata));
    }

    /// Writes the notes down, if there are new ones.
    ///
    /// # Errors
    /// When the folder refuses.
    pub(crate) fn save(&mut self) -> Result<(), HubError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let text = serde_json::to_string(&self.stamps).map_err(|source| HubError::Io {
            action: "write",
            path: self.path.clone(),
            source: source.into(),
        })?;
        write_atomic(&self.path, text.as_bytes())
    }
}
