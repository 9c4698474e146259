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
    /// Bytes of everything else: header, metadata, vectors.
    around: u64,
    /// Weights that have a choice.
    weights: u64,
}

impl Matrices {
    /// Of a plan in which every matrix that has a choice is F16; `fixed` have none.
    pub fn of(plan: &ExportPlan, fixed: &BTreeMap<String, GgmlType>) -> Matrices {
        let mut of: Vec<(String, Vec<NewTensor>)> = Vec::new();
        let (mut taken, mut weights) = (0, 0);
        for tensor in plan.tensors().iter().filter(|tensor| tensor.new.kind == GgmlType::F16) {
            let Some(name) = tensor.source.as_ref().filter(|name| !fixed.contains_key(*name)) else {
                continue;
            };
            taken += stored(&tensor.new, GgmlType::F16).unwrap_or(0);
            weights += tensor.new.shape.iter().map(|&n| n as u64).product::<u64>();
            match of.iter_mut().find(|(known, _)| known == name) {
                Some((_, parts)) => parts.push(tensor.new.clone()),
                None => of.push((name.clone(), vec![tensor.new.clone()])),
            }
        }
        Matrices { of, around: plan.file_bytes().saturating_sub(taken), weights }
    }

    /// Canonical names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.of.iter().map(|(name, _)| name.as_str())
    }

    /// Elements of a matrix.
    pub fn elements(&self, name: &str) -> u64 {
        let parts = self.of.iter().filter(|(known, _)| known == name).flat_map(|(_, parts)| parts);
        parts.map(|part| part.shape.iter().map(|&n| n as u64).product::<u64>()).sum()
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

    /// A matrix with its types, of which `errors` say what they lose.
    pub fn options(&self, name: &str, errors: &[TypeError]) -> TypedUnit<GgmlType> {
        let parts = || self.of.iter().filter(|(known, _)| known == name).flat_map(|(_, parts)| parts);
        let option = |&TypeError { kind, error }: &TypeError| {
            let bytes = parts().map(|part| stored(part, kind)).sum::<Option<u64>>()?;
            Some(TypeOption { kind, bytes, errors: vec![error] })
        };
        let options = errors.iter().filter_map(option).collect();
        TypedUnit { tensors: vec![name.to_owned()], options }
    }
}

/// Bytes of a tensor in a file were it of this type; `None` where blocks do not divide its rows.
fn stored(tensor: &NewTensor, kind: GgmlType) -> Option<u64> {
    let cols = tensor.shape.last().copied().unwrap_or(1);
    let rows: usize = tensor.shape.iter().rev().skip(1).product();
    let bytes = (kind.row_bytes(cols)? as u64).checked_mul(rows as u64)?;
    bytes.checked_next_multiple_of(ALIGNMENT)
}
