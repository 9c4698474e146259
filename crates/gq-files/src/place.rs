//! Files get their names when they are whole.

use crate::begin::begin;
use std::fs::File;
use std::io::{Result, Write};
use std::path::{Path, PathBuf};

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
    std::fs::rename(finished, path)?;
    sync_folder(path)
}

/// Writes a whole file: next to its place first, synced, then renamed. Nothing is left when it fails.
///
/// # Errors
/// As [`begin`], and when the disk refuses.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let partial = partial_path(path);
    let mut file = begin(&partial)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    written.and_then(|()| put_in_place(&partial, path)).inspect_err(|_| {
        let _ = std::fs::remove_file(&partial); // the first failure is the one to tell
    })
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
