//! A folder of test data of which one file is what the fuzzer makes up.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder of its own with links to the files of `testdata/NAME`, and one file to write.
#[derive(Debug)]
pub struct Folder {
    dir: TempDir,
    file: PathBuf,
}

impl Folder {
    /// A folder like `testdata/like` but for `file`.
    ///
    /// # Panics
    /// When the test data is not there, or nothing can be written to the system's folder of temporary files.
    pub fn like(like: &str, file: &str) -> Folder {
        let dir = tempfile::tempdir().expect("a folder");
        let like = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(like);
        for entry in std::fs::read_dir(like).expect("test data") {
            let entry = entry.expect("an entry");
            if entry.file_name() != file {
                std::fs::copy(entry.path(), dir.path().join(entry.file_name())).expect("a copy");
            }
        }
        let file = dir.path().join(file);
        Folder { dir, file }
    }

    /// The folder, once its file has these bytes.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn with(&self, bytes: &[u8]) -> &Path {
        std::fs::write(&self.file, bytes).expect("a file");
        self.dir.path()
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }
}
