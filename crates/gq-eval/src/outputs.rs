//! Files of reference outputs: safetensors with `input_ids` i64 `[n, t]` and `logits` `[n, t, vocab]`.

use gq_tensor::DType;
use half::{bf16, f16};
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Headers of two tensors need no more.
const HEADER_LIMIT: u64 = 1 << 20;

/// A file of reference outputs that cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum OutputsError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{}: the header is {actual} bytes, the file leaves room for {limit}", path.display())]
    Header { path: PathBuf, limit: u64, actual: u64 },
    #[error("{}: the header is not a safetensors header: {source}", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{}: there is no tensor {name:?}", path.display())]
    Missing { path: PathBuf, name: &'static str },
    #[error("{}: tensor {name:?} is {actual}, expected {limit}", path.display())]
    Tensor { path: PathBuf, name: &'static str, limit: String, actual: String },
    #[error("{}: input_ids[{row}, {col}] is {actual}, the vocabulary has {limit} tokens", path.display())]
    Token { path: PathBuf, row: usize, col: usize, limit: usize, actual: i64 },
    #[error("{}: logits[{row}, {col}] hold a value that is not finite", path.display())]
    NotFinite { path: PathBuf, row: usize, col: usize },
}

struct Tensor {
    dtype: DType,
    shape: Vec<u64>,
    offset: u64,
}

/// An open file of reference outputs; logits are read row by row.
#[derive(Debug)]
pub struct OutputsReader {
    path: PathBuf,
    file: File,
    ids: Vec<Vec<u32>>,
    positions: usize,
    vocab: usize,
    dtype: DType,
    logits: u64,
}

impl OutputsReader {
    /// Opens and validates; reads the token numbers.
    ///
    /// # Errors
    /// When the file is no safetensors file with the two tensors in the layout above.
    pub fn open(path: &Path) -> Result<OutputsReader, OutputsError> {
        let io = |source| OutputsError::Io { path: path.to_owned(), source };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut prefix = [0; 8];
        file.read_exact(&mut prefix).map_err(io)?;
        let header = u64::from_le_bytes(prefix);
        let limit = length.saturating_sub(8).min(HEADER_LIMIT);
        if header > limit {
            return Err(OutputsError::Header { path: path.to_owned(), limit, actual: header });
        }
        let mut text = vec![0; header as usize];
        file.read_exact(&mut text).map_err(io)?;
        let json: Value = serde_json::from_slice(&text)
            .map_err(|source| OutputsError::Json { path: path.to_owned(), source })?;
        let find = |name, dtypes: &[DType], dims| find(path, &json, name, dtypes, dims, length - 8 - header);
        let ids = find("input_ids", &[DType::I64], 2)?;
        let logits = find("logits", &[DType::F64, DType::F32, DType::F16, DType::BF16], 3)?;
        if logits.shape[..2] != ids.shape[..] {
            return Err(OutputsError::Tensor {
                path: path.to_owned(),
                name: "logits",
                limit: format!("{:?} and the vocabulary", ids.shape),
                actual: format!("{:?}", logits.shape),
            });
        }
        let (rows, positions, vocab) =
            (ids.shape[0] as usize, ids.shape[1] as usize, logits.shape[2] as usize);
        let mut bytes = vec![0; rows * positions * 8];
        file.read_exact_at(&mut bytes, 8 + header + ids.offset).map_err(io)?;
        let mut numbers = Vec::with_capacity(rows);
        for (row, bytes) in bytes.chunks_exact((positions * 8).max(1)).enumerate() {
            let mut line = Vec::with_capacity(positions);
            for (col, bytes) in bytes.as_chunks::<8>().0.iter().enumerate() {
                let actual = i64::from_le_bytes(*bytes);
                let token = u32::try_from(actual).ok().filter(|&token| (token as usize) < vocab);
                let bad = || OutputsError::Token { path: path.to_owned(), row, col, limit: vocab, actual };
                line.push(token.ok_or_else(bad)?);
            }
            numbers.push(line);
        }
        let at = 8 + header + logits.offset;
        Ok(OutputsReader {
            path: path.to_owned(),
            file,
            ids: numbers,
            positions,
            vocab,
            dtype: logits.dtype,
            logits: at,
        })
    }

    /// Token numbers, one list per row.
    pub fn input_ids(&self) -> &[Vec<u32>] {
        &self.ids
    }

    /// Entries of a row of logits.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Logits `[vocab]` at one position.
    ///
    /// # Errors
    /// When the file cannot be read or holds a value that is not finite.
    pub fn logits(&self, row: usize, col: usize) -> Result<Vec<f64>, OutputsError> {
        let size = self.dtype.size();
        let mut bytes = vec![0; self.vocab * size];
        let at = self.logits + ((row * self.positions + col) * self.vocab * size) as u64;
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|source| OutputsError::Io { path: self.path.clone(), source })?;
        let values: Vec<f64> = match self.dtype {
            DType::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            DType::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
            }
            DType::F16 => bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f64()).collect(),
            _ => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect(),
        };
        match values.iter().all(|v| v.is_finite()) {
            true => Ok(values),
            false => Err(OutputsError::NotFinite { path: self.path.clone(), row, col }),
        }
    }
}

