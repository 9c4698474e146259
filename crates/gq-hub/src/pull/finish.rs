//! The end of a file: hashed, renamed to its digest, linked into the snapshot.

use super::chunks::Partial;
use crate::cache::{RepoCache, open_to_read};
use crate::client::Control;
use crate::tree::RemoteFile;
use crate::verified::{Stamp, Verified};
use crate::{Event, HubError, RepoId};
use std::fs::{File, Metadata};
use std::io::Read;
use std::path::Path;

/// Verifies the bytes and gives them their name. Gives how the file stands then.
pub(super) fn finish(
    cache: &RepoCache,
    repo: &RepoId,
    file: &RemoteFile,
    partial: &Partial,
    control: &Control<'_>,
) -> Result<Metadata, HubError> {
    (control.progress)(Event::Verifying { path: &file.path });
    partial.sync()?;
    let paths = partial.paths();
    let read = |e| HubError::io("read", &paths.data)(e);
    let data = partial.bytes().map_err(read)?;
    let actual = file.digest.of_same_kind(data, file.size).map_err(read)?;
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
    // Of the file that was hashed, by whatever name.
    data.metadata().map_err(HubError::io("read", &blob))
}

/// Whether the cache's file has the bytes that its name promises; hashed unless it was and nobody wrote to it since.
pub(super) fn is_whole(
    cache: &RepoCache,
    file: &RemoteFile,
    verified: &mut Verified,
    control: &Control<'_>,
) -> bool {
    // Not through a link, which would have to be believed after it was hashed; nor is a pipe waited for.
    let Ok(mut blob) = open_to_read(&cache.blob(file.digest)) else { return false };
    let Ok(before) = blob.metadata() else { return false };
    if !before.is_file() || before.len() != file.size {
        return false;
    }
    if verified.knows(file.digest, &before) {
        return true;
    }
    if verified.refuses(file.digest, &before) {
        return false;
    }
    (control.progress)(Event::Verifying { path: &file.path });
    let actual = file.digest.of_same_kind(Watched { blob: &mut blob, control }, file.size);
    let unchanged = blob.metadata().is_ok_and(|after| Stamp::of(&after) == Stamp::of(&before));
    match actual.is_ok_and(|actual| actual == file.digest) && unchanged {
        true => verified.note(file.digest, &before),
        false => {
            if !control.cancel.is_cancelled() {
                verified.refuse(file.digest, &before);
                (control.progress)(Event::Damaged { path: &file.path });
            }
            return false;
        }
    }
    true
}

/// Reads until it is told to stop.
struct Watched<'a, 'c> {
    blob: &'a mut File,
    control: &'a Control<'c>,
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self.control.cancel.is_cancelled() {
            true => Err(std::io::Error::other("cancelled")),
            false => self.blob.read(buffer),
        }
    }
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
