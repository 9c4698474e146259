//! What a command is about to write, looked at before it does any work: nothing that it reads is destroyed, nothing
//! that exists is replaced unless that was asked for, and what cannot be written is said at once.
//!
//! Every command that writes calls [`check`] first; `table.rs` lists its options, and tests compare the list with the
//! command line and try each.

mod candidate;
mod name;
mod read;
mod room;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

use crate::export_mark;
use crate::failure::{Exit, Failure};
use candidate::free_candidate;
pub use candidate::{candidate, candidate_mark, take_candidate};
use gq_files::{Existing, Kind, kind, sibling};
pub use name::{place, write_whole};
use read::Read;
pub use room::space;
use std::path::{Path, PathBuf};

/// What is left next to an output until it is whole.
const SIBLINGS: [&str; 2] = [".partial", ".journal"];
/// Where a file lies until it was looked at, and what is written on the way there.
const UNCHECKED: [&str; 6] = [
    ".unchecked",
    ".unchecked.mark",
    ".unchecked.partial",
    ".unchecked.trial",
    ".unchecked.states.partial",
    ".unchecked.codes.partial",
];

/// Replacing what is there.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct Force {
    /// Replace an output that exists already; without this it is refused.
    #[arg(long)]
    pub force: bool,
}

impl Force {
    /// What becomes of something that took the output's name while the output was made.
    pub fn existing(self) -> Existing {
        if self.force { Existing::Replaced } else { Existing::Kept }
    }

    /// The same where without an output the file that is read is changed in place.
    pub fn existing_or_in_place(self, output: Option<&Path>) -> Existing {
        if output.is_none() { Existing::Replaced } else { self.existing() }
    }
}

/// One output.
#[derive(Clone, Debug)]
pub struct Out {
    path: PathBuf,
    shape: Shape,
}

/// What an output is going to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A file; with force it replaces another.
    File { force: bool },
    /// The file that is read: changing it is what the command is for.
    InPlace,
    /// A folder that must not be there yet.
    NewFolder,
    /// A folder that is empty, or with force may hold something.
    WorkFolder { force: bool },
    /// A folder that may be there.
    Folder,
    /// A folder that gq makes next to an output; what is in it is the command's to judge.
    WithSiblings,
}

impl Out {
    /// A file that is new, or replaces another where that was asked for.
    pub fn file(path: &Path, force: Force) -> Out {
        Out { path: path.to_owned(), shape: Shape::File { force: force.force } }
    }

    /// `output`, or the file that is read where there is none.
    pub fn or_in_place(output: Option<&Path>, file: &Path, force: Force) -> Out {
        match output {
            Some(output) => Out::file(output, force),
            None => Out { path: file.to_owned(), shape: Shape::InPlace },
        }
    }

    /// A folder that is made as a whole.
    pub fn new_folder(path: &Path) -> Out {
        Out { path: path.to_owned(), shape: Shape::NewFolder }
    }

    /// A folder in which a command works; it is empty, or what is in it may be replaced.
    pub fn work_folder(path: &Path, force: Force) -> Out {
        Out { path: path.to_owned(), shape: Shape::WorkFolder { force: force.force } }
    }

    /// A folder in which a command works; what is in it is the command's to judge.
    pub fn folder(path: &Path) -> Out {
        Out { path: path.to_owned(), shape: Shape::Folder }
    }

    /// A folder next to an output that nobody named: a link is not followed there.
    pub fn companion(path: &Path) -> Out {
        Out { path: path.to_owned(), shape: Shape::WithSiblings }
    }
}

/// Refuses outputs that are among what is read (by whatever path or link), that exist without force, or that cannot be
/// written. `reads` are paths as they were given; of folders the files that a loader reads count, of repositories those in
/// the cache. Names that a loader would read in such a folder are refused as well.
///
/// # Errors
/// The first output that is refused; nothing was touched then.
pub fn check(outs: &[Out], reads: &[&Path]) -> Result<(), Failure> {
    let read = Read::new(reads);
    for (index, out) in outs.iter().enumerate() {
        one(out, &read)?;
        if let Some(twin) = outs[..index].iter().find(|other| same_place(&other.path, &out.path)) {
            let place = twin.path.display();
            let message = format!("{place}: two outputs of one command have this name");
            return Err(Failure::new(Exit::Usage, "output.twice", message).at(place));
        }
    }
    Ok(())
}

