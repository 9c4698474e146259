//! Other texts for the same tensors, without coding anything again.

use crate::container::Container;
use crate::error::WriteError;
use crate::text::StoredText;
use crate::writer::{Finished, Writer};
use std::path::Path;

impl Container {
    /// Writes a file with the same tensors and other texts to `path`, which may be this file's own (the open map
    /// keeps the old bytes). Payloads, their places and the payload digest stay the same.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is left of it then.
    pub fn with_texts(&self, path: &Path, texts: Vec<StoredText>) -> Result<Finished, WriteError> {
        let mut writer = Writer::create_once(path)?;
        writer.adopt(self.tensors(), self.payloads())?;
        writer.finish(texts)
    }

    /// Writes the same bytes to `path`: next to it first, synced, then renamed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn copy_to(&self, path: &Path) -> Result<(), WriteError> {
        gq_files::write_whole(path, self.bytes())
            .map_err(|source| WriteError::Io { path: path.to_owned(), source })
    }
}
