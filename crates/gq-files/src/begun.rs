//! Which files and folders this process began, whatever names they have by now.
//!
//! A file's number is given to another file once it is removed. So what is removed here is forgotten, and a file that
//! somebody else removed is told from its successor by the time it was made.

use crate::identity::Identity;
use std::fs::{File, Metadata};
use std::io::{ErrorKind, Result};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

static BEGUN: Mutex<Vec<Begun>> = Mutex::new(Vec::new());

fn begun() -> MutexGuard<'static, Vec<Begun>> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Begun {
    identity: Identity,
    /// When it was made; `None` where the file system does not keep that.
    born: Option<SystemTime>,
}

impl Begun {
    fn told(found: &Metadata, path: &Path) -> Result<Begun> {
        Ok(Begun { identity: Identity::told(found, path)?, born: found.created().ok() })
    }

    /// What is at `path` itself: a link is not followed.
    fn at(path: &Path) -> Result<Begun> {
        Begun::told(&std::fs::symlink_metadata(path)?, path)
    }

    fn note(self) {
        let mut begun = begun();
        begun.retain(|other| other.identity != self.identity);
        begun.push(self);
    }
}

/// Notes that this process began the folder at `path`: it holds it, and nobody else writes to it.
pub fn note_begun(path: &Path) {
    if let Ok(found) = Begun::at(path) {
        found.note();
    }
}

/// Notes that this process began the open file, which has the name `path`.
pub fn note_open(file: &File, path: &Path) {
    if let Ok(found) = file.metadata().and_then(|found| Begun::told(&found, path)) {
        found.note();
    }
}

/// Whether this process began what is at `path`; never of a link.
pub fn is_begun(path: &Path) -> bool {
    Begun::at(path).is_ok_and(|found| begun().contains(&found))
}

/// Removes the file or folder at `path` if this process began it: another process may have begun one of this name.
///
/// # Errors
/// When the system refuses.
pub fn remove_begun(path: &Path) -> Result<()> {
    if !is_begun(path) {
        return Ok(());
    }
    match path.is_dir() {
        true => remove_folder(path),
        false => remove(path),
    }
}

/// Removes the file at `path`, whoever began it, and forgets it. A link is removed, not what it leads to.
///
/// # Errors
/// When the system refuses.
pub fn remove(path: &Path) -> Result<()> {
    let found = Begun::at(path);
    std::fs::remove_file(path)?;
    forget(found);
    Ok(())
}

fn remove_folder(path: &Path) -> Result<()> {
    let found = Begun::at(path);
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => remove_folder(&entry.path())?,
            false => match remove(&entry.path()) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            },
        }
    }
    std::fs::remove_dir(path)?;
    forget(found);
    Ok(())
}

/// Renames and forgets what had the new name.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    let replaced = Begun::at(to);
    // Two names of one file: neither goes.
    let same = replaced.as_ref().is_ok_and(|to| Begun::at(from).is_ok_and(|from| from == *to));
    std::fs::rename(from, to)?;
    if !same {
        forget(replaced);
    }
    Ok(())
}

fn forget(gone: Result<Begun>) {
    if let Ok(gone) = gone {
        begun().retain(|other| *other != gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{begin, put_in_place};
    use std::time::Duration;

    /// A second name keeps the number in use, as a new file would that was given it.
    #[cfg(unix)]
    #[test]
    fn what_is_removed_or_replaced_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let begun_with_a_successor = |name: &str| {
            begin(&at(name)).unwrap();
            std::fs::hard_link(at(name), at("successor")).unwrap();
            assert!(is_begun(&at("successor")));
        };
        let is_left = |how: &str| {
            assert!(!is_begun(&at("successor")), "{how}");
            remove_begun(&at("successor")).unwrap();
            assert!(at("successor").exists(), "{how}");
            std::fs::remove_file(at("successor")).unwrap();
        };
        begun_with_a_successor("removed");
        remove(&at("removed")).unwrap();
        is_left("removed");
        begun_with_a_successor("removed");
        remove_begun(&at("removed")).unwrap();
        is_left("removed as begun");
        begun_with_a_successor("replaced");
        std::fs::write(at("new"), "new").unwrap();
        put_in_place(&at("new"), &at("replaced")).unwrap();
        is_left("replaced");
        std::fs::create_dir_all(at("folder/inner")).unwrap();
        note_begun(&at("folder"));
        begun_with_a_successor("folder/inner/x");
        remove_begun(&at("folder")).unwrap();
        assert!(!at("folder").exists());
        is_left("in a folder");
        // A file that is moved is not.
        begun_with_a_successor("moved");
        put_in_place(&at("moved"), &at("there")).unwrap();
        assert!(is_begun(&at("there")));
    }

    /// Somebody else removed ours, and the next file got its number.
    #[cfg(unix)]
    #[test]
    fn a_file_made_at_another_time_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        begin(&path).unwrap();
        let now = Begun::at(&path).unwrap();
        let Some(born) = now.born else { return };
        forget(Ok(now.clone()));
        Begun { born: Some(born - Duration::from_nanos(1)), ..now.clone() }.note();
        assert!(!is_begun(&path));
        now.note();
        assert!(is_begun(&path));
    }
}