fn find(
    path: &Path,
    json: &Value,
    name: &'static str,
    dtypes: &[DType],
    dims: usize,
    data: u64,
) -> Result<Tensor, OutputsError> {
    let entry = json.get(name).ok_or_else(|| OutputsError::Missing { path: path.to_owned(), name })?;
    let names: Vec<&str> = dtypes.iter().map(|d| d.name()).collect();
    let limit = format!("{} with {dims} dimensions, inside the file", names.join(" or "));
    let bad = || OutputsError::Tensor {
        path: path.to_owned(),
        name,
        limit: limit.clone(),
        actual: entry.to_string(),
    };
    let dtype = entry.get("dtype").and_then(Value::as_str).and_then(DType::from_name);
    let dtype = dtype.filter(|dtype| dtypes.contains(dtype)).ok_or_else(bad)?;
    let numbers =
        |key: &str| -> Option<Vec<u64>> { entry.get(key)?.as_array()?.iter().map(Value::as_u64).collect() };
    let shape =
        numbers("shape").filter(|shape| shape.len() == dims && !shape.contains(&0)).ok_or_else(bad)?;
    let range = numbers("data_offsets").filter(|range| range.len() == 2).ok_or_else(bad)?;
    let bytes =
        shape.iter().try_fold(dtype.size() as u64, |bytes, &n| bytes.checked_mul(n)).ok_or_else(bad)?;
    if range[0].checked_add(bytes) != Some(range[1]) || range[1] > data {
        return Err(bad());
    }
    Ok(Tensor { dtype, shape, offset: range[0] })
}

/// Writes a model's outputs as such a file, f32, row by row; the file appears only when it is complete.
#[derive(Debug)]
pub struct OutputsWriter {
    path: PathBuf,
    partial: PathBuf,
    file: std::io::BufWriter<File>,
}

impl OutputsWriter {
    /// Begins the file with its token numbers; logits follow position by position.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(path: &Path, rows: &[Vec<u32>], vocab: usize) -> Result<OutputsWriter, OutputsError> {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        let partial = PathBuf::from(name);
        let positions = rows.first().map_or(0, Vec::len);
        let ids = rows.len() * positions * 8;
        let end = ids + rows.len() * positions * vocab * 4;
        let mut header = serde_json::json!({
            "input_ids": {"dtype": "I64", "shape": [rows.len(), positions], "data_offsets": [0, ids]},
            "logits": {"dtype": "F32", "shape": [rows.len(), positions, vocab], "data_offsets": [ids, end]},
        })
        .to_string();
        header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
        let begin = || -> std::io::Result<std::io::BufWriter<File>> {
            let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(&partial)?);
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            for token in rows.iter().flatten() {
                file.write_all(&i64::from(*token).to_le_bytes())?;
            }
            Ok(file)
        };
        let file = begin().map_err(|source| OutputsError::Io { path: path.to_owned(), source })?;
        Ok(OutputsWriter { path: path.to_owned(), partial, file })
    }

    /// Adds logits of the next positions.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn append(&mut self, logits: &[f32]) -> Result<(), OutputsError> {
        let bytes: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.file.write_all(&bytes).map_err(|source| OutputsError::Io { path: self.path.clone(), source })
    }

    /// Gives the file its name.
    ///
    /// # Errors
    /// When it cannot be synced or renamed.
    pub fn finish(mut self) -> Result<(), OutputsError> {
        let sync = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        let named = sync.and_then(|()| std::fs::rename(&self.partial, &self.path));
        named.map_err(|source| OutputsError::Io { path: self.path, source })
    }
}
