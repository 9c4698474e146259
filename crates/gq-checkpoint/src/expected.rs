//! Which tensors a model has: names, shapes and roles that follow from its specification and its family's declaration.

use crate::declared::{Declared, Part, find};
use crate::{ModelSpec, Role};

/// A tensor that the graph computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedTensor {
    /// Canonical name.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Part in the graph.
    pub role: Role,
    /// Layer it belongs to.
    pub layer: Option<usize>,
}

impl ModelSpec {
    /// What the family declares, in the order of the graph.
    pub fn declared(&self) -> &'static [Declared] {
        self.family.file().tensors
    }

    /// The declaration of a canonical name, and its layer; whether or not this model has it.
    pub fn declaration(&self, canonical: &str) -> Option<(&'static Declared, Option<usize>)> {
        find(self.declared(), canonical)
    }

    /// The tensor that is this part of a layer, or of the model; `None` where the model has none.
    pub fn tensor(&self, part: Part, layer: Option<usize>) -> Option<ExpectedTensor> {
        let declared = self.declared().iter().find(|declared| declared.part == part)?;
        let shape = declared.shape_in(self, layer)?;
        Some(ExpectedTensor { name: declared.name_in(layer), shape, role: declared.role, layer })
    }

    /// Every tensor that the graph computes with, in the order of the graph.
    pub fn expected_tensors(&self) -> Vec<ExpectedTensor> {
        let declared = self.declared();
        let of_layers = |declared: &Declared| declared.is_of_layers();
        let first = declared.iter().position(of_layers).unwrap_or(declared.len());
        let last = declared.iter().rposition(of_layers).map_or(first, |last| last + 1);
        let (before, rest) = declared.split_at(first);
        let (layered, after) = rest.split_at(last - first);
        let mut list = Vec::new();
        let mut add = |declared: &[Declared], layer: Option<usize>| {
            for declared in declared {
                let Some(shape) = declared.shape_in(self, layer) else { continue };
                let (name, role) = (declared.name_in(layer), declared.role);
                list.push(ExpectedTensor { name, shape, role, layer });
            }
        };
        add(before, None);
        (0..self.layers.len()).for_each(|layer| add(layered, Some(layer)));
        add(after, None);
        list
    }

    /// Whether a canonical name that is not expected is known and without use:
    /// key and value weights of a layer that reads another's cache, a head that repeats the embedding,
    /// buffers of rotary embeddings.
    pub(crate) fn is_unused(&self, canonical: &str) -> bool {
        self.declaration(canonical).is_some_and(|(declared, layer)| declared.may_be_left(self, layer))
    }
}
