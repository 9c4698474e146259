//! Files of reference outputs: safetensors with `input_ids` i64 `[n, t]` and `logits` `[n, t, vocab]`.

use gq_checkpoint::safetensors::{Header, HeaderEntry, HeaderError, header_bytes, parse_header};
use gq_files::Stamp;
use gq_tensor::DType;
use half::{bf16, f16};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Element types of logits.
const LOGIT_DTYPES: [DType; 4] = [DType::F64, DType::F32, DType::F16, DType::BF16];

/// A file of reference outputs that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum OutputsError {
    /// The operating system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a whole safetensors file.
    #[error("{}: not a whole safetensors file: {source}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// Which rule is broken.
        source: HeaderError,
    },
    /// One of the two tensors is not there.
    #[error("{}: there is no tensor {name:?}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What is missing.
        name: &'static str,
    },
    /// A tensor of another element type.
    #[error("{}: {name} has dtype {actual}, expected {limit}", path.display())]
    DType {
        /// The file.
        path: PathBuf,
        /// `input_ids` or `logits`.
        name: &'static str,
        /// Element types that can be read.
        limit: String,
        /// That of the file.
        actual: DType,
    },
    /// A tensor with another number of dimensions, or an empty one.
    #[error("{}: {name} has shape {actual:?}, expected {limit} with no dimension 0", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// `input_ids` or `logits`.
        name: &'static str,
        /// What the dimensions are.
        limit: &'static str,
        /// Those of the file.
        actual: Vec<usize>,
    },
    /// Token numbers and logits of other rows or positions.
    #[error("{}: logits have shape {actual:?}, input_ids {limit:?}", path.display())]
    ShapesDiffer {
        /// The file.
        path: PathBuf,
        /// Shape of the token numbers.
        limit: Vec<usize>,
        /// Shape of the logits.
        actual: Vec<usize>,
    },
    /// A token beyond the vocabulary.
    #[error("{}: input_ids[{row}, {col}] is {actual}, the vocabulary has {limit} tokens", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Which row.
        row: usize,
        /// Which position.
        col: usize,
        /// Entries of the vocabulary.
        limit: usize,
        /// The token.
        actual: i64,
    },
    /// A logit that is infinite or not a number.
    #[error("{}: logits[{row}, {col}, {index}] is {actual}, which is not finite", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Which row.
        row: usize,
        /// Which position.
        col: usize,
        /// Which entry of the vocabulary.
        index: usize,
        /// The value.
        actual: f64,
    },
    /// The file was changed while it was read.
    #[error("{}: changed while it was read: its {what} was {limit} and is {actual}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What it was.
        limit: String,
        /// What it is.
        actual: String,
    },
    /// Fewer or more logits written than the header of the file says.
    #[error("{}: {actual} logits were written, {limit} were announced", path.display())]
    Written {
        /// The file.
        path: PathBuf,
        /// Logits announced.
        limit: usize,
        /// Logits written.
        actual: usize,
    },
}

/// An open file of reference outputs; logits are read position by position.
#[derive(Debug)]
pub struct OutputsReader {
    path: PathBuf,
    file: File,
    stamp: Stamp,
    ids: Vec<Vec<u32>>,
    positions: usize,
    vocab: usize,
    dtype: DType,
    /// First byte of the logits.
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
        let stamp = Stamp::of(&file.metadata().map_err(io)?);
        let header = read_header(path, &mut file)?;
        let ids = tensor(path, &header, "input_ids", &[DType::I64], "[n, t]", 2)?;
        let logits = tensor(path, &header, "logits", &LOGIT_DTYPES, "[n, t, vocab]", 3)?;
        if logits.shape[..2] != ids.shape[..] {
            let (limit, actual) = (ids.shape.clone(), logits.shape.clone());
            return Err(OutputsError::ShapesDiffer { path: path.to_owned(), limit, actual });
        }
        let (positions, vocab) = (ids.shape[1], logits.shape[2]);
        // No more than the file holds: the header was checked against its length.
        let mut bytes = vec![0; ids.bytes as usize];
        file.read_exact_at(&mut bytes, ids.offset).map_err(io)?;
        let mut rows = Vec::with_capacity(ids.shape[0]);
        for (row, bytes) in bytes.chunks_exact(positions * 8).enumerate() {
            let number = |(col, bytes): (usize, &[u8; 8])| {
                let actual = i64::from_le_bytes(*bytes);
                let token = u32::try_from(actual).ok().filter(|&token| (token as usize) < vocab);
                let path = || path.to_owned();
                token.ok_or_else(|| OutputsError::Token { path: path(), row, col, limit: vocab, actual })
            };
            rows.push(bytes.as_chunks().0.iter().enumerate().map(number).collect::<Result<Vec<_>, _>>()?);
        }
        let (dtype, logits) = (logits.dtype, logits.offset);
        let path = path.to_owned();
        Ok(OutputsReader { path, file, stamp, ids: rows, positions, vocab, dtype, logits })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Token numbers, one list per row.
    pub fn input_ids(&self) -> &[Vec<u32>] {
        &self.ids
    }

