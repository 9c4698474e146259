//! Tensors that files have in pieces: one matrix for each expert, in any order and any of the shards, become the one
//! stack that the family declares. Nothing is read and nothing is copied: the stack knows where its rows are.

use crate::assembly::Assembly;
use crate::declared::{Declared, Layout, numbered, of_expert};
use crate::{ModelSpec, Role, SourceTensor, TensorError, TensorPiece};
use gq_tensor::DType;
use std::collections::HashMap;
use std::ops::Range;

/// Puts a stack in the place of its pieces, for every stack of which a piece is there.
///
/// # Errors
/// When a piece is missing, or has another width or type than the first.
pub(crate) fn stack(
    list: &[Declared],
    spec: &ModelSpec,
    tensors: &mut Vec<SourceTensor>,
) -> Result<(), TensorError> {
    for declared in list {
        let Layout::Stacked { hub: matrices, .. } = declared.layout else { continue };
        let places: HashMap<String, usize> =
            tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
        let (mut stacks, mut taken) = (Vec::new(), vec![false; tensors.len()]);
        for layer in 0..spec.layers.len() {
            let Some(shape) = declared.shape_in(spec, Some(layer)) else { continue };
            let experts = 0..shape.first().copied().unwrap_or(0);
            let names = experts.flat_map(|expert| matrices.iter().map(move |name| (expert, *name)));
            let names: Vec<String> =
                names.map(|(expert, name)| of_expert(&numbered(name, Some(layer)), expert)).collect();
            let Some(first) = names.iter().find(|name| places.contains_key(*name)) else { continue };
            let name = declared.name_in(Some(layer));
            if let Some(&whole) = places.get(&name) {
                let of = |place: usize| tensors[place].source_name.clone();
                return Err(TensorError::NameClash { name, first: of(whole), second: of(places[first]) });
            }
            let mut found = Vec::with_capacity(names.len());
            for name in names {
                let Some(&place) = places.get(&name) else { return Err(TensorError::Missing { name }) };
                taken[place] = true;
                found.push(&tensors[place]);
            }
            stacks.push(joined(name, layer, shape, &found)?);
        }
        let mut taken = taken.into_iter();
        tensors.retain(|_| !taken.next().unwrap_or(false));
        tensors.extend(stacks);
    }
    tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
    Ok(())
}

/// The stack of matrices, one above the other.
fn joined(
    name: String,
    layer: usize,
    shape: Vec<usize>,
    found: &[&SourceTensor],
) -> Result<SourceTensor, TensorError> {
    let cols = shape.last().copied().unwrap_or(1);
    let rows = shape.iter().rev().skip(1).product::<usize>() / found.len().max(1);
    let first = found.first().map_or(DType::F32, |piece| piece.dtype);
    for piece in found {
        let expected = vec![rows, cols];
        if piece.shape != expected {
            let (name, actual) = (piece.source_name.clone(), piece.shape.clone());
            return Err(TensorError::WrongShape { name, actual, expected });
        }
        if piece.dtype != first {
            let (name, dtype) = (piece.source_name.clone(), piece.dtype);
            return Err(TensorError::MixedTypes { name, dtype, first });
        }
    }
    let pieces = found.iter().map(|piece| TensorPiece {
        source_name: piece.source_name.clone(),
        file: piece.file,
        offset: piece.offset,
        bytes: piece.bytes,
    });
    let pieces: Vec<TensorPiece> = pieces.collect();
    let begin = pieces.iter().min_by_key(|piece| (piece.file, piece.offset));
    Ok(SourceTensor {
        source_name: name.clone(),
        name,
        dtype: first,
        shape,
        file: begin.map_or(0, |piece| piece.file),
        offset: begin.map_or(0, |piece| piece.offset),
        bytes: pieces.iter().map(|piece| piece.bytes).sum(),
        role: Role::Unused,
        layer: Some(layer),
        scaled: false,
        gguf: None,
        pieces,
        assembly: None,
    })
}

