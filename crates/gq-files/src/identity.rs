//! Which file a path means.

use std::fs::Metadata;
use std::io::Result;
use std::path::{Path, PathBuf};

/// A file, whatever path or link led to it: device and inode, or its canonical path where there are none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    numbers: Option<(u64, u64)>,
    path: Option<PathBuf>,
}

impl Identity {
    /// The file that `path` leads to, links followed.
    ///
    /// # Errors
    /// When it leads nowhere.
    pub fn of(path: &Path) -> Result<Identity> {
        Identity::told(&std::fs::metadata(path)?, path)
    }

    /// The file at `path` that `found` tells about.
    pub(crate) fn told(found: &Metadata, path: &Path) -> Result<Identity> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let _ = path;
            Ok(Identity { numbers: Some((found.dev(), found.ino())), path: None })
        }
        #[cfg(not(unix))]
        {
            let _ = found;
            Ok(Identity { numbers: None, path: Some(path.canonicalize()?) })
        }
    }
}

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing.
    Nothing,
    /// A file, or a link to one.
    File,
    /// A folder, or a link to one.
    Folder,
    /// A link that leads nowhere.
    BrokenLink,
    /// A device, pipe or socket, or a link to one.
    Special,
}

/// What `path` is, links followed.
///
/// # Errors
/// When the system refuses to say.
pub fn kind(path: &Path) -> Result<Kind> {
    let missing = |error: &std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(Kind::Folder),
        Ok(found) if found.is_file() => Ok(Kind::File),
        Ok(_) => Ok(Kind::Special),
        Err(error) if missing(&error) => match std::fs::symlink_metadata(path) {
            Ok(_) => Ok(Kind::BrokenLink),
            Err(error) if missing(&error) => Ok(Kind::Nothing),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
    }
}
