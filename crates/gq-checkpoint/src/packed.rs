//! Matrices of integer codes (`pack-quantized` of compressed-tensors): codes in words of 32 bits, scales of groups of columns
//! and, where codes are not symmetric, zero points become the one matrix that the family declares. Nothing is read here.

use crate::assembly::Assembly;
use crate::family::{PACKED, PACKED_ASYMMETRIC, PACKED_SYMMETRIC};
use crate::{ModelSpec, Role, SourceTensor, TensorError, TensorPiece};
use gq_tensor::DType;
use std::collections::HashMap;

/// Puts a matrix in the place of its codes, scales, zero points and shape, where the configuration says that there are
/// such.
///
/// # Errors
/// When a part is missing, there is a whole matrix as well, or a part has another shape or type.
pub(crate) fn join(spec: &ModelSpec, tensors: &mut Vec<SourceTensor>) -> Result<(), TensorError> {
    let Some(asymmetric) = packing(spec) else { return Ok(()) };
    let places: HashMap<String, usize> =
        tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
    let mut taken = Vec::new();
    for wanted in spec.expected_tensors() {
        let name = wanted.name;
        let place = |end: &str| places.get(&format!("{name}_{end}")).copied();
        let (Some(codes), &[rows, cols]) = (place("packed"), wanted.shape.as_slice()) else { continue };
        if let Some(&whole) = places.get(&name) {
            let of = |place: usize| tensors[place].source_name.clone();
            return Err(TensorError::NameClash { name, first: of(whole), second: of(codes) });
        }
        let missing = |end: &str| TensorError::Missing { name: format!("{name}_{end}") };
        let scale = place("scale").ok_or_else(|| missing("scale"))?;
        let zero = place("zero_point");
        match (asymmetric, zero) {
            (Some(true), None) => return Err(missing("zero_point")),
            (Some(false), Some(zero)) => {
                let (name, family) = (tensors[zero].source_name.clone(), spec.family.name());
                return Err(TensorError::Unexpected { name, family });
            }
            _ => {}
        }
        taken.extend([Some(scale), zero, place("shape")].into_iter().flatten());
        let parts =
            Parts { codes: &tensors[codes], scale: &tensors[scale], zero: zero.map(|at| &tensors[at]) };
        tensors[codes] = parts.joined(name, [rows, cols])?;
    }
    let mut place = 0..;
    tensors.retain(|_| !place.next().is_some_and(|place| taken.contains(&place)));
    tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
    Ok(())
}

/// Whether matrices of codes all have zero points, or none has; `None` inside where some have. `None`: there are none.
fn packing(spec: &ModelSpec) -> Option<Option<bool>> {
    match spec.quantization.as_deref()? {
        PACKED => Some(None),
        PACKED_SYMMETRIC => Some(Some(false)),
        PACKED_ASYMMETRIC => Some(Some(true)),
        _ => None,
    }
}

/// What files have of one matrix.
struct Parts<'a> {
    codes: &'a SourceTensor,
    scale: &'a SourceTensor,
    zero: Option<&'a SourceTensor>,
}

impl Parts<'_> {
    fn joined(&self, name: String, [rows, cols]: [usize; 2]) -> Result<SourceTensor, TensorError> {
        let words = |bits: usize, codes: usize| (codes * bits).div_ceil(32);
        let bits = [4, 8].into_iter().find(|&bits| self.codes.shape == [rows, words(bits, cols)]);
        let bits = bits.ok_or_else(|| wrong(self.codes, vec![rows, words(4, cols)]))?;
        let groups = match self.scale.shape[..] {
            [height, groups] if height == rows && groups > 0 && cols.is_multiple_of(groups) => groups,
            _ => return Err(wrong(self.scale, vec![rows, 1])),
        };
        // Rows of whole words, so that each is bytes of its own.
        if !(cols * bits).is_multiple_of(32) {
            return Err(wrong(self.codes, vec![rows, words(bits, cols)]));
        }
        if let Some(zero) = self.zero.filter(|zero| zero.shape != [words(bits, rows), groups]) {
            return Err(wrong(zero, vec![words(bits, rows), groups]));
        }
        if let Some(other) =
            [Some(self.codes), self.zero].into_iter().flatten().find(|t| t.dtype != DType::I32)
        {
            return Err(TensorError::NotWords { name: other.source_name.clone(), dtype: other.dtype });
        }
        if !matches!(self.scale.dtype, DType::BF16 | DType::F16 | DType::F32) {
            return Err(TensorError::NotFloat {
                name: self.scale.source_name.clone(),
                dtype: self.scale.dtype,
            });
        }
        let parts = [Some(self.codes), Some(self.scale), self.zero].into_iter().flatten();
        let pieces: Vec<TensorPiece> = parts.map(piece).collect();
        let (file, offset) = pieces.iter().map(|piece| (piece.file, piece.offset)).min().unwrap_or_default();
        let (group, zeros) = (cols / groups, self.zero.is_some());
        let assembly = Assembly::Packed { bits: bits as u8, group, zeros, scale: self.scale.dtype };
        Ok(SourceTensor {
            source_name: self.codes.source_name.clone(),
            name,
            dtype: DType::F32, // a code of eight bits times a scale
            shape: vec![rows, cols],
            file,
            offset,
            bytes: (rows * assembly.row_bytes(cols, 4)) as u64,
            role: Role::Unused,
            layer: self.codes.layer,
            scaled: false,
            gguf: None,
            pieces,
            assembly: Some(assembly),
        })
    }
}

fn piece(tensor: &SourceTensor) -> TensorPiece {
    let SourceTensor { source_name, file, offset, bytes, .. } = tensor.clone();
    TensorPiece { source_name, file, offset, bytes }
}

fn wrong(tensor: &SourceTensor, expected: Vec<usize>) -> TensorError {
    TensorError::WrongShape { name: tensor.source_name.clone(), actual: tensor.shape.clone(), expected }
}