/// Puts a tensor whose matrices are to be transposed, or that is put together from codes and powers of two, in the place
/// of what the files have.
///
/// # Errors
/// When files have both, one of two parts alone, or one of another shape or type.
pub(crate) fn assemble(
    list: &[Declared],
    spec: &ModelSpec,
    tensors: &mut Vec<SourceTensor>,
) -> Result<(), TensorError> {
    for declared in list {
        let Layout::Transposed { alternating, .. } = declared.layout else { continue };
        let mut places: HashMap<String, usize> =
            tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
        let mut taken = Vec::new();
        for layer in 0..spec.layers.len() {
            let Some(shape) = declared.shape_in(spec, Some(layer)) else { continue };
            let name = declared.name_in(Some(layer));
            let parts = ["blocks", "scales"].map(|part| format!("{name}_{part}"));
            let found = [&name, &parts[0], &parts[1]].map(|name| places.remove(name));
            match found {
                [Some(whole), None, None] => {
                    let tensor = &mut tensors[whole];
                    let stored = transposed(declared, &shape).unwrap_or_default();
                    has_shape(tensor, stored)?;
                    tensor.pieces = vec![piece(tensor)];
                    (tensor.shape, tensor.assembly) = (shape, Some(Assembly::Transposed { alternating }));
                }
                [Some(whole), Some(part), _] | [Some(whole), None, Some(part)] => {
                    let of = |place: usize| tensors[place].source_name.clone();
                    return Err(TensorError::NameClash { name, first: of(whole), second: of(part) });
                }
                [None, Some(blocks), Some(scales)] => {
                    let assembly = Assembly::Mxfp4 { alternating };
                    let joined = coded(name, shape, layer, [&tensors[blocks], &tensors[scales]], assembly)?;
                    taken.push(scales);
                    tensors[blocks] = joined;
                }
                [None, Some(_), None] => return Err(TensorError::Missing { name: parts[1].clone() }),
                [None, None, Some(_)] => return Err(TensorError::Missing { name: parts[0].clone() }),
                [None, None, None] => {}
            }
        }
        let mut place = 0..;
        tensors.retain(|_| !place.next().is_some_and(|place| taken.contains(&place)));
    }
    tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
    Ok(())
}

/// The shape on the Hub of a tensor that is transposed there: `[experts, cols, rows]`; a bias has no dimension for its
/// columns of one.
fn transposed(declared: &Declared, shape: &[usize]) -> Option<Vec<usize>> {
    let &[experts, rows, cols] = shape else { return None };
    Some(match declared.role {
        Role::Bias => vec![experts, cols * rows],
        _ => vec![experts, cols, rows],
    })
}

fn piece(tensor: &SourceTensor) -> TensorPiece {
    let SourceTensor { source_name, file, offset, bytes, .. } = tensor.clone();
    TensorPiece { source_name, file, offset, bytes }
}

fn has_shape(tensor: &SourceTensor, expected: Vec<usize>) -> Result<(), TensorError> {
    match tensor.shape == expected {
        true => Ok(()),
        false => {
            let (name, actual) = (tensor.source_name.clone(), tensor.shape.clone());
            Err(TensorError::WrongShape { name, actual, expected })
        }
    }
}

/// Codes of 4-bit floats and their powers of two as one tensor.
fn coded(
    name: String,
    shape: Vec<usize>,
    layer: usize,
    parts: [&SourceTensor; 2],
    assembly: Assembly,
) -> Result<SourceTensor, TensorError> {
    let groups = shape.last().copied().unwrap_or(0) / 32;
    let leading = shape.split_last().map_or(&[][..], |(_, leading)| leading).to_vec();
    let expected = [[&leading[..], &[groups, 16]].concat(), [&leading[..], &[groups]].concat()];
    for (part, expected) in parts.into_iter().zip(expected) {
        has_shape(part, expected)?;
        if part.dtype != DType::U8 {
            return Err(TensorError::NotCodes { name: part.source_name.clone(), dtype: part.dtype });
        }
    }
    let [first, second] = parts.map(piece);
    let begin = [&first, &second].into_iter().map(|piece| (piece.file, piece.offset)).min();
    let (file, offset) = begin.unwrap_or_default();
    Ok(SourceTensor {
        source_name: name.clone(),
        name,
        dtype: DType::BF16, // holds every value: two bits of a number, and exponents down to 2^-128
        shape,
        file,
        offset,
        bytes: first.bytes + second.bytes,
        role: Role::Unused,
        layer: Some(layer),
        scaled: false,
        gguf: None,
        pieces: vec![first, second],
        assembly: Some(assembly),
    })
}

