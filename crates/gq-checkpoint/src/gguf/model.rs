//! A model in a GGUF as a checkpoint: canonical names, values as the Hub has them, configuration and texts.

use super::config::config_json;
use super::names::{ROPE_FREQS, Transform, canonical_name};
use super::tokenizer::tokenizer_texts;
use super::{GgmlType, Gguf, GgufError, GgufTensor, Value, decode};
use crate::{ExpectedTensor, ModelSpec, Role, SourceTensor, TensorError, Texts, parse_config};
use gq_tensor::DType;
use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

/// An open model. Facts only; rows are read and decoded on demand, from any number of threads.
#[derive(Debug)]
pub struct GgufModel {
    gguf: Gguf,
    spec: ModelSpec,
    texts: Texts,
    tensors: Vec<SourceTensor>,
    stored: Vec<Stored>,
    by_name: HashMap<String, usize>,
}

/// Where a tensor comes from.
#[derive(Clone, Copy, Debug)]
struct Stored {
    index: usize,
    transform: Transform,
}

impl GgufModel {
    /// Opens a file, or the files of a split.
    ///
    /// # Errors
    /// When the file breaks the format, its architecture, tokenizer or a key of its metadata is not supported, its
    /// tensors are not those of the configuration, or a type cannot be decoded.
    pub fn open(path: impl AsRef<Path>) -> Result<GgufModel, GgufError> {
        GgufModel::new(Gguf::open(path)?)
    }

    /// As [`GgufModel::open`], of an open file.
    ///
    /// # Errors
    /// The same.
    pub fn new(gguf: Gguf) -> Result<GgufModel, GgufError> {
        let config = config_json(&gguf)?;
        let config = format!("{config:#}");
        let spec = parse_config(&config).map_err(|source| GgufError::Config { source })?;
        let texts = texts(&gguf, config)?;
        let mut model =
            GgufModel { gguf, spec, texts, tensors: Vec::new(), stored: Vec::new(), by_name: HashMap::new() };
        model.match_tensors()?;
        Ok(model)
    }

    /// The file behind it.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Everything the graph needs to know.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Configuration, tokenizer, chat template and settings, as the Hub's files would have them.
    pub fn texts(&self) -> &Texts {
        &self.texts
    }

    /// Tensors under canonical names, in file order. Their `dtype` is that of the values that are read: that of the
    /// file for plain types, F32 for decoded and changed ones; `offset` and `bytes` lay these values one after another.
    pub fn tensors(&self) -> &[SourceTensor] {
        &self.tensors
    }

    /// The tensor with this canonical name.
    pub fn tensor(&self, name: &str) -> Option<&SourceTensor> {
        self.by_name.get(name).and_then(|&index| self.tensors.get(index))
    }

    /// The type that a tensor has in the file.
    pub fn stored_type(&self, tensor: &SourceTensor) -> Option<GgmlType> {
        self.find(tensor).map(|(stored, _)| stored.info.kind)
    }

    /// Whether any weight is quantized: quantizing it again loses twice.
    pub fn is_quantized(&self) -> bool {
        self.gguf.tensors().iter().any(|tensor| tensor.info.kind.is_quantized())
    }

    fn find(&self, tensor: &SourceTensor) -> Option<(&GgufTensor, Transform)> {
        let stored = self.by_name.get(&tensor.name).and_then(|&index| self.stored.get(index))?;
        Some((self.gguf.tensors().get(stored.index)?, stored.transform))
    }

    fn match_tensors(&mut self) -> Result<(), GgufError> {
        let expected = self.spec.expected_tensors();
        let expected: HashMap<&str, &ExpectedTensor> =
            expected.iter().map(|e| (e.name.as_str(), e)).collect();
        let mut offset = 0;
        for (index, stored) in self.gguf.tensors().iter().enumerate() {
            let info = &stored.info;
            if info.name == ROPE_FREQS {
                continue;
            }
            let family = self.spec.family;
            let unknown =
                || GgufError::UnknownTensor { name: info.name.clone(), architecture: family.name() };
            let name = canonical_name(family, &info.name).ok_or_else(unknown)?;
            let part = expected.get(name.as_str());
            if part.is_none() && !self.spec.is_unused(&name) {
                return Err(unknown());
            }
            if !decode::is_supported(info.kind) {
                return Err(GgufError::UndecodableType { name: info.name.clone(), kind: info.kind.name() });
            }
            if let Some(part) = part.filter(|part| part.shape != info.shape) {
                let (actual, expected) = (info.shape.clone(), part.shape.clone());
                let source = TensorError::WrongShape { name: info.name.clone(), actual, expected };
                return Err(GgufError::Tensors { source });
            }
            let transform = Transform::of(&self.spec, &name);
            let plain = decode::plain(info.kind).filter(|_| transform != Transform::PlusOne);
            let dtype = plain.unwrap_or(DType::F32);
            let bytes = info.shape.iter().product::<usize>() as u64 * dtype.size() as u64;
            let layer = crate::names::in_layer(&name).map(|(layer, _)| layer);
            self.by_name.insert(name.clone(), self.tensors.len());
            self.stored.push(Stored { index, transform });
            self.tensors.push(SourceTensor {
                name,
                source_name: info.name.clone(),
                dtype,
                shape: info.shape.clone(),
                file: 0,
                offset,
                bytes,
                role: part.map_or(Role::Unused, |part| part.role),
                layer,
                scaled: false,
            });
            offset += bytes;
        }
        match expected.keys().filter(|name| !self.by_name.contains_key(**name)).min() {
            Some(name) => {
                let source = TensorError::Missing { name: (*name).to_owned() };
                Err(GgufError::Tensors { source })
            }
            None => Ok(()),
        }
    }

