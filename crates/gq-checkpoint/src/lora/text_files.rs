//! Which files of an adapter's folder are texts.

use crate::named_templates::{FOLDER, template_name};
use crate::texts::path_within;
use std::path::{Path, PathBuf};

/// Files that say how a model is spoken to, next to the templates with names.
const NAMES: [&str; 7] = [
    "tokenizer.json",
    SETTINGS,
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "special_tokens_map.json",
    ADDED,
];
pub(super) const SETTINGS: &str = "tokenizer_config.json";
pub(super) const ADDED: &str = "added_tokens.json";

/// Paths of the texts in a folder.
pub(super) fn texts_of(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = NAMES.iter().map(|name| dir.join(name)).collect();
    let templates = std::fs::read_dir(dir.join(FOLDER)).into_iter().flatten().flatten();
    let mut templates: Vec<PathBuf> = templates.map(|entry| entry.path()).collect();
    templates.retain(|path| template_name(&path_within(path)).is_some());
    templates.sort();
    paths.append(&mut templates);
    paths.retain(|path| path.is_file());
    paths
}
