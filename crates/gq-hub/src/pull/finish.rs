//! The end of a file: hashed, renamed to its digest, linked into the snapshot.

use super::chunks::Partial;
use crate::cache::RepoCache;
use crate::client::Control;
use crate::tree::RemoteFile;
use crate::{Event, HubError, RepoId};
use std::fs::File;
use std::path::Path;

/// Verifies the bytes and gives them their name.
pub(super) fn finish(
    cache: &RepoCache,
    repo: &RepoId,
    file: &RemoteFile,
    partial: &Partial,
    control: &Control<'_>,
) -> Result<(), HubError> {
    (control.progress)(Event::Verifying { path: &file.path });
    partial.sync()?;
    let paths = partial.paths();
    let data = File::open(&paths.data).map_err(HubError::io("open", &paths.data))?;
    let actual = file.digest.of_same_kind(data, file.size).map_err(HubError::io("read", &paths.data))?;
    if actual != file.digest {
        paths.forget(); // nobody can tell which bytes are wrong
        return Err(HubError::HashMismatch {
            repo: repo.clone(),
            path: file.path.clone(),
            expected: file.digest.to_hex(),
            actual: actual.to_hex(),
        });
    }
    let blob = cache.blob(file.digest);
    std::fs::rename(&paths.data, &blob).map_err(HubError::io("rename", &blob))?;
    paths.forget();
    Ok(())
}

/// Refuses to begin what would not fit.
pub(super) fn check_space(dir: &Path, needed: u64, reserve: u64) -> Result<(), HubError> {
    match free_bytes(dir) {
        Some(available) if needed > 0 && available < needed.saturating_add(reserve) => {
            Err(HubError::DiskFull { path: dir.to_owned(), needed, available })
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(unix)]
fn free_bytes(dir: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(dir).ok()?;
    stat.f_bavail.checked_mul(stat.f_frsize)
}

#[cfg(not(unix))]
fn free_bytes(_dir: &Path) -> Option<u64> {
    None
}