    /// Reads rows as f32 into `out`, `[rows.len(), cols]`: decoded, in a checkpoint's order, norms without the added 1.
    ///
    /// # Errors
    /// When rows are out of range, `out` has another length, or the disk fails.
    pub fn read_rows_f32(
        &self,
        tensor: &SourceTensor,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), GgufError> {
        let (stored, transform) = self.find_or_refuse(tensor)?;
        self.each_run(tensor, transform, rows, out, 1, |first, part| {
            self.gguf.read_rows_f32(stored, first..first + part.len() / tensor.cols().max(1), part)
        })?;
        if transform == Transform::PlusOne {
            out.iter_mut().for_each(|value| *value -= 1.0);
        }
        Ok(())
    }

    /// Reads the bytes of rows in the tensor's `dtype`, little-endian.
    ///
    /// # Errors
    /// As [`GgufModel::read_rows_f32`].
    pub fn read_row_bytes(
        &self,
        tensor: &SourceTensor,
        rows: Range<usize>,
        out: &mut [u8],
    ) -> Result<(), GgufError> {
        let (stored, transform) = self.find_or_refuse(tensor)?;
        if decode::plain(stored.info.kind) == Some(tensor.dtype) && transform != Transform::PlusOne {
            let row_bytes = tensor.row_bytes() as u64;
            return self.each_run(tensor, transform, rows, out, tensor.dtype.size(), |first, part| {
                self.gguf.read_bytes(stored, first as u64 * row_bytes, part)
            });
        }
        let mut values = vec![0.0; out.len() / 4];
        self.read_rows_f32(tensor, rows, &mut values)?;
        for (bytes, value) in out.as_chunks_mut::<4>().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        Ok(())
    }

    fn find_or_refuse(&self, tensor: &SourceTensor) -> Result<(&GgufTensor, Transform), GgufError> {
        self.find(tensor).ok_or_else(|| GgufError::OutOfRange {
            name: tensor.name.clone(),
            requested: "a tensor of another file".to_owned(),
            actual: 0,
        })
    }

    /// Splits rows into runs that are contiguous in the file. `size`: elements of `out` per value.
    fn each_run<T>(
        &self,
        tensor: &SourceTensor,
        transform: Transform,
        rows: Range<usize>,
        out: &mut [T],
        size: usize,
        mut read: impl FnMut(usize, &mut [T]) -> Result<(), GgufError>,
    ) -> Result<(), GgufError> {
        let (count, row_len) = (tensor.rows(), tensor.cols() * size);
        if rows.start > rows.end || rows.end > count || out.len() != rows.len() * row_len {
            let requested = format!("rows {}..{} into {}", rows.start, rows.end, out.len());
            return Err(GgufError::OutOfRange { name: tensor.name.clone(), requested, actual: count as u64 });
        }
        let Transform::Interleave { .. } = transform else { return read(rows.start, out) };
        if tensor.shape.len() == 1 {
            return self.interleaved_vector(tensor, transform, out, size, read);
        }
        for (row, part) in rows.zip(out.chunks_mut(row_len.max(1))) {
            read(transform.stored_row(row, count), part)?;
        }
        Ok(())
    }

    /// A bias: its elements are reordered as the rows of its matrix are.
    fn interleaved_vector<T>(
        &self,
        tensor: &SourceTensor,
        transform: Transform,
        out: &mut [T],
        size: usize,
        mut read: impl FnMut(usize, &mut [T]) -> Result<(), GgufError>,
    ) -> Result<(), GgufError> {
        read(0, out)?;
        let count = tensor.cols();
        // A permutation applied in place by following its cycles.
        let mut done = vec![false; count];
        for start in 0..count {
            let mut at = start;
            while !std::mem::replace(&mut done[at], true) {
                let from = transform.stored_row(at, count);
                if from != start {
                    for k in 0..size {
                        out.swap(at * size + k, from * size + k);
                    }
                    at = from;
                }
            }
        }
        Ok(())
    }
}

fn texts(gguf: &Gguf, config: String) -> Result<Texts, GgufError> {
    let text = |key: &str| gguf.metadata().get(key).and_then(Value::as_str).map(str::to_owned);
    let tokenizer = tokenizer_texts(gguf)?;
    let (tokenizer, tokenizer_config) = tokenizer.map(|t| (t.tokenizer, t.tokenizer_config)).unzip();
    let generation: serde_json::Map<_, _> = serde_json::from_str::<serde_json::Value>(&config)
        .ok()
        .map(|config| {
            let keys = ["bos_token_id", "eos_token_id", "pad_token_id"];
            keys.iter().filter_map(|key| Some(((*key).to_owned(), config.get(*key)?.clone()))).collect()
        })
        .unwrap_or_default();
    Ok(Texts {
        config,
        tokenizer,
        tokenizer_config,
        chat_template: text("tokenizer.chat_template"),
        generation_config: Some(serde_json::Value::Object(generation).to_string()),
        special_tokens_map: None,
        licences: Vec::new(),
        licence_name: text("general.license"),
    })
}
