//! Files get their names when they are whole.

use crate::begin::begin;
use crate::begun::{remove_begun, rename};
use std::any::Any;
use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What is held while a file gets its name.
pub type Held = Box<dyn Any>;

/// What gives it.
static HOLD: OnceLock<fn(&Path) -> Held> = OnceLock::new();

/// From now on `hold` is called with every finished file right before it gets its name, and what it gives lives until
/// it has that: whoever tells what lies where sees the names before or after, never in between. The first call counts.
pub fn hold_while_naming(hold: fn(&Path) -> Held) {
    let _ = HOLD.set(hold);
}

fn held(finished: &Path) -> Option<Held> {
    HOLD.get().map(|hold| hold(finished))
}

/// Names that are tried for a finished file whose own was taken.
const OTHER_NAMES: u32 = 1000;

/// What becomes of a file or folder that has the name already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Existing {
    /// It is replaced at once.
    #[default]
    Replaced,
    /// It stays, whenever it appeared.
    Kept,
}

/// Where a finished file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it may have another name"]
pub enum Placed {
    /// It has its name.
    There,
    /// Something else has that: it has this name.
    NextTo(PathBuf),
}

/// Where a file lies until it is whole: next to its place, with `.partial` appended.
pub fn partial_path(path: &Path) -> PathBuf {
    sibling(path, ".partial")
}

/// `path` with `end` appended to its name.
pub fn sibling(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Gives a finished file its name, durably; what had that name is replaced at once. A link is replaced, not followed.
///
/// # Errors
/// When the system refuses.
pub fn put_in_place(finished: &Path, path: &Path) -> Result<()> {
    let naming = held(finished);
    rename(finished, path)?;
    drop(naming);
    sync_folder(path)
}

/// Gives a finished file or folder its name, durably, unless something has that and is kept: then it gets a name next to
/// it, with `.finished` appended, or `.finished-2` and so on.
///
/// # Errors
/// When the system refuses.
pub fn place(finished: &Path, path: &Path, existing: Existing) -> Result<Placed> {
    if existing == Existing::Replaced {
        put_in_place(finished, path)?;
        return Ok(Placed::There);
    }
    let naming = held(finished);
    if rename_if_free(finished, path)? {
        drop(naming);
        sync_folder(path)?;
        return Ok(Placed::There);
    }
    for number in 1..=OTHER_NAMES {
        let other = match number {
            1 => sibling(path, ".finished"),
            number => sibling(path, &format!(".finished-{number}")),
        };
        if rename_if_free(finished, &other)? {
            drop(naming);
            sync_folder(&other)?;
            return Ok(Placed::NextTo(other));
        }
    }
    Err(Error::new(ErrorKind::AlreadyExists, "this name and a thousand others are taken"))
}

/// Writes a whole file: next to its place first, synced, then renamed. Nothing is left when it fails.
///
/// # Errors
/// As [`begin`], and when the disk refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_placed(path, bytes, Existing::Replaced).map(drop)
}

/// The same, with what is at `path` replaced or kept.
///
/// # Errors
/// As [`write_whole`].
pub fn write_placed(path: &Path, bytes: &[u8], existing: Existing) -> Result<Placed> {
    let partial = partial_path(path);
    let mut file = begin(&partial)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| place(&partial, path, existing)).inspect_err(|_| {
        let _ = remove_begun(&partial); // the first failure is the one to tell
    })
}

/// Renames where nothing has the new name; `false` where something has.
#[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
fn rename_if_free(from: &Path, to: &Path) -> Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        // Not every file system and kernel can.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => link_if_free(from, to),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn rename_if_free(from: &Path, to: &Path) -> Result<bool> {
    link_if_free(from, to)
}

/// The same by a second name, which is only given where nothing has it. Folders have one name, and so have files on some
/// file systems: there something may take the name between a look and the renaming.
fn link_if_free(from: &Path, to: &Path) -> Result<bool> {
    match std::fs::hard_link(from, to) {
        Ok(()) => return std::fs::remove_file(from).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
        Err(_) => {}
    }
    match std::fs::symlink_metadata(to) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => std::fs::rename(from, to).map(|()| true),
        Err(error) => Err(error),
    }
}

/// Makes the new name durable; folders cannot be opened everywhere.
fn sync_folder(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = (path, File::open(path));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_rename_only_to_a_free_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for rename in [rename_if_free, link_if_free] {
            std::fs::write(at("new"), "new").unwrap();
            std::fs::write(at("old"), "old").unwrap();
            assert!(!rename(&at("new"), &at("old")).unwrap());
            assert_eq!(std::fs::read(at("old")).unwrap(), b"old");
            assert!(rename(&at("new"), &at("free")).unwrap());
            assert_eq!(std::fs::read(at("free")).unwrap(), b"new");
            assert!(!at("new").exists());
            std::fs::create_dir(at("folder")).unwrap();
            std::fs::create_dir(at("empty")).unwrap();
            assert!(!rename(&at("folder"), &at("empty")).unwrap());
            assert!(rename(&at("folder"), &at("named")).unwrap());
            assert!(rename(&at("absent"), &at("other")).is_err());
            for folder in ["empty", "named"] {
                std::fs::remove_dir(at(folder)).unwrap();
            }
            std::fs::remove_file(at("free")).unwrap();
        }
    }
}