/// A tensor as files on the Hub have it: a canonical one, or some rows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubTensor {
    /// Its name there.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// Which rows of the canonical tensor it has.
    pub rows: Range<usize>,
    /// How the canonical tensor's matrices stand in it, where that is not as they are.
    pub assembly: Option<Assembly>,
}

impl ModelSpec {
    /// How files on the Hub have a canonical tensor of this shape: as it is, or a stack's matrices one by one.
    pub fn on_the_hub(&self, canonical: &str, shape: &[usize]) -> Vec<HubTensor> {
        let declaration = self.declaration(canonical);
        let parts = declaration.map_or(&[][..], |(declared, _)| declared.layout.parts()[0]);
        let (&[experts, rows, cols], Some((_, layer)), false) = (shape, declaration, parts.is_empty()) else {
            let (mut shape, rows, mut assembly) =
                (shape.to_vec(), shape.iter().rev().skip(1).product(), None);
            if let Some((Layout::Transposed { alternating, .. }, stored)) =
                declaration.and_then(|(declared, _)| Some((declared.layout, transposed(declared, &shape)?)))
            {
                (shape, assembly) = (stored, Some(Assembly::Transposed { alternating }));
            }
            return vec![HubTensor { name: canonical.to_owned(), shape, rows: 0..rows, assembly }];
        };
        let rows_per_matrix = rows / parts.len();
        let all = (0..experts).flat_map(|expert| parts.iter().enumerate().map(move |part| (expert, part)));
        let matrix = |(expert, (index, part)): (usize, (usize, &&str))| {
            let first = expert * rows + index * rows_per_matrix;
            let name = of_expert(&numbered(part, layer), expert);
            HubTensor {
                name,
                shape: vec![rows_per_matrix, cols],
                rows: first..first + rows_per_matrix,
                assembly: None,
            }
        };
        all.map(matrix).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Checkpoint, Dim, FileKind, Part, SourceFile, Stamp};
    use std::fs::File;
    use std::path::Path;

    /// As a family would declare it whose files have a gate and an up matrix for each expert.
    const STACK: Declared = Declared::new(
        Part::ExpertGateUp,
        "model.layers.N.experts.gate_up_proj",
        "blk.N.ffn_gate_up_exps.weight",
        Role::ExpertGateUp,
        &[Dim::Experts, Dim::ExpertGateUp, Dim::Hidden],
    )
    .stored(Layout::Stacked {
        hub: &["model.layers.N.experts.E.gate.weight", "model.layers.N.experts.E.up.weight"],
        gguf: &[],
    });

    /// The tiny checkpoint's experts of layer 1, cut into matrices that lie in two files in a bad order.
    fn cut(dir: &Path) -> (Checkpoint, Vec<SourceTensor>, Vec<f32>) {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/tiny/gemma4-moe");
        let whole = Checkpoint::open(tiny).unwrap();
        let stack = whole.tensor("model.layers.1.experts.gate_up_proj").unwrap();
        let mut values = vec![0.0; stack.rows() * stack.cols()];
        whole.read_rows_f32(stack, 0..stack.rows(), &mut values).unwrap();
        let mut bytes = vec![0; stack.bytes as usize];
        whole.read_bytes(stack, 0..stack.bytes, &mut bytes).unwrap();
        let (matrices, mut tensors) = (2 * stack.shape[0], Vec::new());
        let size = bytes.len() / matrices;
        let mut contents = [b"head".to_vec(), b"another head".to_vec()];
        for matrix in (0..matrices).rev() {
            let part = ["gate", "up"][matrix % 2];
            let file = matrix % 3 % 2;
            let name = format!("model.layers.1.experts.{}.{part}.weight", matrix / 2);
            tensors.push(SourceTensor {
                source_name: format!("language_model.{name}"),
                name,
                shape: vec![stack.shape[1] / 2, stack.shape[2]],
                file,
                offset: contents[file].len() as u64,
                bytes: size as u64,
                role: Role::Unused,
                ..stack.clone()
            });
            contents[file].extend_from_slice(&bytes[matrix * size..(matrix + 1) * size]);
        }
        let files = contents.iter().enumerate().map(|(number, contents)| {
            let path = dir.join(format!("{number}.safetensors"));
            std::fs::write(&path, contents).unwrap();
            let (handle, metadata) = (File::open(&path).unwrap(), std::fs::metadata(&path).unwrap());
            let name = format!("{number}.safetensors");
            let (bytes, kind, stamp) = (metadata.len(), FileKind::Weights, Stamp::of(&metadata));
            (SourceFile { name, path, bytes, kind, stamp }, handle)
        });
        let (files, handles) = files.unzip();
        let checkpoint = Checkpoint::bare(dir.to_owned(), files, handles, whole.spec().clone(), Vec::new());
        (checkpoint, tensors, values)
    }

