//! Which tensors of a GGUF have types to choose, what each type takes there, and what a budget leaves for them.

use crate::failure::Failure;
use crate::options::recipe::MixBudget;
use gq_checkpoint::gguf::{GgmlType, NewTensor};
use gq_checkpoint::gguf_model::ExportPlan;
use gq_codec::BlockCode;
use gq_convert::{TypeError, TypeOption, TypedUnit};
use std::collections::BTreeMap;

/// Tensors of a file start at multiples of it.
const ALIGNMENT: u64 = 32;

/// What is written without a choice, and what has one.
pub struct Matrices {
    /// Matrices of each canonical name, in the order of the file.
    of: Vec<(String, Vec<NewTensor>)>,
    /// Names of all that stand in one tensor of the file, by the first.
    together: BTreeMap<String, Vec<String>>,
    /// Bytes of everything else: header, metadata, vectors.
    around: u64,
    /// Weights that have a choice.
    weights: u64,
}

impl Matrices {
    /// Of a plan in which every matrix that has a choice is F16; `fixed` have none.
    pub fn of(plan: &ExportPlan, fixed: &BTreeMap<String, GgmlType>) -> Matrices {
        let mut of: Vec<(String, Vec<NewTensor>)> = Vec::new();
        let (mut taken, mut weights, mut together) = (0, 0, BTreeMap::new());
        for tensor in plan.tensors().iter().filter(|tensor| tensor.new.kind == GgmlType::F16) {
            let Some(name) = tensor.source.as_ref().filter(|name| !fixed.contains_key(*name)) else {
                continue;
            };
            taken += stored(&tensor.new, GgmlType::F16).unwrap_or(0);
            weights += tensor.new.shape.iter().map(|&n| n as u64).product::<u64>();
            let all: Vec<String> = tensor.sources().into_iter().map(str::to_owned).collect();
            if all.len() > 1 {
                together.insert(name.clone(), all);
            }
            match of.iter_mut().find(|(known, _)| known == name) {
                Some((_, parts)) => parts.push(tensor.new.clone()),
                None => of.push((name.clone(), vec![tensor.new.clone()])),
            }
        }
        Matrices { of, together, around: plan.file_bytes().saturating_sub(taken), weights }
    }

    /// Names of what stands in a matrix of the file: its own, unless it has the rows of several.
    pub fn parts<'a>(&'a self, name: &'a str) -> Vec<&'a str> {
        self.together.get(name).map_or(vec![name], |all| all.iter().map(String::as_str).collect())
    }

    /// Canonical names, in the order of the file; of what stands in one tensor, the first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.of.iter().map(|(name, _)| name.as_str())
    }

    /// Elements of a matrix.
    pub fn elements(&self, name: &str) -> u64 {
        let parts = self.of.iter().filter(|(known, _)| known == name).flat_map(|(_, parts)| parts);
        parts.map(|part| part.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
    }

    /// Bytes of everything else in the file.
    pub fn around(&self) -> u64 {
        self.around
    }

    /// Bytes that a budget leaves for matrices.
    ///
    /// # Errors
    /// When the smallest types of all take more, with the least budget that they fit in.
    pub fn limit(&self, budget: MixBudget) -> Result<u64, Failure> {
        let limit = budget.for_matrices(self.weights, self.around);
        let smallest = |(_, parts): &(String, Vec<NewTensor>)| {
            let kinds = BlockCode::all().map(BlockCode::kind).chain([GgmlType::F16]);
            kinds.filter_map(|kind| parts.iter().map(|part| stored(part, kind)).sum::<Option<u64>>()).min()
        };
        let least: u64 = self.of.iter().filter_map(smallest).sum();
        match least <= limit {
            true => Ok(limit),
            false => Err(budget.too_small(limit, least, self.weights, self.around)),
        }
    }

    /// A matrix with its types, of which `errors` say what they lose, by canonical name: of all that stand in it.
    pub fn options(&self, name: &str, errors: &BTreeMap<String, Vec<TypeError>>) -> TypedUnit<GgmlType> {
        let parts = || self.of.iter().filter(|(known, _)| known == name).flat_map(|(_, parts)| parts);
        let tensors: Vec<String> = self.parts(name).into_iter().map(str::to_owned).collect();
        let lost = |tensor: &String, kind: GgmlType| {
            Some(errors.get(tensor)?.iter().find(|error| error.kind == kind)?.error)
        };
        let option = |&TypeError { kind, .. }: &TypeError| {
            let bytes = parts().map(|part| stored(part, kind)).sum::<Option<u64>>()?;
            let errors = tensors.iter().map(|tensor| lost(tensor, kind)).collect::<Option<_>>()?;
            Some(TypeOption { kind, bytes, errors })
        };
        let options = errors.get(name).into_iter().flatten().filter_map(option).collect();
        TypedUnit { tensors, options }
    }
}

/// Bytes of a tensor in a file were it of this type; `None` where blocks do not divide its rows.
fn stored(tensor: &NewTensor, kind: GgmlType) -> Option<u64> {
    let cols = tensor.shape.last().copied().unwrap_or(1);
    let rows: usize = tensor.shape.iter().rev().skip(1).product();
    let bytes = (kind.row_bytes(cols)? as u64).checked_mul(rows as u64)?;
    bytes.checked_next_multiple_of(ALIGNMENT)
}
