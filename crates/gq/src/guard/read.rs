//! Everything that a command reads, by identity.

use gq_files::Identity;
use gq_hub::Located;
use std::collections::HashMap;
use std::path::Path;

/// Folders below a folder that is read: a checkpoint has its templates in one.
const DEPTH: usize = 3;

/// Files and folders that a command reads.
#[derive(Default)]
pub struct Read {
    /// What each is, for people.
    names: HashMap<Identity, String>,
}

impl Read {
    /// What these paths lead to; what leads nowhere is for the command to say.
    pub fn new(given: &[&Path]) -> Read {
        let mut read = Read::default();
        for path in given {
            match path.exists() {
                true => read.add(path, DEPTH),
                false => read.cached(path),
            }
        }
        read
    }

    /// What a path leads to, if that is read.
    pub fn what(&self, path: &Path) -> Option<&str> {
        let identity = Identity::of(path).ok()?;
        self.names.get(&identity).map(String::as_str)
    }

    fn add(&mut self, path: &Path, depth: usize) {
        let Ok(identity) = Identity::of(path) else { return };
        let known = self.names.insert(identity, path.display().to_string()).is_some();
        if path.is_dir() && depth > 0 && !known {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.for_each(|entry| self.add(&entry.path(), depth - 1));
        } else if let Some((stem, _)) = part_of_split(path) {
            let folder = super::folder_of(path);
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            for other in entries.map(|entry| entry.path()) {
                if part_of_split(&other).is_some_and(|(other, _)| other == stem)
                    && let Ok(identity) = Identity::of(&other)
                {
                    self.names.insert(identity, other.display().to_string());
                }
            }
        }
    }

    /// Files of a repository that are in the Hub's cache.
    fn cached(&mut self, given: &Path) {
        let found = given.to_str().zip(crate::hub::connect().ok());
        let found = found.and_then(|(text, hub)| hub.locate(text).ok());
        match found {
            Some(Located::Here(source)) => self.add(&source.path, DEPTH),
            Some(Located::Partly { snapshot, .. }) => self.add(&snapshot.dir, DEPTH),
            Some(Located::Remote(_)) | None => {}
        }
    }
}

/// Stem and number of a part of a split GGUF, `STEM-00001-of-00003.gguf`.
fn part_of_split(path: &Path) -> Option<(&str, &str)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(count) && number(part)).then_some((stem, part))
}
