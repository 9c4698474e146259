//! What lies in a checkpoint's directory.

use crate::named_templates::FOLDER;
use crate::stamp::Stamp;
use crate::{CheckpointError, FileKind, SourceFile};
use std::path::{Path, PathBuf};

/// Names of the files in a directory, sorted; names that are not UTF-8 are of no interest.
pub(crate) fn list_dir(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let failed = |source| CheckpointError::Io { path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if let (Ok(name), true) = (entry.file_name().into_string(), entry.path().is_file()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Chat templates with names, by their paths within the directory.
pub(crate) fn list_templates(dir: &Path) -> Result<Vec<String>, CheckpointError> {
    let folder = dir.join(FOLDER);
    match folder.is_dir() {
        true => Ok(list_dir(&folder)?.iter().map(|name| format!("{FOLDER}/{name}")).collect()),
        false => Ok(Vec::new()),
    }
}

/// The GGUF of a directory that holds one; of a split its first file. Projectors of images and sound (`mmproj`) are none.
pub(crate) fn only_gguf(dir: &Path, names: &[String]) -> Result<Option<PathBuf>, CheckpointError> {
    let models = names.iter().filter(|name| name.ends_with(".gguf") && !name.starts_with("mmproj"));
    let models: Vec<&String> = models.collect();
    let first = models.first().map(|name| dir.join(name));
    match models.iter().find(|name| model_name(name) != model_name(models[0])) {
        None => Ok(first),
        Some(_) => Err(CheckpointError::ManyGguf {
            dir: dir.to_owned(),
            files: models.into_iter().cloned().collect(),
        }),
    }
}

/// A GGUF's name without the number of its part, `-00001-of-00003`.
pub(crate) fn model_name(file: &str) -> &str {
    let stem = file.trim_end_matches(".gguf");
    let number = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = stem.rsplit_once("-of-").and_then(|(front, count)| Some((front.rsplit_once('-')?, count)));
    match parts {
        Some(((name, part), count)) if number(part) && number(count) => name,
        _ => stem,
    }
}

pub(crate) fn source_file(dir: &Path, name: &str, kind: FileKind) -> Result<SourceFile, CheckpointError> {
    let path = dir.join(name);
    match std::fs::metadata(&path) {
        Ok(metadata) => {
            let stamp = Stamp::of(&metadata);
            Ok(SourceFile { name: name.to_owned(), path, bytes: metadata.len(), kind, stamp })
        }
        Err(source) => Err(CheckpointError::Io { path, source }),
    }
}