    /// Entries of a row of logits.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Element type of the logits.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Logits `[vocab]` at one position, as they are.
    ///
    /// # Errors
    /// When the file cannot be read or holds a value that is not finite.
    pub fn logits(&self, row: usize, col: usize) -> Result<Vec<f64>, OutputsError> {
        let position_bytes = self.vocab * self.dtype.size();
        let mut bytes = vec![0; position_bytes];
        let at = self.logits + (row * self.positions + col) as u64 * position_bytes as u64;
        let read = self.file.read_exact_at(&mut bytes, at);
        read.map_err(|source| OutputsError::Io { path: self.path.clone(), source })?;
        let values = decode(self.dtype, &bytes);
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(index) => {
                let (path, actual) = (self.path.clone(), values[index]);
                Err(OutputsError::NotFinite { path, row, col, index, actual })
            }
        }
    }
}

impl OutputsReader {
    /// Checks that the file is what it was when it was opened, whatever has its name.
    ///
    /// # Errors
    /// [`OutputsError::Changed`], and when the file cannot be looked at.
    pub fn check_unchanged(&self) -> Result<(), OutputsError> {
        let path = || self.path.clone();
        let found = self.stamp.compare_open(&self.file);
        match found.map_err(|source| OutputsError::Io { path: path(), source })? {
            Some(change) => Err(OutputsError::Changed {
                path: path(),
                what: change.what,
                limit: change.was,
                actual: change.is,
            }),
            None => Ok(()),
        }
    }
}

fn read_header(path: &Path, file: &mut File) -> Result<Header, OutputsError> {
    let io = |source| OutputsError::Io { path: path.to_owned(), source };
    let broken = |source| OutputsError::Header { path: path.to_owned(), source };
    let file_bytes = file.metadata().map_err(io)?.len();
    let mut head = vec![0; file_bytes.min(8) as usize];
    file.read_exact(&mut head).map_err(io)?;
    let length = header_bytes(&head, file_bytes).map_err(broken)?;
    head.resize(length as usize, 0);
    file.read_exact_at(&mut head, 0).map_err(io)?;
    parse_header(&head, file_bytes).map_err(broken)
}

/// The tensor of this name, if it is of one of these types and has `rank` dimensions, which `limit` names.
fn tensor<'a>(
    path: &Path,
    header: &'a Header,
    name: &'static str,
    dtypes: &[DType],
    limit: &'static str,
    rank: usize,
) -> Result<&'a HeaderEntry, OutputsError> {
    let path = || path.to_owned();
    let entry = header.entries.iter().find(|entry| entry.name == name);
    let entry = entry.ok_or_else(|| OutputsError::Missing { path: path(), name })?;
    if !dtypes.contains(&entry.dtype) {
        let limit = dtypes.iter().map(|dtype| dtype.name()).collect::<Vec<_>>().join(", ");
        return Err(OutputsError::DType { path: path(), name, limit, actual: entry.dtype });
    }
    match entry.shape.len() == rank && !entry.shape.contains(&0) {
        true => Ok(entry),
        false => Err(OutputsError::Shape { path: path(), name, limit, actual: entry.shape.clone() }),
    }
}

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    match dtype {
        DType::F64 => each(bytes, f64::from_le_bytes),
        DType::F32 => each(bytes, |b: [u8; 4]| f64::from(f32::from_le_bytes(b))),
        DType::F16 => each(bytes, |b: [u8; 2]| f16::from_le_bytes(b).to_f64()),
        DType::BF16 => each(bytes, |b: [u8; 2]| bf16::from_le_bytes(b).to_f64()),
        // The others were refused when the file was opened.
        DType::F8E4M3
        | DType::F8E5M2
        | DType::I64
        | DType::I32
        | DType::I16
        | DType::I8
        | DType::U8
        | DType::Bool => Vec::new(),
    }
}

fn each<const N: usize>(bytes: &[u8], convert: impl Fn([u8; N]) -> f64) -> Vec<f64> {
    bytes.as_chunks().0.iter().map(|element| convert(*element)).collect()
}
