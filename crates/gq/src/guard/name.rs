//! Finished files get their names: nothing that appeared meanwhile is replaced unasked, and nothing that is finished is lost.

use crate::explain::taken;
use crate::failure::{Exit, Failure};
use crate::signals;
use gq_files::{Existing, Placed};
use std::path::Path;

/// Gives a finished file or folder its name.
///
/// # Errors
/// When the system refuses, or something took the name and is kept: the finished file then lies next to it.
pub fn place(finished: &Path, path: &Path, existing: Existing) -> Result<(), Failure> {
    signals::whole(finished);
    let placed = gq_files::place(finished, path, existing).map_err(|error| Failure::io(path, &error))?;
    settled(path, placed)
}

/// Writes a file next to its place, then gives it its name.
///
/// # Errors
/// As [`place`], and when it cannot be written.
pub fn write_whole(path: &Path, text: &str, existing: Existing) -> Result<(), Failure> {
    signals::whole_when_named(&gq_files::partial_path(path));
    let placed = gq_files::write_placed(path, text.as_bytes(), existing).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        Failure::new(Exit::Environment, "output.io", message).at(path.display())
    })?;
    settled(path, placed)
}

fn settled(path: &Path, placed: Placed) -> Result<(), Failure> {
    match placed {
        Placed::There => Ok(()),
        Placed::NextTo(kept) => Err(taken(path, &kept)),
    }
}
