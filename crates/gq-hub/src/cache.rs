//! The standard cache, shared with `huggingface_hub`: blobs by digest, refs, snapshots of relative links.
//!
//! Names of folders are `hf-hub`'s; writing is ours, because every file must appear whole or not at all.

use crate::repo::{check_path, is_commit};
use crate::tree::RemoteFile;
use crate::{CancelToken, FileDigest, HubError, RepoId};
use hf_hub::{Repo, RepoType};
use serde_json::{Map, Value, json};
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Larger than a list of as many files as a repository may have.
const MAX_TREE_BYTES: u64 = 256 << 20;

/// One commit of a repository, on this disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The repository.
    pub repo: RepoId,
    /// The commit.
    pub commit: String,
    /// The folder that holds the files under their own names.
    pub dir: PathBuf,
}

/// The cache folder of one repository.
#[derive(Clone, Debug)]
pub(crate) struct RepoCache {
    root: PathBuf,
    repo: RepoId,
    folder: String,
}

impl RepoCache {
    pub(crate) fn new(cache_dir: &Path, repo: &RepoId) -> RepoCache {
        let folder = Repo::new(repo.to_string(), RepoType::Model).folder_name();
        RepoCache { root: cache_dir.to_owned(), repo: repo.clone(), folder }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    pub(crate) fn blobs_dir(&self) -> PathBuf {
        self.dir().join("blobs")
    }

    pub(crate) fn blob(&self, digest: FileDigest) -> PathBuf {
        self.blobs_dir().join(digest.to_hex())
    }

    pub(crate) fn snapshot_dir(&self, commit: &str) -> PathBuf {
        self.dir().join("snapshots").join(commit)
    }

    /// The commit that `revision` stood for when it was last asked; commits stand for themselves.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = read_small(&self.dir().join("refs").join(revision), 1 << 10)?;
        Some(text.trim().to_owned()).filter(|c| is_commit(c))
    }

    pub(crate) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.dir().join("refs").join(revision);
        if read_small(&path, 1 << 10).is_some_and(|old| old == commit) {
            return Ok(());
        }
        self.create_parent(&path)?;
        write_atomic(&path, commit.as_bytes())
    }

    /// The snapshot of `revision`, if the cache has one, whole or not.
    pub(crate) fn snapshot(&self, revision: &str) -> Option<Snapshot> {
        let commit = self.commit_of(revision)?;
        let dir = self.snapshot_dir(&commit);
        dir.is_dir().then(|| Snapshot { repo: self.repo.clone(), commit, dir })
    }

    /// Waits for the lock that `huggingface_hub` takes for the same blob, and tells `waiting` once when it has to.
    pub(crate) fn lock(
        &self,
        digest: FileDigest,
        wait: Duration,
        cancel: &CancelToken,
        waiting: &dyn Fn(&Path),
    ) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{}.lock", digest.to_hex()));
        create_below(&self.root, &path)?;
        if std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Err(HubError::PlantedLink { path });
        }
        let mut options = File::options();
        options.create(true).truncate(false).write(true);
        let file = without_following(&mut options).open(&path).map_err(HubError::io("open", &path))?;
        let start = Instant::now();
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if cancel.is_cancelled() => return Err(HubError::Cancelled),
                Err(TryLockError::WouldBlock) if start.elapsed() < wait => {
                    if !std::mem::replace(&mut told, true) {
                        waiting(&path);
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(TryLockError::WouldBlock) => return Err(HubError::Locked { path, waited: wait }),
                // A file system without locks: a broken lock costs a repeated download, not a broken file.
                Err(TryLockError::Error(e)) if e.kind() == std::io::ErrorKind::Unsupported => {
                    return Ok(file);
                }
                Err(TryLockError::Error(e)) => return Err(HubError::io("lock", &path)(e)),
            }
        }
    }

    /// Makes `path` of `commit` stand for the blob.
    pub(crate) fn link(&self, commit: &str, path: &str, digest: FileDigest) -> Result<(), HubError> {
        let link = self.snapshot_dir(commit).join(path);
        let up = "../".repeat(path.matches('/').count() + 2);
        let target = PathBuf::from(format!("{up}blobs/{}", digest.to_hex()));
        if std::fs::read_link(&link).is_ok_and(|old| old == target) {
            return Ok(());
        }
        self.create_parent(&link)?;
        let temporary = temporary_sibling(&link);
        place(&target, &self.blob(digest), &temporary).map_err(HubError::io("link", &temporary))?;
        std::fs::rename(&temporary, &link).map_err(HubError::io("rename", &link))
    }

    /// Creates the folder that blobs are in.
    pub(crate) fn create_blobs(&self) -> Result<(), HubError> {
        self.create_parent(&self.blobs_dir().join("a blob"))
    }

    /// Creates the folders from the repository's own down to the one that `path` is to be in.
    fn create_parent(&self, path: &Path) -> Result<(), HubError> {
        create_below(&self.dir(), path)
    }

    fn tree_path(&self, commit: &str) -> PathBuf {
        self.dir().join("trees").join(format!("{commit}.json"))
    }

    /// Keeps the file list, in the form that `huggingface_hub` reads; with it a partial snapshot shows as one.
    pub(crate) fn write_tree(&self, commit: &str, files: &[RemoteFile]) -> Result<(), HubError> {
        let path = self.tree_path(commit);
        if path.exists() {
            return Ok(());
        }
        self.create_parent(&path)?;
        let mut entries = Map::new();
        for file in files {
            let mut entry = json!({"size": file.size, "blob_id": file.blob_id});
            if let FileDigest::Sha256(_) = file.digest {
                entry["lfs_sha256"] = json!(file.digest.to_hex());
                entry["lfs_size"] = json!(file.size);
            }
            if let Some(xet) = &file.xet_hash {
                entry["xet_hash"] = json!(xet);
            }
            entries.insert(file.path.clone(), entry);
        }
        let text = json!({"format_version": 1, "files": entries}).to_string();
        write_atomic(&path, text.as_bytes())
    }

    /// The file list kept by us or by `huggingface_hub`; `None` when there is none that can be read.
    pub(crate) fn read_tree(&self, commit: &str) -> Option<Vec<RemoteFile>> {
        let text = read_small(&self.tree_path(commit), MAX_TREE_BYTES)?;
        let value: Value = serde_json::from_str(&text).ok()?;
        if value.get("format_version")?.as_u64()? != 1 {
            return None;
        }
        let parse = |(path, entry): (&String, &Value)| {
            check_path(path).ok()?;
            let blob_id = entry.get("blob_id")?.as_str()?;
            let name = entry.get("lfs_sha256").and_then(Value::as_str).unwrap_or(blob_id);
            let size = entry.get("lfs_size").or_else(|| entry.get("size"))?.as_u64()?;
            let xet_hash = entry.get("xet_hash").and_then(Value::as_str).map(str::to_owned);
            let digest = FileDigest::from_hex(name)?;
            Some(RemoteFile { path: path.clone(), size, digest, blob_id: blob_id.to_owned(), xet_hash })
        };
        value.get("files")?.as_object()?.iter().map(parse).collect()
    }
}

