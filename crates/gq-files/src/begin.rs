//! Files that are being made: never opened through a link that somebody planted under their name.

use crate::identity::Identity;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What this process began, whatever names it has by now.
static BEGUN: Mutex<Vec<Identity>> = Mutex::new(Vec::new());

/// Notes that this process began the file or folder at `path`: it holds it, and nobody else writes to it.
pub fn note_begun(path: &Path) {
    if let Ok(identity) = Identity::of(path) {
        let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
        if !begun.contains(&identity) {
            begun.push(identity);
        }
    }
}

/// Whether this process began what is at `path`; never of a link.
pub fn is_begun(path: &Path) -> bool {
    let own = std::fs::symlink_metadata(path).is_ok_and(|found| !found.is_symlink());
    let begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    own && Identity::of(path).is_ok_and(|identity| begun.contains(&identity))
}

/// Removes the file or folder at `path` if this process began it: another process may have begun one of this name.
///
/// # Errors
/// When the system refuses.
pub fn remove_begun(path: &Path) -> Result<()> {
    if !is_begun(path) {
        return Ok(());
    }
    let identity = Identity::of(path);
    if path.is_dir() {
        std::fs::remove_dir_all(path)?
    } else {
        std::fs::remove_file(path)?
    }
    // The system gives its number to the next file, which may be somebody else's.
    let mut begun = BEGUN.lock().unwrap_or_else(PoisonError::into_inner);
    begun.retain(|other| !identity.as_ref().is_ok_and(|identity| identity == other));
    Ok(())
}

/// Whether another process, or another open file of this one, holds the file at `path`.
pub fn is_held(path: &Path) -> bool {
    let regular = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let file = if regular { File::open(path).ok() } else { None };
    file.is_some_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Opens the file that an earlier run left at `path` for reading and writing, or makes it. Its bytes stay.
///
/// # Errors
/// When `path` is a link, a folder, a device, has a second name, or belongs to somebody else; or the system refuses.
pub fn open_own(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    not_following(&mut options);
    match options.clone().create_new(true).open(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        made => return made,
    }
    refuse(&std::fs::symlink_metadata(path)?)?;
    let file = options.open(path)?;
    // It may have been exchanged in between.
    refuse(&file.metadata()?)?;
    Ok(file)
}

/// Begins a file at `path` with nothing in it, held by this process: what an earlier run left there is cut off.
///
/// # Errors
/// As [`open_own`], and while another process holds it.
pub fn begin(path: &Path) -> Result<File> {
    let file = open_own(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(Error::new(ErrorKind::ResourceBusy, "another gq is writing this file"));
        }
        // Some network file systems have no locks.
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    file.set_len(0)?;
    note_begun(path);
    Ok(file)
}

/// Why a file is not one that this program left unfinished; `None` where it may be.
pub fn foreign(found: &Metadata) -> Option<&'static str> {
    if found.is_symlink() {
        return Some("a link is in the way, and links are not followed here");
    }
    if found.is_dir() {
        return Some("a folder is in the way");
    }
    if !found.is_file() {
        return Some("a device, pipe or socket is in the way");
    }
    foreign_owner(found)
}

fn refuse(found: &Metadata) -> Result<()> {
    match foreign(found) {
        Some(why) => Err(Error::new(ErrorKind::AlreadyExists, why)),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn foreign_owner(found: &Metadata) -> Option<&'static str> {
    use std::os::unix::fs::MetadataExt;
    if found.nlink() > 1 {
        return Some("a file with a second name is in the way");
    }
    (found.uid() != rustix::process::geteuid().as_raw()).then_some("a file of another user is in the way")
}

#[cfg(not(unix))]
fn foreign_owner(_found: &Metadata) -> Option<&'static str> {
    None
}

#[cfg(unix)]
fn not_following(options: &mut OpenOptions) {
    use rustix::fs::OFlags;
    use std::os::unix::fs::OpenOptionsExt;
    // Without waiting: a pipe that took the name in between would have no reader.
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
}

#[cfg(not(unix))]
fn not_following(_options: &mut OpenOptions) {}
