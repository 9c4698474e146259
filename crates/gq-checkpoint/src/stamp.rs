//! Whether a source is what it was when it was opened.

use crate::ReadError;
use gq_files::Change;
use std::fs::Metadata;
use std::path::Path;

/// A file's state when it was opened: [`gq_files::Stamp`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(gq_files::Stamp);

impl Stamp {
    /// The state that `metadata` tells.
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp(gq_files::Stamp::of(metadata))
    }

    /// Compares with the file that has the name `path` now.
    ///
    /// # Errors
    /// [`ReadError::Changed`] with what differs first; [`ReadError::Io`] when the file cannot be looked at.
    pub fn check(&self, path: &Path) -> Result<(), ReadError> {
        let change =
            self.0.compare(path).map_err(|source| ReadError::Io { path: path.to_owned(), source })?;
        match change {
            None => Ok(()),
            Some(Change { what, was, is }) => {
                Err(ReadError::Changed { path: path.to_owned(), what, limit: was, actual: is })
            }
        }
    }
}
