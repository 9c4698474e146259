//! Importance matrices of llama.cpp: sums of squared inputs of every matrix, in a GGUF of their own
//! (`llama-imatrix --output-format gguf`).

use super::{GgmlType, Gguf, GgufError, GgufWriter, Metadata, NewTensor, Value};
use crate::gguf::value::Array;
use std::collections::BTreeMap;
use std::path::Path;

/// What `general.type` is in such a file.
const KIND: &str = "imatrix";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
/// Largest sum of a matrix's means: products of these with squared weights stay finite.
const LARGEST: f32 = 1e24;
/// What a tensor's name has behind it for each of its two parts.
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

/// Sums of squared inputs, by the names that tensors have in a GGUF.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Imatrix {
    /// Names of the texts.
    pub datasets: Vec<String>,
    /// Sequences of the text.
    pub chunks: u32,
    /// Tokens of a sequence.
    pub chunk_size: u32,
    /// By name of the tensor.
    pub tensors: BTreeMap<String, SquaredInputs>,
}

/// Squared inputs of a matrix, or of each matrix of a stack.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SquaredInputs {
    /// Sums over tokens, `[matrices, cols]`.
    pub sums: Vec<f32>,
    /// Tokens, `[matrices]`.
    pub counts: Vec<f32>,
}

impl SquaredInputs {
    /// Columns.
    pub fn cols(&self) -> usize {
        self.sums.len() / self.counts.len().max(1)
    }

    /// Mean squares of one matrix's inputs, `[cols]`; all 1 where it never got any, as llama-quantize takes them.
    pub fn means(&self, matrix: usize) -> Vec<f32> {
        let (cols, count) = (self.cols(), self.counts.get(matrix).copied().unwrap_or(0.0));
        let sums = self.sums.get(matrix * cols..(matrix + 1) * cols).unwrap_or_default();
        if count > 0.0 { sums.iter().map(|sum| sum / count).collect() } else { vec![1.0; sums.len()] }
    }
}

impl Imatrix {
    /// Reads a file.
    ///
    /// # Errors
    /// When it is no GGUF (the older format is none), is not an importance matrix, or has sums without counts, other
    /// numbers than of f32, such that are negative or infinite, or means beyond what weights are scaled by.
    pub fn open(path: &Path) -> Result<Imatrix, GgufError> {
        let gguf = Gguf::open(path)?;
        let metadata = gguf.metadata();
        let kind = metadata.get("general.type").and_then(Value::as_str).unwrap_or("model");
        if kind != KIND {
            let (key, actual) = ("general.type".to_owned(), kind.to_owned());
            return Err(GgufError::Unsupported { key, actual, supported: KIND.to_owned() });
        }
        let missing = |key: &str| GgufError::MissingKey { key: key.to_owned() };
        let number = |key: &str| {
            let value = metadata.get(key).ok_or_else(|| missing(key))?;
            let number = value.as_u64().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| GgufError::KeyType {
                key: key.to_owned(),
                actual: value.kind(),
                expected: "u32",
            })
        };
        let datasets = metadata.get(DATASETS).ok_or_else(|| missing(DATASETS))?;
        let datasets = datasets.as_array().and_then(Array::as_strings).unwrap_or_default().to_vec();
        let mut imatrix = Imatrix {
            datasets,
            chunks: number(CHUNK_COUNT)?,
            chunk_size: number(CHUNK_SIZE)?,
            ..Imatrix::default()
        };
        for tensor in gguf.tensors() {
            let Some(name) = tensor.info.name.strip_suffix(SUMS) else { continue };
            let sums = values(&gguf, &tensor.info.name)?;
            let counts = values(&gguf, &format!("{name}{COUNTS}"))?;
            let fault = |part: &str, fault: &str| GgufError::Contradiction {
                key: format!("{name}{part}"),
                fault: fault.to_owned(),
            };
            if counts.is_empty() || !sums.len().is_multiple_of(counts.len()) {
                return Err(fault(COUNTS, "their number does not divide that of the sums"));
            }
            for (part, values) in [(SUMS, &sums), (COUNTS, &counts)] {
                if values.iter().any(|value| !value.is_finite() || *value < 0.0) {
                    return Err(fault(part, "its numbers are not all finite and from 0 on"));
                }
            }
            let inputs = SquaredInputs { sums, counts };
            let sum = |matrix| inputs.means(matrix).iter().sum::<f32>();
            // What is not a number is refused too.
            if !(0..inputs.counts.len()).all(|matrix| sum(matrix) <= LARGEST) {
                return Err(fault(SUMS, &format!("its means are beyond {LARGEST:e} together")));
            }
            imatrix.tensors.insert(name.to_owned(), inputs);
        }
        match imatrix.tensors.is_empty() {
            true => Err(missing(&format!("tensors NAME{SUMS}"))),
            false => Ok(imatrix),
        }
    }

    /// Writes the file; it gets its name when it is whole.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn write(&self, path: &Path) -> Result<u64, GgufError> {
        let mut metadata = Metadata::default();
        metadata.set("general.type", Value::String(KIND.to_owned()));
        metadata.set(DATASETS, Value::Array(Array::String(self.datasets.clone())));
        metadata.set(CHUNK_COUNT, Value::U32(self.chunks));
        metadata.set(CHUNK_SIZE, Value::U32(self.chunk_size));
        let (mut tensors, mut bytes) = (Vec::new(), Vec::new());
        for (name, inputs) in &self.tensors {
            let matrices = inputs.counts.len();
            let mut add = |end: &str, width: usize, values: &[f32]| {
                let (name, shape) = (format!("{name}{end}"), vec![matrices, width]);
                tensors.push(NewTensor { name, shape, kind: GgmlType::F32 });
                bytes.push(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
            };
            add(SUMS, inputs.cols(), &inputs.sums);
            add(COUNTS, 1, &inputs.counts);
        }
        let mut writer = GgufWriter::create(path, &metadata, &tensors)?;
        bytes.iter().try_for_each(|bytes| writer.append(bytes))?;
        writer.finish()
    }
}

