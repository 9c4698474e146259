//! Where test data are, and scratch copies of them.

use std::path::{Path, PathBuf};

/// A path below `testdata/`.
pub fn testdata(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

/// A text below `testdata/`.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(testdata(path)).unwrap()
}

/// A copy of a flat folder below `testdata/` that a test may change.
pub fn scratch(path: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(testdata(path)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}
