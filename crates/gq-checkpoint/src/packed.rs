//! Matrices of integer codes (`pack-quantized` of compressed-tensors, GPTQ, AWQ): codes in words of 32 bits, scales of groups
//! of columns and, where there are such, zero points and the group of each column become the one matrix that the family
//! declares, or the several that stand in it. Nothing is read here.

use crate::assembly::Assembly;
use crate::family::{AWQ, BY_INDEX, GPTQ, GPTQ_SECOND, PACKED, PACKED_ASYMMETRIC, PACKED_SYMMETRIC};
use crate::fused::FusedTensor;
use crate::integers::{Integers, Packing};
use crate::{ModelSpec, Role, SourceTensor, TensorError, TensorPiece};
use gq_tensor::DType;
use std::collections::HashMap;

/// What a configuration says of matrices of codes.
#[derive(Clone, Copy)]
struct Form {
    packing: Packing,
    /// Whether all have zero points, or none has; `None` where some have.
    zeros: Option<bool>,
    /// Whether files must say the group of each column.
    by_index: bool,
}

/// A matrix that codes may stand for: its canonical name, or that of several together in files.
struct Wanted {
    name: String,
    shape: [usize; 2],
    fused: Option<FusedTensor>,
}

/// Puts a matrix in the place of its codes, scales, zero points and shape, where the configuration says that there are
/// such.
///
/// # Errors
/// When a part is missing, there is a whole matrix as well, or a part has another shape or type.
pub(crate) fn join(spec: &ModelSpec, tensors: &mut Vec<SourceTensor>) -> Result<(), TensorError> {
    let Some(form) = Form::of(spec) else { return Ok(()) };
    let places: HashMap<String, usize> =
        tensors.iter().enumerate().map(|(place, tensor)| (tensor.name.clone(), place)).collect();
    let (mut taken, mut joined) = (Vec::new(), Vec::new());
    for Wanted { name, shape, fused } in wanted(spec) {
        let ends = form.ends();
        let part = |end: &str| form.part(&name, end);
        let place = |end: &str| places.get(&part(end)).copied();
        let Some(codes) = place(ends.codes) else { continue };
        let whole = fused.as_ref().map_or(name.as_str(), FusedTensor::first);
        if let Some(&whole) = places.get(whole) {
            let of = |place: usize| tensors[place].source_name.clone();
            return Err(TensorError::NameClash { name, first: of(whole), second: of(codes) });
        }
        let missing = |end: &str| TensorError::Missing { name: part(end) };
        let scale = place(ends.scale).ok_or_else(|| missing(ends.scale))?;
        let (zero, order) = (place(ends.zero), place(ends.order));
        if form.by_index && order.is_none() {
            return Err(missing(ends.order));
        }
        match (form.zeros, zero) {
            (Some(true), None) => return Err(missing(ends.zero)),
            (Some(false), Some(zero)) => {
                let (name, family) = (tensors[zero].source_name.clone(), spec.family.name());
                return Err(TensorError::Unexpected { name, family });
            }
            _ => {}
        }
        taken.extend([Some(codes), Some(scale), zero, order, place(ends.shape)].into_iter().flatten());
        let of = |place: Option<usize>| place.map(|place| &tensors[place]);
        let parts =
            Parts { codes: &tensors[codes], scale: &tensors[scale], zero: of(zero), order: of(order) };
        let matrix = parts.joined(form.packing, name, shape)?;
        match fused {
            Some(fused) => joined.extend(apart(&fused, &matrix)),
            None => joined.push(matrix),
        }
    }
    let mut place = 0..;
    tensors.retain(|_| !place.next().is_some_and(|place| taken.contains(&place)));
    tensors.extend(joined);
    tensors.sort_by_key(|tensor| (tensor.file, tensor.offset));
    Ok(())
}

/// All matrices, and those that stand together in files.
fn wanted(spec: &ModelSpec) -> Vec<Wanted> {
    let mut list = Vec::new();
    for tensor in spec.expected_tensors() {
        let &[rows, cols] = tensor.shape.as_slice() else { continue };
        let fused = spec.fused(&tensor.name).filter(|fused| fused.first() == tensor.name);
        if let Some(fused) = fused
            && let [rows, cols] = fused.shape()[..]
        {
            list.push(Wanted { name: fused.hub.clone(), shape: [rows, cols], fused: Some(fused) });
        }
        list.push(Wanted { name: tensor.name, shape: [rows, cols], fused: None });
    }
    list
}

/// The matrices that stand in one: each knows where its rows begin.
fn apart(fused: &FusedTensor, whole: &SourceTensor) -> Vec<SourceTensor> {
    let row_bytes = whole.row_bytes() as u64;
    let part = |part: &crate::FusedPart| {
        let first = part.rows.start;
        SourceTensor {
            name: part.name.clone(),
            shape: vec![part.rows.len(), fused.cols],
            bytes: part.rows.len() as u64 * row_bytes,
            layer: fused.layer,
            assembly: whole.assembly.map(|assembly| match assembly {
                Assembly::Packed(integers) => Assembly::Packed(Integers { first, ..integers }),
                other => other,
            }),
            ..whole.clone()
        }
    };
    fused.parts.iter().map(part).collect()
}

