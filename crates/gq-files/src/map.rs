//! Files mapped into memory, and which of them have been cut since.
//!
//! Reading beyond the end of a file that became shorter raises SIGBUS: no error can be returned then. Whoever handles
//! the signal asks [`cut`] which file it was.

use crate::stamp::{Change, Stamp};
use memmap2::Mmap;
use std::fs::File;
use std::io::Result;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Every file that is mapped now.
static MAPPED: Mutex<Vec<Weak<Origin>>> = Mutex::new(Vec::new());

/// A read-only map of a whole file.
#[derive(Debug)]
pub struct Mapped {
    map: Mmap,
    origin: Arc<Origin>,
}

/// What was mapped.
#[derive(Debug)]
struct Origin {
    path: PathBuf,
    file: File,
    bytes: u64,
    stamp: Stamp,
}

/// A mapped file that became shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Where it was opened.
    pub path: PathBuf,
    /// Bytes when it was mapped.
    pub was: u64,
    /// Bytes now; `None` when the system does not say.
    pub is: Option<u64>,
}

impl Mapped {
    /// Maps `file`, which was opened at `path`. It must not be changed while it is mapped.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(path: &Path, file: &File) -> Result<Mapped> {
        let file = file.try_clone()?;
        // Before it is mapped: what changes from here on is seen.
        let stamp = Stamp::of(&file.metadata()?);
        let map = map_file(&file)?;
        let origin = Arc::new(Origin { path: path.to_owned(), file, bytes: map.len() as u64, stamp });
        let mut mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.retain(|origin| origin.strong_count() > 0);
        mapped.push(Arc::downgrade(&origin));
        Ok(Mapped { map, origin })
    }

    /// Where it was opened.
    pub fn path(&self) -> &Path {
        &self.origin.path
    }

    /// How the mapped file differs from what it was: a cut within its last page raises no signal, and what is written
    /// into it is read. A file that took its name meanwhile is another one, and leaves this one as it is.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn change(&self) -> Result<Option<Change>> {
        self.origin.stamp.compare_open(&self.origin.file)
    }

    /// The same of what has the name now under which it was opened.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn change_of_name(&self) -> Result<Option<Change>> {
        self.origin.stamp.compare(&self.origin.path)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// Files mapped now that are shorter than they were.
pub fn cut() -> Vec<Cut> {
    origins(|origin| {
        let is = origin.file.metadata().ok().map(|found| found.len());
        let cut = is.is_none_or(|is| is < origin.bytes);
        cut.then(|| Cut { path: origin.path.clone(), was: origin.bytes, is })
    })
}

/// Where the files mapped now were opened.
pub fn mapped() -> Vec<PathBuf> {
    origins(|origin| Some(origin.path.clone()))
}

fn origins<T>(pick: impl Fn(&Origin) -> Option<T>) -> Vec<T> {
    let mapped = MAPPED.lock().unwrap_or_else(PoisonError::into_inner);
    mapped.iter().filter_map(Weak::upgrade).filter_map(|origin| pick(&origin)).collect()
}

#[allow(unsafe_code)]
fn map_file(file: &File) -> Result<Mmap> {
    // SAFETY: The mapping is private and read-only. It is sound as long as nobody writes to the file while it is
    // mapped, which `Mapped::new` asks of its caller; this program never changes a finished file: a writer makes a new
    // one and renames, which leaves the mapped one alone. A file that is cut raises SIGBUS, which `gq` turns into an
    // error and the end of the process.
    unsafe { Mmap::map(file) }
}
