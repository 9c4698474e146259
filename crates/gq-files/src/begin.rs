//! Files that are being made: never opened through a link that somebody planted under their name.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;

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
