//! Tensors that have the rows of several parts of the graph, one part below the other (Phi): each part is a tensor by
//! itself, which knows where its rows are. Nothing is read and nothing is copied.

use crate::declared::{Declared, Fused, matched, numbered};
use crate::{ModelSpec, Role, SourceTensor, TensorError};
use std::collections::HashMap;
use std::ops::Range;

/// Such a tensor of one model, in one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedTensor {
    /// Its name on the Hub.
    pub hub: String,
    /// Its name in a GGUF.
    pub gguf: String,
    /// The layer.
    pub layer: Option<usize>,
    /// Elements of a row.
    pub cols: usize,
    /// What stands in it.
    pub parts: Vec<FusedPart>,
}

/// One part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FusedPart {
    /// Canonical name.
    pub name: String,
    /// What it is to the graph.
    pub role: Role,
    /// Its rows in the whole tensor.
    pub rows: Range<usize>,
}

impl ModelSpec {
    /// The tensor of files that has the rows of a canonical one and of others; `None` where it stands by itself.
    pub fn fused(&self, canonical: &str) -> Option<FusedTensor> {
        let (declared, layer) = self.declaration(canonical)?;
        self.fused_in(declared.fused()?, layer)
    }

    /// The one that has this name on the Hub.
    pub(crate) fn fused_on_the_hub(&self, name: &str) -> Option<FusedTensor> {
        self.fused_by(|fused| matched(fused.hub, name))
    }

    /// The one that has this name in a GGUF.
    pub(crate) fn fused_in_gguf(&self, name: &str) -> Option<FusedTensor> {
        self.fused_by(|fused| matched(fused.gguf, name))
    }

    fn fused_by(&self, layer_of: impl Fn(&Fused) -> Option<Option<usize>>) -> Option<FusedTensor> {
        let mut all = self.declared().iter().filter_map(Declared::fused);
        let (fused, layer) = all.find_map(|fused| Some((fused, layer_of(fused)?)))?;
        self.fused_in(fused, layer)
    }

    /// `None` where the model, or the layer, lacks a part.
    fn fused_in(&self, fused: &Fused, layer: Option<usize>) -> Option<FusedTensor> {
        let (mut end, mut cols, mut parts) = (0, 0, Vec::new());
        for part in fused.parts {
            let tensor = self.tensor(*part, layer)?;
            let &[rows, width] = tensor.shape.as_slice() else { return None };
            parts.push(FusedPart { name: tensor.name, role: tensor.role, rows: end..end + rows });
            (end, cols) = (end + rows, width);
        }
        let [hub, gguf] = [fused.hub, fused.gguf].map(|name| numbered(name, layer));
        Some(FusedTensor { hub, gguf, layer, cols, parts })
    }
}

impl FusedTensor {
    /// Dimensions of the whole tensor.
    pub fn shape(&self) -> Vec<usize> {
        vec![self.parts.last().map_or(0, |part| part.rows.end), self.cols]
    }

    /// The canonical name of its first part.
    pub fn first(&self) -> &str {
        self.parts.first().map_or("", |part| part.name.as_str())
    }

    /// Rows of it, taken apart: canonical name and rows of each part that has some of them.
    pub fn runs(&self, rows: Range<usize>) -> Vec<(&str, Range<usize>)> {
        let run = |part: &'_ FusedPart| {
            let (from, to) = (rows.start.max(part.rows.start), rows.end.min(part.rows.end));
            (from < to).then(|| from - part.rows.start..to - part.rows.start)
        };
        self.parts.iter().filter_map(|part| Some((part.name.as_str(), run(part)?))).collect()
    }

    /// The parts of a tensor as it stands in a file.
    ///
    /// # Errors
    /// When it has another shape than they have together.
    pub(crate) fn of(&self, whole: &SourceTensor) -> Result<Vec<SourceTensor>, TensorError> {
        if whole.shape != self.shape() {
            let (name, actual) = (whole.source_name.clone(), whole.shape.clone());
            return Err(TensorError::WrongShape { name, actual, expected: self.shape() });
        }
        let row_bytes = whole.row_bytes() as u64;
        let part = |part: &FusedPart| SourceTensor {
            name: part.name.clone(),
            shape: vec![part.rows.len(), self.cols],
            offset: whole.offset + part.rows.start as u64 * row_bytes,
            bytes: part.rows.len() as u64 * row_bytes,
            role: part.role,
            layer: self.layer,
            ..whole.clone()
        };
        Ok(self.parts.iter().map(part).collect())
    }
}