/// Creates the folders from `top` down to the one that `path` is to be in, none of those below `top` a link: what is
/// written below a link would land, and replace files, somewhere else.
fn create_below(top: &Path, path: &Path) -> Result<(), HubError> {
    std::fs::create_dir_all(top).map_err(HubError::io("create", top))?;
    let mut at = top.to_owned();
    let inside = path.parent().and_then(|parent| parent.strip_prefix(top).ok());
    for part in inside.iter().flat_map(|inside| inside.components()) {
        let Component::Normal(name) = part else { continue };
        at.push(name);
        match std::fs::create_dir(&at) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                let found = std::fs::symlink_metadata(&at).map_err(HubError::io("read", &at))?;
                if found.is_symlink() {
                    return Err(HubError::PlantedLink { path: at });
                }
            }
            Err(e) => return Err(HubError::io("create", &at)(e)),
        }
    }
    Ok(())
}

/// Opens a file to read it, unless it is a link.
pub(crate) fn open_to_read(path: &Path) -> std::io::Result<File> {
    without_following(File::options().read(true)).open(path)
}

/// Text of a regular file of at most `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> Option<String> {
    let file = open_to_read(path).ok()?;
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    let mut text = String::new();
    file.take(limit).read_to_string(&mut text).ok()?;
    (metadata.len() <= limit).then_some(text)
}

/// Writes a file whole or not at all; its folder is there.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let temporary = temporary_sibling(path);
    let write = || {
        let mut file = create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(HubError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(HubError::io("rename", path))
}

/// An empty file that was not there: whatever has the name, a link too, is removed, not written to.
pub(crate) fn create_new(path: &Path) -> std::io::Result<File> {
    let create = || File::options().read(true).write(true).create_new(true).open(path);
    match create() {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            create()
        }
        other => other,
    }
}

/// An existing file of ours, to go on with: a regular one, not a link, and with no second name elsewhere.
pub(crate) fn open_own(path: &Path) -> Option<File> {
    let file = without_following(File::options().read(true).write(true)).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && names(&metadata) == 1).then_some(file)
}

#[cfg(unix)]
fn names(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn names(_metadata: &Metadata) -> u64 {
    1
}

/// Opens no link, and does not wait for the other end of a pipe.
#[cfg(unix)]
fn without_following(options: &mut OpenOptions) -> &mut OpenOptions {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
}

#[cfg(not(unix))]
fn without_following(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// A name next to `path` that no other process or thread uses.
fn temporary_sibling(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

#[cfg(unix)]
fn place(target: &Path, _blob: &Path, at: &Path) -> std::io::Result<()> {
    match std::os::unix::fs::symlink(target, at) {
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(at)?;
            std::os::unix::fs::symlink(target, at)
        }
        other => other,
    }
}

/// Links need privileges on Windows; a second name for the same bytes does not.
#[cfg(not(unix))]
fn place(_target: &Path, blob: &Path, at: &Path) -> std::io::Result<()> {
    std::fs::remove_file(at).ok();
    std::fs::hard_link(blob, at).or_else(|_| std::fs::copy(blob, at).map(|_| ()))
}
