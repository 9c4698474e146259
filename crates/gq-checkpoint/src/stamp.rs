//! What tells one state of a file from another: length, time of the last change, and which file it is.

use crate::ReadError;
use std::fs::Metadata;
use std::path::Path;
use std::time::SystemTime;

/// A file's state when it was opened.
///
/// A file that is written to while it is read has another length or time afterwards; one that is replaced under its
/// name is another file. Writing within the resolution of the file system's clock after the file was opened, with the
/// same length, is not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Length in bytes.
    bytes: u64,
    /// Time of the last change, as precise as the file system keeps it.
    modified: Option<SystemTime>,
    /// Device and number of the file; `None` where the system has none.
    file: Option<(u64, u64)>,
}

impl Stamp {
    /// The state that `metadata` tells.
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok(), file: identity(metadata) }
    }

    /// Compares with the file that has the name `path` now.
    ///
    /// # Errors
    /// [`ReadError::Changed`] with what differs first; [`ReadError::Io`] when the file cannot be looked at.
    pub fn check(&self, path: &Path) -> Result<(), ReadError> {
        let changed = |what, limit: String, actual: String| {
            Err(ReadError::Changed { path: path.to_owned(), what, limit, actual })
        };
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return changed("name", "there".to_owned(), "gone".to_owned());
            }
            Err(source) => return Err(ReadError::Io { path: path.to_owned(), source }),
        };
        let now = Stamp::of(&metadata);
        if self.bytes != now.bytes {
            return changed("length", self.bytes.to_string(), now.bytes.to_string());
        }
        if self.file != now.file {
            let shown = |stamp: &Stamp| {
                stamp.file.map_or_else(String::new, |(device, number)| format!("{device}:{number}"))
            };
            return changed("file under this name", shown(self), shown(&now));
        }
        if self.modified != now.modified {
            let shown = |stamp: &Stamp| {
                let since = stamp.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                since.map_or_else(String::new, |since| {
                    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
                })
            };
            return changed("time of the last change", shown(self), shown(&now));
        }
        Ok(())
    }
}

#[cfg(unix)]
fn identity(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Metadata) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    #[test]
    fn every_kind_of_change_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let write = |text: &str, seconds: u64| {
            std::fs::write(&path, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        };
        write("abc", 1000);
        let stamp = Stamp::of(&std::fs::metadata(&path).unwrap());
        stamp.check(&path).unwrap();
        let what = || match stamp.check(&path) {
            Err(ReadError::Changed { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        write("abcd", 1000);
        assert_eq!(what(), "length");
        write("abd", 1001);
        assert_eq!(what(), "time of the last change");
        let other = dir.path().join("y");
        std::fs::write(&other, "abc").unwrap();
        std::fs::rename(&other, &path).unwrap();
        if cfg!(unix) {
            assert_eq!(what(), "file under this name");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(what(), "name");
    }
}