/// Puts its parts in the place of every tensor that has several.
///
/// # Errors
/// When such a tensor has another shape than its parts have together, or files have a part by itself as well.
pub(crate) fn take_apart(spec: &ModelSpec, tensors: &mut Vec<SourceTensor>) -> Result<(), TensorError> {
    if !spec.declared().iter().any(|declared| declared.fused().is_some()) {
        return Ok(());
    }
    let mut apart = Vec::with_capacity(tensors.len());
    for tensor in tensors.drain(..) {
        match spec.fused_on_the_hub(&tensor.name) {
            Some(fused) => apart.extend(fused.of(&tensor)?),
            None => apart.push(tensor),
        }
    }
    *tensors = apart;
    check_twice(tensors)
}

/// Refuses two tensors of one canonical name.
///
/// # Errors
/// [`TensorError::NameClash`].
pub(crate) fn check_twice(tensors: &[SourceTensor]) -> Result<(), TensorError> {
    let mut seen: HashMap<&str, &SourceTensor> = HashMap::new();
    for tensor in tensors {
        if let Some(first) = seen.insert(&tensor.name, tensor) {
            let (first, second) = (first.source_name.clone(), tensor.source_name.clone());
            return Err(TensorError::NameClash { name: tensor.name.clone(), first, second });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Checkpoint;

    fn opened() -> Checkpoint {
        Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/tiny/phi3")).unwrap()
    }

    #[test]
    fn parts_have_their_rows_of_the_file() {
        let checkpoint = opened();
        let spec = checkpoint.spec();
        let fused = spec.fused("model.layers.1.self_attn.v_proj.weight").unwrap();
        assert_eq!(
            (fused.hub.as_str(), fused.shape()),
            ("model.layers.1.self_attn.qkv_proj.weight", vec![160, 96])
        );
        assert_eq!(fused.gguf, "blk.1.attn_qkv.weight");
        let rows: Vec<_> = fused.parts.iter().map(|part| part.rows.clone()).collect();
        assert_eq!(rows, [0..96, 96..128, 128..160]);
        let [q, k, v] = ["q", "k", "v"]
            .map(|part| checkpoint.tensor(&format!("model.layers.1.self_attn.{part}_proj.weight")).unwrap());
        assert_eq!((k.offset - q.offset, v.offset - k.offset), (96 * 96 * 2, 32 * 96 * 2));
        assert_eq!((k.source_name.as_str(), k.bytes), (fused.hub.as_str(), 32 * 96 * 2));
        let runs = fused.runs(90..130);
        let runs: Vec<_> =
            runs.iter().map(|(name, rows)| (name.contains(".k_proj."), rows.clone())).collect();
        assert_eq!(runs, [(false, 90..96), (true, 0..32), (false, 0..2)]);
        assert!(fused.runs(96..96).is_empty() && spec.fused("model.norm.weight").is_none());
    }

    #[test]
    fn another_shape_and_a_part_by_itself_are_refused() {
        let checkpoint = opened();
        let whole = |shape: Vec<usize>| SourceTensor {
            name: "model.layers.0.mlp.gate_up_proj.weight".to_owned(),
            source_name: "whole".to_owned(),
            shape,
            ..checkpoint.tensors()[0].clone()
        };
        let apart = |tensors: &[SourceTensor]| {
            let mut tensors = tensors.to_vec();
            take_apart(checkpoint.spec(), &mut tensors).map(|()| tensors.len())
        };
        assert_eq!(apart(&[whole(vec![320, 96])]), Ok(2));
        let error = apart(&[whole(vec![319, 96])]).unwrap_err();
        assert!(matches!(error, TensorError::WrongShape { expected, .. } if expected == [320, 96]));
        let mut gate = whole(vec![160, 96]);
        gate.name = "model.layers.0.mlp.gate_proj.weight".to_owned();
        let error = apart(&[whole(vec![320, 96]), gate]).unwrap_err();
        assert!(matches!(error, TensorError::NameClash { first, .. } if first == "whole"));
    }
}
