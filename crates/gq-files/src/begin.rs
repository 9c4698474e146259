//! Files that are being made: never opened through a link that somebody planted under their name.

use crate::begun::note_open;
use crate::identity::Identity;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::time::Duration;

/// How often a file is opened again that lost its name before it was locked.
const TRIES: u32 = 8;
/// How long a lock is waited for, in steps: a look by [`is_held`] takes it for a moment.
const STEPS: u32 = 10;
const STEP: Duration = Duration::from_millis(5);

/// Whether another process, or another open file of this one, holds the file at `path`.
pub fn is_held(path: &Path) -> bool {
    let regular = std::fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let file = if regular { File::open(path).ok() } else { None };
    file.is_some_and(|file| match file.try_lock_shared() {
        // At once, and not when the last copy is closed: a child that is being started has one too.
        Ok(()) => {
            let _ = file.unlock();
            false
        }
        Err(error) => matches!(error, TryLockError::WouldBlock),
    })
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
/// As [`open_locked`].
pub fn begin(path: &Path) -> Result<File> {
    let file = open_locked(path)?;
    file.set_len(0)?;
    note_open(&file, path);
    Ok(file)
}

/// Opens as [`open_own`] does, and holds the file for this process until it is closed. What is returned had the name
/// `path` after it was locked: it is not the finished file of another process that was renamed meanwhile. Where the file
/// system has no locks it is not held.
///
/// # Errors
/// As [`open_own`], and [`ErrorKind::ResourceBusy`] while another process holds it.
pub fn open_locked(path: &Path) -> Result<File> {
    lock(path, &mut || {})
}

/// `opened` is called between opening and locking.
fn lock(path: &Path, opened: &mut dyn FnMut()) -> Result<File> {
    for _ in 0..TRIES {
        let file = open_own(path)?;
        opened();
        hold(&file)?;
        if has_name(&file, path)? {
            return Ok(file);
        }
    }
    Err(Error::new(ErrorKind::ResourceBusy, "another gq is writing this file"))
}

fn hold(file: &File) -> Result<()> {
    for step in 0..=STEPS {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if step < STEPS => std::thread::sleep(STEP),
            Err(TryLockError::WouldBlock) => break,
            // Some network file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(Error::new(ErrorKind::ResourceBusy, "another gq is writing this file"))
}

/// Whether the open file is the one at `path`.
fn has_name(file: &File, path: &Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Identity::told(&found, path)? == Identity::told(&file.metadata()?, path)?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Another run finishes its file between our opening and locking it.
    #[cfg(unix)]
    #[test]
    fn a_file_that_got_its_name_before_it_was_locked_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut other = Some(begin(&at("x.partial")).unwrap());
        other.as_mut().unwrap().write_all(b"finished").unwrap();
        let mut finish = || {
            if let Some(other) = other.take() {
                crate::put_in_place(&at("x.partial"), &at("x")).unwrap();
                drop(other);
            }
        };
        let file = lock(&at("x.partial"), &mut finish).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(std::fs::read(at("x")).unwrap(), b"finished");
        assert!(is_held(&at("x.partial")) && !is_held(&at("x")));
    }

    /// Whoever takes the name away each time is at work there.
    #[cfg(unix)]
    #[test]
    fn a_name_that_is_taken_away_each_time_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut times = 0;
        let mut remove = || {
            times += 1;
            std::fs::remove_file(&path).unwrap();
        };
        assert_eq!(lock(&path, &mut remove).unwrap_err().kind(), ErrorKind::ResourceBusy);
        assert_eq!(times, TRIES);
    }
}