    #[test]
    fn matrices_of_experts_in_several_files_read_as_one_stack() {
        let dir = tempfile::tempdir().unwrap();
        let (checkpoint, mut tensors, expected) = cut(dir.path());
        let mut other = tensors[0].clone();
        other.name = "model.norm.weight".to_owned();
        tensors.push(other);
        stack(&[STACK], checkpoint.spec(), &mut tensors).unwrap();
        assert_eq!(tensors.len(), 2, "the stack, and what is none of it");
        let tensor = tensors.iter().find(|tensor| !tensor.pieces.is_empty()).unwrap();
        assert_eq!(tensor.name, "model.layers.1.experts.gate_up_proj");
        assert!(!tensor.is_plain() && tensor.bytes == 2 * expected.len() as u64);
        let (rows, cols) = (tensor.rows(), tensor.cols());

        let mut values = vec![0.0; expected.len()];
        checkpoint.read_rows_f32(tensor, 0..rows, &mut values).unwrap();
        assert_eq!(values, expected);

        // Rows that begin in one matrix and end in the next one but one.
        let rows_per_matrix = tensor.shape[1] / 2;
        let some = rows_per_matrix - 3..2 * rows_per_matrix + 5;
        let weights = checkpoint.map().unwrap();
        let mut values = vec![0.0; some.len() * cols];
        checkpoint.decode_mapped_rows_f32(&weights, tensor, some.clone(), &mut values).unwrap();
        assert_eq!(values, expected[some.start * cols..some.end * cols]);

        let mut bytes = vec![0; 2 * 2 * cols + 2];
        let start = (2 * cols * (rows_per_matrix - 1)) as u64;
        checkpoint.read_bytes(tensor, start..start + bytes.len() as u64, &mut bytes).unwrap();
        let mut values = vec![0.0; 2 * cols + 1];
        gq_tensor::decode_f32(tensor.dtype, &bytes, &mut values);
        assert_eq!(values, expected[(rows_per_matrix - 1) * cols..][..2 * cols + 1]);
    }

    #[test]
    fn a_stack_with_a_wrong_piece_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (checkpoint, tensors, _) = cut(dir.path());
        let stacked = |change: &dyn Fn(&mut Vec<SourceTensor>)| {
            let mut tensors = tensors.clone();
            change(&mut tensors);
            stack(&[STACK], checkpoint.spec(), &mut tensors).map(|()| tensors.len())
        };
        assert_eq!(stacked(&|_| {}).unwrap(), 1);
        assert_eq!(stacked(&|tensors| tensors.clear()).unwrap(), 0);
        let missing = stacked(&|tensors| drop(tensors.remove(1))).unwrap_err();
        assert!(
            matches!(missing, TensorError::Missing { name } if name == "model.layers.1.experts.7.gate.weight")
        );
        let wide = stacked(&|tensors| tensors[2].shape[1] += 1).unwrap_err();
        assert!(matches!(wide, TensorError::WrongShape { name, .. } if name.starts_with("language_model.")));
        let short = stacked(&|tensors| tensors[2].shape[0] -= 1).unwrap_err();
        assert!(matches!(short, TensorError::WrongShape { .. }));
        let mixed = stacked(&|tensors| tensors[2].dtype = DType::F16).unwrap_err();
        assert!(matches!(mixed, TensorError::MixedTypes { .. }));
    }
}
