//! Stacks of experts' matrices that a GGUF has in several tensors: all gates in one, all up projections in another. Both
//! ways without a copy: the stack knows where its rows are, and a tensor of the file which rows it takes.

use crate::declared::{Declared, matched, numbered};
use crate::gguf::{GgmlType, Gguf, GgufError, GgufTensor, Storage, Transform, is_decodable, plain};
use crate::{Family, ModelSpec, SourceTensor, TensorError, TensorPiece};
use gq_tensor::DType;
use std::ops::Range;

/// Whether a tensor of a GGUF is a part of a stack of this model.
pub(super) fn is_part(spec: &ModelSpec, name: &str) -> bool {
    let mut parts = spec.family.file().tensors.iter().flat_map(|declared| {
        let [_, parts] = declared.layout.parts();
        parts.iter().map(move |part| (declared, *part))
    });
    parts.any(|(declared, part)| {
        matched(part, name).is_some_and(|layer| declared.shape_in(spec, layer).is_some())
    })
}

/// The stacks that a file has in parts.
///
/// # Errors
/// When a part is missing, or has another shape or type than the first.
pub(super) fn stacks(gguf: &Gguf, spec: &ModelSpec) -> Result<Vec<SourceTensor>, GgufError> {
    let mut stacks = Vec::new();
    for declared in spec.family.file().tensors {
        let [_, names] = declared.layout.parts();
        for layer in (0..spec.layers.len()).filter(|_| !names.is_empty()) {
            let Some(shape) = declared.shape_in(spec, Some(layer)) else { continue };
            let names: Vec<String> = names.iter().map(|name| numbered(name, Some(layer))).collect();
            let Some(first) = names.iter().find(|name| gguf.tensor(name).is_some()) else { continue };
            let whole = declared.gguf.map(|name| numbered(name, Some(layer)));
            if let Some(whole) = whole.filter(|name| gguf.tensor(name).is_some()) {
                let name = declared.name_in(Some(layer));
                let source = TensorError::NameClash { name, first: whole, second: first.clone() };
                return Err(GgufError::Tensors { source });
            }
            let missing = |name: &String| {
                let source = TensorError::Missing { name: name.clone() };
                GgufError::Tensors { source }
            };
            let parts = names.iter().map(|name| gguf.tensor(name).ok_or_else(|| missing(name)));
            stacks.push(stack(declared, layer, shape, &parts.collect::<Result<Vec<_>, _>>()?)?);
        }
    }
    Ok(stacks)
}

/// One stack of its parts: each expert's matrix of the first, of the second, and so on.
fn stack(
    declared: &Declared,
    layer: usize,
    shape: Vec<usize>,
    parts: &[&GgufTensor],
) -> Result<SourceTensor, GgufError> {
    let &[experts, rows, cols] = shape.as_slice() else {
        let source = TensorError::WrongShape {
            name: declared.name_in(Some(layer)),
            actual: shape,
            expected: vec![0, 0, 0],
        };
        return Err(GgufError::Tensors { source });
    };
    let kind = parts.first().map_or(GgmlType::F32, |part| part.info.kind);
    let expected = without_one([experts, rows / parts.len().max(1), cols]);
    for part in parts {
        let (name, actual) = (part.info.name.clone(), part.info.shape.clone());
        if !is_decodable(part.info.kind) {
            return Err(GgufError::UndecodableType { name, kind: part.info.kind.name() });
        }
        if actual != expected {
            let source = TensorError::WrongShape { name, actual, expected };
            return Err(GgufError::Tensors { source });
        }
        if part.info.kind != kind {
            let (first, supported) = (parts[0].info.name.clone(), kind.name().to_owned());
            let actual = part.info.kind.name().to_owned();
            return Err(GgufError::Unsupported {
                key: format!("of the type of {name}"),
                actual,
                supported: format!("{supported}, the type of {first}: both are parts of one matrix"),
            });
        }
    }
    let piece = |expert: usize, part: &&GgufTensor| {
        let bytes = part.info.bytes / experts.max(1) as u64;
        TensorPiece {
            source_name: part.info.name.clone(),
            file: part.part,
            offset: part.info.offset + expert as u64 * bytes,
            bytes,
        }
    };
    let pieces = (0..experts).flat_map(|expert| parts.iter().map(move |part| piece(expert, part)));
    let pieces: Vec<TensorPiece> = pieces.collect();
    let begin = pieces.iter().min_by_key(|piece| (piece.file, piece.offset));
    let name = declared.name_in(Some(layer));
    Ok(SourceTensor {
        source_name: name.clone(),
        name,
        dtype: plain(kind).unwrap_or(DType::F32),
        shape,
        file: begin.map_or(0, |piece| piece.file),
        offset: begin.map_or(0, |piece| piece.offset),
        bytes: pieces.iter().map(|piece| piece.bytes).sum(),
        role: declared.role,
        layer: Some(layer),
        scaled: false,
        gguf: Some(Storage { kind, transform: Transform::None }),
        pieces,
        assembly: None,
    })
}

