//! Everything that a command reads, by identity, and names that it would read if they were there.

use gq_files::Identity;
use gq_hub::Located;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Folders of a checkpoint that are read as well: chat templates with names.
const FOLDERS: [&str; 1] = ["additional_chat_templates"];

/// Ends of names that are read in a folder: weights and their index, settings, tokenizers, templates, and the texts of a
/// folder of those. Files that gq makes there (`.gq`, what is begun of it, measurements) are not read.
const ENDS: [&str; 10] =
    [".safetensors", ".json", ".jinja", ".model", ".txt", ".md", ".bin", ".pt", ".pth", ".ckpt"];

/// Beginnings of names of licences, which are carried.
const LICENCES: [&str; 5] = ["license", "licence", "notice", "use_policy", "copying"];

/// Files and folders that a command reads.
#[derive(Default)]
pub struct Read {
    /// What each is, for people.
    names: HashMap<Identity, String>,
    /// Folders of which files are read by their names.
    folders: HashMap<Identity, PathBuf>,
}

impl Read {
    /// What these paths lead to; what leads nowhere is for the command to say.
    pub fn new(given: &[&Path]) -> Read {
        let mut read = Read::default();
        for path in given {
            match path.exists() {
                true => read.add(path),
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

    /// The folder that would be read with a file at `path`, whether there is one or not.
    pub fn with(&self, path: &Path) -> Option<&Path> {
        let folder = self.folders.get(&Identity::of(super::folder_of(path)).ok()?)?;
        let name = path.file_name()?.to_str()?;
        is_read(name, is_checkpoint(folder)).then_some(folder)
    }

    fn add(&mut self, path: &Path) {
        let Ok(identity) = Identity::of(path) else { return };
        if path.is_dir() {
            self.add_folder(path, identity);
        } else if let Some((stem, _)) = part_of_split(path) {
            for other in files(super::folder_of(path)) {
                if part_of_split(&other).is_some_and(|(other, _)| other == stem) {
                    self.add_file(&other);
                }
            }
        }
        self.add_file(path);
    }

    fn add_folder(&mut self, path: &Path, identity: Identity) {
        let checkpoint = is_checkpoint(path);
        if self.folders.insert(identity, path.to_owned()).is_some() {
            return;
        }
        for file in files(path) {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if file.is_dir() && FOLDERS.contains(&name.as_str()) {
                self.add(&file);
            } else if !file.is_dir() && is_read(&name, checkpoint) {
                self.add_file(&file);
            }
        }
    }

    fn add_file(&mut self, path: &Path) {
        if let Ok(identity) = Identity::of(path) {
            self.names.insert(identity, path.display().to_string());
        }
    }

    /// Files of a repository that are in the Hub's cache.
    fn cached(&mut self, given: &Path) {
        let found = given.to_str().zip(crate::hub::connect().ok());
        let found = found.and_then(|(text, hub)| hub.locate(text).ok());
        match found {
            Some(Located::Here(source)) => self.add(&source.path),
            Some(Located::Partly { snapshot, .. }) => self.add(&snapshot.dir),
            Some(Located::Remote(_)) | None => {}
        }
    }
}

/// Whether a file of this name is read in a folder; in a checkpoint's, a GGUF is not.
fn is_read(name: &str, checkpoint: bool) -> bool {
    // Where names differ by more than case, they are other names; elsewhere they are not.
    let name = name.to_lowercase();
    ENDS.iter().any(|end| name.ends_with(end))
        || LICENCES.iter().any(|begin| name.starts_with(begin))
        || (!checkpoint && name.ends_with(".gguf"))
}

/// Whether a folder holds safetensors and their configuration.
fn is_checkpoint(folder: &Path) -> bool {
    folder.join("config.json").exists()
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

/// Stem and number of a part of a split GGUF, `STEM-00001-of-00003.gguf`.
fn part_of_split(path: &Path) -> Option<(&str, &str)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = name.rsplit_once("-of-")?;
    let (stem, part) = rest.rsplit_once('-')?;
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(count) && number(part)).then_some((stem, part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_checkpoint::Checkpoint;

    #[test]
    fn what_a_checkpoint_is_read_from_is_read_and_what_gq_makes_is_not() {
        let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
        for folder in ["demo", "tiny/llama", "tiny/gemma3"] {
            let folder = testdata.join(folder);
            let checkpoint = Checkpoint::open(&folder).unwrap();
            assert!(checkpoint.files().len() > 2);
            let read = Read::new(&[&folder]);
            for file in checkpoint.files() {
                assert!(read.what(&file.path).is_some(), "{}", file.path.display());
                assert!(read.with(&file.path).is_some(), "{}", file.path.display());
            }
        }
        for (name, read) in [
            ("model-00002-of-00003.safetensors", true),
            ("model.safetensors.index.json", true),
            ("adapter_config.json", true),
            ("LICENSE", true),
            ("m.gguf", false),
            ("m.gq", false),
            ("m.gq.partial", false),
            ("m.gq.journal", false),
            ("report.html", false),
        ] {
            assert_eq!(is_read(name, true), read, "{name}");
        }
        assert!(is_read("m.gguf", false));
    }
}