/// All numbers of a tensor of f32.
fn values(gguf: &Gguf, name: &str) -> Result<Vec<f32>, GgufError> {
    let tensor = gguf.tensor(name).ok_or_else(|| GgufError::MissingKey { key: format!("tensor {name}") })?;
    let info = &tensor.info;
    if info.kind != GgmlType::F32 {
        return Err(GgufError::UndecodableType { name: name.to_owned(), kind: info.kind.name() });
    }
    let mut bytes = vec![0; usize::try_from(info.bytes).unwrap_or(0)];
    gguf.read_bytes(tensor, 0, &mut bytes)?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("imatrix.gguf");
        let inputs =
            |sums: &[f32], counts: &[f32]| SquaredInputs { sums: sums.to_vec(), counts: counts.to_vec() };
        let mut imatrix =
            Imatrix { datasets: vec!["a".to_owned()], chunks: 3, chunk_size: 512, ..Imatrix::default() };
        imatrix.tensors.insert("blk.0.attn_q.weight".to_owned(), inputs(&[2.0, 6.0, 0.0], &[2.0]));
        imatrix
            .tensors
            .insert("blk.0.ffn_up_exps.weight".to_owned(), inputs(&[1.0, 2.0, 3.0, 4.0], &[4.0, 0.0]));
        imatrix.write(&path).unwrap();
        assert_eq!(Imatrix::open(&path).unwrap(), imatrix);
        assert_eq!(imatrix.tensors["blk.0.attn_q.weight"].means(0), [1.0, 3.0, 0.0]);
        let experts = &imatrix.tensors["blk.0.ffn_up_exps.weight"];
        assert_eq!((experts.means(0), experts.means(1)), (vec![0.25, 0.5], vec![1.0, 1.0]));

        let refused = |change: &dyn Fn(&mut Imatrix)| {
            let mut damaged = imatrix.clone();
            change(&mut damaged);
            damaged.write(&path).unwrap();
            Imatrix::open(&path).unwrap_err().to_string()
        };
        assert!(refused(&|damaged| damaged.tensors.clear()).contains("in_sum2"));
        let infinite = refused(&|damaged| {
            damaged.tensors.insert("blk.0.attn_q.weight".to_owned(), inputs(&[f32::NAN], &[2.0]));
        });
        assert!(
            infinite.contains("blk.0.attn_q.weight.in_sum2") && infinite.contains("finite"),
            "{infinite}"
        );
        // Finite sums of which means, or what is made of them, are not.
        for inputs in [inputs(&[3e38, 3e38], &[1.0]), inputs(&[1.0, 1.0], &[1e-40])] {
            let huge = refused(&|damaged| {
                damaged.tensors.insert("blk.0.attn_q.weight".to_owned(), inputs.clone());
            });
            assert!(huge.contains("blk.0.attn_q.weight.in_sum2") && huge.contains("beyond"), "{huge}");
        }
    }
}
