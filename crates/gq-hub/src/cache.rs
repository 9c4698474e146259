//! The standard cache, shared with `huggingface_hub`: blobs by digest, refs, snapshots of relative links.
//!
//! Names of folders are `hf-hub`'s; writing is ours, because every file must appear whole or not at all.

use crate::repo::{check_path, is_commit};
use crate::tree::RemoteFile;
use crate::{FileDigest, HubError, RepoId};
use hf_hub::{Repo, RepoType};
use serde_json::{Map, Value, json};
use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

    fn dir(&self) -> PathBuf {
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
        let text = std::fs::read_to_string(self.dir().join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|c| is_commit(c))
    }

    pub(crate) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.dir().join("refs").join(revision);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == commit) {
            return Ok(());
        }
        write_atomic(&path, commit.as_bytes())
    }

    /// The snapshot of `revision`, if the cache has one, whole or not.
    pub(crate) fn snapshot(&self, revision: &str) -> Option<Snapshot> {
        let commit = self.commit_of(revision)?;
        let dir = self.snapshot_dir(&commit);
        dir.is_dir().then(|| Snapshot { repo: self.repo.clone(), commit, dir })
    }

    /// Waits for the lock that `huggingface_hub` takes for the same blob.
    pub(crate) fn lock(&self, digest: FileDigest, wait: Duration) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{}.lock", digest.to_hex()));
        create_parent(&path)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(HubError::io("open", &path))?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if start.elapsed() < wait => {
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
        create_parent(&link)?;
        let temporary = temporary_sibling(&link);
        place(&target, &self.blob(digest), &temporary).map_err(HubError::io("link", &temporary))?;
        std::fs::rename(&temporary, &link).map_err(HubError::io("rename", &link))
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
        let text = std::fs::read_to_string(self.tree_path(commit)).ok()?;
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

/// Creates the folder that `path` is to be in.
pub(crate) fn create_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(parent) => std::fs::create_dir_all(parent).map_err(HubError::io("create", parent)),
        None => Ok(()),
    }
}

fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    create_parent(path)?;
    let temporary = temporary_sibling(path);
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(HubError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(HubError::io("rename", path))
}

/// A name beside `path` that no other process uses.
fn temporary_sibling(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
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
