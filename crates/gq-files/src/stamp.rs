//! What tells one state of a file from another: length, time of the last change, and which file it is.

use std::fs::{File, Metadata};
use std::io::{ErrorKind, Result};
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

/// What of a file is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its length, its time, which file it is, or that it has its name.
    pub what: &'static str,
    /// What it was.
    pub was: String,
    /// What it is.
    pub is: String,
}

impl Stamp {
    /// The state that `metadata` tells.
    pub fn of(metadata: &Metadata) -> Stamp {
        Stamp { bytes: metadata.len(), modified: metadata.modified().ok(), file: identity(metadata) }
    }

    /// What differs first in the file that has the name `path` now.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn compare(&self, path: &Path) -> Result<Option<Change>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(self.difference(&Stamp::of(&metadata))),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Ok(Some(Change { what: "name", was: "there".to_owned(), is: "gone".to_owned() }))
            }
            Err(error) => Err(error),
        }
    }

    /// What differs first in the open file itself, whatever has its name.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn compare_open(&self, file: &File) -> Result<Option<Change>> {
        Ok(self.difference(&Stamp::of(&file.metadata()?)))
    }

    fn difference(&self, now: &Stamp) -> Option<Change> {
        let change = |what, of: &dyn Fn(&Stamp) -> String| Some(Change { what, was: of(self), is: of(now) });
        if self.bytes != now.bytes {
            return change("length", &|stamp| stamp.bytes.to_string());
        }
        if self.file != now.file {
            let shown = |stamp: &Stamp| {
                stamp.file.map_or_else(String::new, |(device, number)| format!("{device}:{number}"))
            };
            return change("file under this name", &shown);
        }
        if self.modified != now.modified {
            let shown = |stamp: &Stamp| {
                let since = stamp.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                since.map_or_else(String::new, |since| {
                    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
                })
            };
            return change("time of the last change", &shown);
        }
        None
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
        let open = File::open(&path).unwrap();
        let stamp = Stamp::of(&open.metadata().unwrap());
        assert_eq!(stamp.compare(&path).unwrap(), None);
        assert_eq!(stamp.compare_open(&open).unwrap(), None);
        let what = || {
            let (named, opened) = (stamp.compare(&path).unwrap(), stamp.compare_open(&open).unwrap());
            (named.map(|change| change.what), opened.map(|change| change.what))
        };
        write("abcd", 1000);
        assert_eq!(what(), (Some("length"), Some("length")));
        write("abd", 1001);
        assert_eq!(what(), (Some("time of the last change"), Some("time of the last change")));
        write("abc", 1000);
        let other = dir.path().join("y");
        std::fs::write(&other, "abc").unwrap();
        std::fs::rename(&other, &path).unwrap();
        if cfg!(unix) {
            // The one that is open is as it was.
            assert_eq!(what(), (Some("file under this name"), None));
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(what(), (Some("name"), None));
    }
}
