//! What is exported to a GGUF, how, and the tensors that it becomes.

use super::stacks::Part as PartOfStack;
use crate::fused::FusedTensor;
use crate::gguf::{GgmlType, NewTensor, Transform};
use crate::{ModelSpec, Role, Texts};
use std::collections::BTreeMap;

/// What is exported: a checkpoint's or a container's model.
#[derive(Clone, Copy, Debug)]
pub struct ExportSource<'a> {
    /// The model.
    pub spec: &'a ModelSpec,
    /// Tokenizer, chat template, generation settings, licence name.
    pub texts: &'a Texts,
    /// Canonical names and shapes, in the order they are to be written. Towers are left out by the caller.
    pub tensors: &'a [(String, Vec<usize>)],
}

/// How.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Type of matrices.
    pub kind: GgmlType,
    /// Types of single tensors, by canonical name.
    pub overrides: BTreeMap<String, GgmlType>,
    /// `general.name`; without one it is found as the other names are.
    pub name: Option<String>,
    /// Name of the source's folder or file, without ending: names that neither card nor configuration give come from it.
    pub folder: String,
    /// Rows encoded at a time by as many threads.
    pub threads: usize,
    /// Whether parts of the tokenizer that the format has no place for are left out, instead of refused.
    pub allow_other_tokens: bool,
    /// Whether whoever writes the file rounds weights, to types that they are not rounded to here as well.
    pub coded: bool,
}

impl ExportOptions {
    /// All matrices of one type.
    pub fn new(kind: GgmlType, folder: &str) -> ExportOptions {
        let folder = folder.to_owned();
        ExportOptions {
            kind,
            overrides: BTreeMap::new(),
            name: None,
            folder,
            threads: 1,
            allow_other_tokens: false,
            coded: false,
        }
    }
}

/// One tensor of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct ExportTensor {
    /// As it will be in the file.
    pub new: NewTensor,
    /// Canonical name of what it is made from, or of the first of several; `None` for factors that the configuration gives.
    pub source: Option<String>,
    /// What it is to the graph.
    pub role: Role,
    pub(super) transform: Transform,
    /// Which rows of a stack it has.
    pub(super) part: Option<PartOfStack>,
    /// What stands in it, where it has the rows of several; `source` is the first of them.
    pub(super) fused: Option<FusedTensor>,
    pub(super) values: Vec<f32>,
}
