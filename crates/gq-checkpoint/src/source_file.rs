//! A file that a checkpoint is made of.

use crate::Stamp;
use std::path::PathBuf;

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// File name, without directory.
    pub name: String,
    /// Path.
    pub path: PathBuf,
    /// Length in bytes.
    pub bytes: u64,
    /// What it holds.
    pub kind: FileKind,
    /// Its state when it was opened.
    pub stamp: Stamp,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Tensors.
    Weights,
    /// An adapter's tensors, of which some are taken for the checkpoint's.
    Adapter,
    /// The index of shards.
    Index,
    /// Configuration, tokenizer, chat template, licence.
    Text,
}
