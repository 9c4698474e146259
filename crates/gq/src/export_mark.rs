//! The file that marks the folder of an export to safetensors while it is written.

use std::path::{Path, PathBuf};

/// The file that says whose an unfinished folder is.
const MARK: &str = ".gq-export";

/// The file that whoever writes an unfinished folder holds.
pub fn mark(dir: &Path) -> PathBuf {
    dir.join(MARK)
}

/// Whether a folder is what an interrupted export left, or what one is writing.
pub fn is_unfinished(dir: &Path) -> bool {
    mark(dir).is_file()
}