/// Ends of the names of parts.
struct Ends {
    codes: &'static str,
    scale: &'static str,
    zero: &'static str,
    order: &'static str,
    shape: &'static str,
}

impl Form {
    /// `None`: there are no matrices of codes.
    fn of(spec: &ModelSpec) -> Option<Form> {
        let said = spec.quantization.as_deref()?;
        let form = said.strip_suffix(BY_INDEX).unwrap_or(said);
        let (packing, zeros) = match form {
            PACKED => (Packing::CompressedTensors, None),
            PACKED_SYMMETRIC => (Packing::CompressedTensors, Some(false)),
            PACKED_ASYMMETRIC => (Packing::CompressedTensors, Some(true)),
            GPTQ => (Packing::Gptq { less: 1 }, Some(true)),
            GPTQ_SECOND => (Packing::Gptq { less: 0 }, Some(true)),
            AWQ => (Packing::Awq, Some(true)),
            _ => return None,
        };
        Some(Form { packing, zeros, by_index: form != said })
    }

    fn ends(self) -> Ends {
        match self.packing {
            Packing::CompressedTensors => Ends {
                codes: "_packed",
                scale: "_scale",
                zero: "_zero_point",
                order: "_g_idx",
                shape: "_shape",
            },
            Packing::Gptq { .. } | Packing::Awq => {
                Ends { codes: "qweight", scale: "scales", zero: "qzeros", order: "g_idx", shape: "qshape" }
            }
        }
    }

    /// The name of a part of the matrix `name`.
    fn part(self, name: &str, end: &str) -> String {
        match self.packing {
            Packing::CompressedTensors => format!("{name}{end}"),
            Packing::Gptq { .. } | Packing::Awq => {
                format!("{}{end}", name.strip_suffix("weight").unwrap_or(name))
            }
        }
    }
}

/// What files have of one matrix.
struct Parts<'a> {
    codes: &'a SourceTensor,
    scale: &'a SourceTensor,
    zero: Option<&'a SourceTensor>,
    order: Option<&'a SourceTensor>,
}

impl Parts<'_> {
    fn joined(
        &self,
        packing: Packing,
        name: String,
        [rows, cols]: [usize; 2],
    ) -> Result<SourceTensor, TensorError> {
        let words = |bits: usize, codes: usize| (codes * bits).div_ceil(32);
        // Codes, scales and zero points of a number of bits and of groups.
        let codes = |bits: usize| match packing {
            Packing::CompressedTensors => vec![rows, words(bits, cols)],
            Packing::Gptq { .. } => vec![words(bits, cols), rows],
            Packing::Awq => vec![cols, words(bits, rows)],
        };
        let scales = |groups: usize| match packing {
            Packing::CompressedTensors => vec![rows, groups],
            Packing::Gptq { .. } | Packing::Awq => vec![groups, rows],
        };
        let known: &[usize] = if packing == Packing::Awq { &[4] } else { &[4, 8] };
        let bits = known.iter().copied().find(|&bits| self.codes.shape == codes(bits));
        let bits = bits.ok_or_else(|| wrong(self.codes, codes(4)))?;
        let groups = match (packing, &self.scale.shape[..]) {
            (Packing::CompressedTensors, &[_, groups]) => groups,
            (Packing::Gptq { .. } | Packing::Awq, &[groups, _]) => groups,
            _ => 0,
        };
        let fits = groups > 0 && groups < usize::from(u16::MAX) && cols.is_multiple_of(groups);
        if !fits || self.scale.shape != scales(groups) {
            return Err(wrong(self.scale, scales(1)));
        }
        // Zero points of GPTQ and AWQ, and AWQ's codes, are words of rows.
        let along_rows = packing != Packing::CompressedTensors;
        if along_rows && !((rows * bits).is_multiple_of(32) && (cols * bits).is_multiple_of(32)) {
            return Err(wrong(self.codes, codes(bits)));
        }
        let zeros = match along_rows {
            false => vec![words(bits, rows), groups],
            true => vec![groups, words(bits, rows)],
        };
        if let Some(zero) = self.zero.filter(|zero| zero.shape != zeros) {
            return Err(wrong(zero, zeros));
        }
        if let Some(order) = self.order.filter(|order| order.shape != [cols]) {
            return Err(wrong(order, vec![cols]));
        }
        let of_words = [Some(self.codes), self.zero, self.order];
        if let Some(other) = of_words.into_iter().flatten().find(|tensor| tensor.dtype != DType::I32) {
            return Err(TensorError::NotWords { name: other.source_name.clone(), dtype: other.dtype });
        }
        if !matches!(self.scale.dtype, DType::BF16 | DType::F16 | DType::F32) {
            return Err(TensorError::NotFloat {
                name: self.scale.source_name.clone(),
                dtype: self.scale.dtype,
            });
        }
        let parts = [Some(self.codes), Some(self.scale), self.zero, self.order].into_iter().flatten();
        let pieces: Vec<TensorPiece> = parts.map(piece).collect();
        let (file, offset) = pieces.iter().map(|piece| (piece.file, piece.offset)).min().unwrap_or_default();
        let assembly = Assembly::Packed(Integers {
            packing,
            bits: bits as u8,
            group: cols / groups,
            zeros: self.zero.is_some(),
            order: self.order.is_some(),
            scale: self.scale.dtype,
            rows,
            first: 0,
        });
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
