//! Files that wait to be looked at, and the mark next to them that says whose they are.

use super::{busy, free};
use crate::failure::{Exit, Failure};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Where a file lies until it was looked at.
pub fn candidate(path: &Path) -> PathBuf {
    gq_files::sibling(path, ".unchecked")
}

/// The file next to it that whoever makes it holds.
pub fn candidate_mark(path: &Path) -> PathBuf {
    gq_files::sibling(path, ".unchecked.mark")
}

/// The mark of this run: held while it lives, taken away when it is dropped.
#[must_use = "another run may take the name when it is dropped"]
pub struct Mark {
    path: PathBuf,
    _held: File,
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Held until it is gone. One that stays says nothing where nothing waits.
        let _ = gq_files::remove_begun(&self.path);
    }
}

/// Refuses an output next to which a file or folder waits to be looked at, unless a run that was killed left it: the mark
/// lies next to it, and nobody holds that. What lies there without one is somebody's.
///
/// # Errors
/// Where something else lies there, or another run holds the mark.
pub fn free_candidate(path: &Path) -> Result<(), Failure> {
    let (candidate, mark) = (candidate(path), candidate_mark(path));
    let Ok(found) = std::fs::symlink_metadata(&candidate) else { return Ok(()) };
    let own_mark = std::fs::symlink_metadata(&mark).is_ok_and(|mark| gq_files::foreign(&mark).is_none());
    if own_mark && (found.is_dir() || gq_files::foreign(&found).is_none()) {
        return free(&candidate, &mark);
    }
    let message = format!("{}: exists already, and no mark says that gq left it", candidate.display());
    let failure = Failure::new(Exit::Usage, "output.unchecked_exists", message).at(candidate.display());
    Err(failure.limit("a name that is free").actual("an existing file or folder"))
}

/// Takes the name for this run: marks it, and removes what a run that was killed left there.
///
/// # Errors
/// As [`free_candidate`], and when the mark cannot be made or another run holds it.
pub fn take_candidate(path: &Path) -> Result<Mark, Failure> {
    free_candidate(path)?;
    let (candidate, mark) = (candidate(path), candidate_mark(path));
    let _held = gq_files::begin(&mark).map_err(|error| match error.kind() {
        ErrorKind::ResourceBusy => busy(&candidate),
        _ => Failure::io(&mark, &error),
    })?;
    let mark = Mark { path: mark, _held };
    remove_left(&candidate).map_err(|error| Failure::io(&candidate, &error))?;
    Ok(mark)
}

/// Removes what lies at `path`, if anything does: whose it is was looked at.
fn remove_left(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => {
            gq_files::note_begun(path);
            gq_files::remove_begun(path)
        }
        Ok(_) => gq_files::remove(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