/// The shape of a part: an expert's bias is a row.
fn without_one([experts, rows_per_matrix, cols]: [usize; 3]) -> Vec<usize> {
    if rows_per_matrix == 1 { vec![experts, cols] } else { vec![experts, rows_per_matrix, cols] }
}

/// The rows of a stack that one tensor of a file has: a matrix of every expert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Which of an expert's matrices.
    index: usize,
    /// Matrices of an expert.
    of: usize,
    /// Rows of one.
    rows_per_matrix: usize,
}

impl Part {
    /// Runs of the stack's rows that are these rows of the tensor, in order.
    pub(super) fn runs(self, rows: Range<usize>) -> Vec<Range<usize>> {
        let rows_per_matrix = self.rows_per_matrix.max(1);
        let mut runs = Vec::new();
        let mut row = rows.start;
        while row < rows.end {
            let (expert, place) = (row / rows_per_matrix, row % rows_per_matrix);
            let now = (rows_per_matrix - place).min(rows.end - row);
            let first = (expert * self.of + self.index) * rows_per_matrix + place;
            runs.push(first..first + now);
            row += now;
        }
        runs
    }
}

/// Names of the tensors that a GGUF has for a canonical one of `shape`: one, which may have rows of others too, or the parts
/// of a stack. None where the format has no place for it.
pub fn gguf_names(spec: &ModelSpec, canonical: &str, shape: &[usize]) -> Vec<String> {
    if let Some(fused) = spec.fused(canonical) {
        return vec![fused.gguf];
    }
    stored_as(spec.family, canonical, shape).into_iter().map(|(name, ..)| name).collect()
}

/// Names, shapes and rows of the tensors that a file has for a canonical one of `shape`: one, or the parts of a stack.
/// Nothing where the format has no place for it.
pub(super) fn stored_as(
    family: Family,
    canonical: &str,
    shape: &[usize],
) -> Vec<(String, Vec<usize>, Option<Part>)> {
    let of = |declared: &'static Declared| Some((declared, matched(declared.name, canonical)?));
    let found = family.file().tensors.iter().find_map(of);
    let Some((declared, layer)) = found else { return Vec::new() };
    let [_, parts] = declared.layout.parts();
    match (parts, shape) {
        ([_, ..], &[experts, rows, cols]) => {
            let part = |(index, name): (usize, &&'static str)| {
                let (of, rows_per_matrix) = (parts.len(), rows / parts.len());
                let shape = without_one([experts, rows_per_matrix, cols]);
                (numbered(name, layer), shape, Some(Part { index, of, rows_per_matrix }))
            };
            parts.iter().enumerate().map(part).collect()
        }
        _ => declared.gguf.map(|name| (numbered(name, layer), shape.to_vec(), None)).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_part_lie_between_those_of_the_others() {
        let part = Part { index: 1, of: 2, rows_per_matrix: 4 };
        assert!(part.runs(0..4).into_iter().flatten().eq(4..8));
        assert_eq!(part.runs(2..9), [6..8, 12..16, 20..21]);
        assert!(part.runs(3..3).is_empty());
        let names = |family, name, shape: &[usize]| -> Vec<String> {
            stored_as(family, name, shape).into_iter().map(|(name, ..)| name).collect()
        };
        let gates = "model.layers.3.mlp.experts.gate_up_proj";
        assert_eq!(
            names(Family::Qwen3Moe, gates, &[2, 8, 4]),
            ["blk.3.ffn_gate_exps.weight", "blk.3.ffn_up_exps.weight"]
        );
        let down = "model.layers.3.mlp.experts.down_proj";
        assert_eq!(names(Family::Qwen3Moe, down, &[2, 4, 4]), ["blk.3.ffn_down_exps.weight"]);
        let whole = "model.layers.3.experts.gate_up_proj";
        assert_eq!(names(Family::Gemma4, whole, &[2, 8, 4]), ["blk.3.ffn_gate_up_exps.weight"]);
        assert!(names(Family::Llama, gates, &[2, 8, 4]).is_empty());
    }
}