fn one(out: &Out, read: &Read) -> Result<(), Failure> {
    let path = out.path.as_path();
    let found = kind(path).map_err(|error| cannot(path, &error))?;
    if !matches!(out.shape, Shape::InPlace) {
        let others = SIBLINGS.into_iter().chain(UNCHECKED).map(|end| sibling(path, end));
        for path in [path.to_owned()].into_iter().chain(others) {
            if let Some(what) = read.what(&path) {
                let message = format!("{}: is read by this command ({what})", path.display());
                let failure = Failure::new(Exit::Usage, "output.is_source", message).at(path.display());
                return Err(failure.limit("another file").actual(what));
            }
        }
        if let Some(folder) = read.with(path) {
            let folder = folder.display();
            let message = format!("{}: a file of this name is read with {folder}", path.display());
            let failure = Failure::new(Exit::Usage, "output.in_source", message).at(path.display());
            return Err(failure.limit("a name that is not read there").actual(folder));
        }
    }
    if matches!(out.shape, Shape::InPlace)
        && std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
    {
        // A new file takes the place of the old one: of the link, not of what it leads to.
        return Err(refused(path, "output.is_link", "the file itself", "a link to a file"));
    }
    if matches!(out.shape, Shape::WithSiblings)
        && std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
    {
        return Err(refused(path, "output.is_link", "a folder", "a link"));
    }
    match (out.shape, found) {
        (_, Kind::Special) => Err(refused(path, "output.special", "a file", "a device, pipe or socket")),
        (Shape::File { .. } | Shape::InPlace, Kind::Folder) => {
            Err(refused(path, "output.is_folder", "a file", "a folder"))
        }
        (Shape::File { force: false } | Shape::NewFolder, Kind::File | Kind::BrokenLink | Kind::Folder) => {
            let code = match out.shape {
                Shape::NewFolder => "output.folder_exists",
                _ => "output.exists",
            };
            let message = format!("{}: exists already", path.display());
            let failure = Failure::new(Exit::Usage, code, message).at(path.display());
            Err(failure.limit("a new name").actual("an existing one"))
        }
        (Shape::WorkFolder { force: false }, Kind::Folder) if holds_something(path) => {
            let message = format!("{}: is not empty", path.display());
            let failure = Failure::new(Exit::Usage, "output.exists", message).at(path.display());
            Err(failure.limit("an empty folder").actual("one that holds something"))
        }
        (Shape::Folder | Shape::WithSiblings | Shape::WorkFolder { .. }, Kind::File | Kind::BrokenLink) => {
            Err(refused(path, "output.is_file", "a folder", "a file"))
        }
        (Shape::Folder | Shape::WithSiblings | Shape::WorkFolder { .. }, Kind::Folder) => {
            gq_files::may_write(path).map_err(|error| cannot(path, &error))
        }
        (Shape::Folder | Shape::WithSiblings | Shape::WorkFolder { .. }, Kind::Nothing) => {
            let above = path.ancestors().skip(1).find(|above| above.exists()).unwrap_or(Path::new("."));
            gq_files::may_write(above).map_err(|error| cannot(path, &error))
        }
        (Shape::File { .. } | Shape::InPlace | Shape::NewFolder, _) => companion_is_free(path, out.shape),
    }
}

/// Whether a file can be made and begun at `path`.
fn companion_is_free(path: &Path, shape: Shape) -> Result<(), Failure> {
    let folder = folder_of(path);
    match kind(folder).map_err(|error| cannot(path, &error))? {
        Kind::Folder => gq_files::may_write(folder).map_err(|error| cannot(path, &error))?,
        Kind::Nothing | Kind::BrokenLink => {
            let message = format!("{}: there is no folder {}", path.display(), folder.display());
            let failure = Failure::new(Exit::Environment, "output.missing_folder", message);
            return Err(failure.at(path.display()).limit(folder.display()).actual("missing"));
        }
        Kind::File | Kind::Special => {
            return Err(refused(folder, "output.is_file", "a folder", "a file"));
        }
    }
    if path.file_name().is_none() {
        return Err(refused(path, "output.is_folder", "a file", "a folder"));
    }
    free_candidate(path)?;
    // What lies under the first name was looked at.
    for begun in SIBLINGS.into_iter().chain(UNCHECKED.into_iter().skip(1)).map(|end| sibling(path, end)) {
        match std::fs::symlink_metadata(&begun) {
            // What an interrupted export left.
            Ok(found)
                if found.is_dir() && shape == Shape::NewFolder && export_mark::is_unfinished(&begun) =>
            {
                free(&begun, &export_mark::mark(&begun))?;
            }
            Ok(found) => {
                if let Some(why) = gq_files::foreign(&found) {
                    let message = format!("{}: {why}", begun.display());
                    let failure = Failure::new(Exit::Environment, "output.foreign", message);
                    return Err(failure.at(begun.display()).limit("a file that gq began"));
                }
                free(&begun, &begun)?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot(&begun, &error)),
        }
    }
    Ok(())
}

/// Refuses what another process is writing: it holds `lock` meanwhile.
fn free(begun: &Path, lock: &Path) -> Result<(), Failure> {
    if !gq_files::is_held(lock) {
        return Ok(());
    }
    Err(busy(begun))
}

fn busy(begun: &Path) -> Failure {
    let message = format!("{}: another gq is writing this output", begun.display());
    let failure = Failure::new(Exit::Environment, "output.busy", message).at(begun.display());
    failure.limit("one process").actual("two")
}

fn holds_something(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some())
}

/// The folder that a file at `path` is in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether two paths that may not exist yet are one name in one folder.
fn same_place(a: &Path, b: &Path) -> bool {
    let folder = |path: &Path| folder_of(path).canonicalize().ok();
    a.file_name() == b.file_name() && (folder(a) == folder(b))
}

fn refused(path: &Path, code: &'static str, limit: &str, actual: &str) -> Failure {
    let message = format!("{}: is {actual}, {limit} is to be written", path.display());
    Failure::new(Exit::Usage, code, message).at(path.display()).limit(limit).actual(actual)
}

fn cannot(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("{}: cannot be written: {error}", path.display());
    Failure::new(Exit::Environment, "output.io", message).at(path.display())
}
