//! An open GGUF, in one file or split into several: facts, and positioned reads.

use super::header::{Header, Metadata, TensorInfo};
use super::{GgmlType, GgufError, limits};
use crate::read_at::read_exact_at;
use crate::{FileKind, SourceFile, Stamp, StandIn};
use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// An open GGUF; no weights are in memory. Any number of threads may read.
#[derive(Debug)]
pub struct Gguf {
    parts: Vec<Part>,
    metadata: Metadata,
    tensors: Vec<GgufTensor>,
    by_name: HashMap<String, usize>,
}

/// One file.
#[derive(Debug)]
struct Part {
    path: PathBuf,
    bytes: u64,
    stamp: Stamp,
    file: File,
}

/// A tensor and the file it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GgufTensor {
    /// Name, shape, type, place.
    pub info: TensorInfo,
    /// Index of the file.
    pub part: usize,
}

/// Bytes read at once.
const CHUNK_BYTES: usize = 1 << 18;

impl Gguf {
    /// Opens a file; of a split, any one of its files stands for all of them.
    ///
    /// # Errors
    /// When a file cannot be read, breaks a rule of the format, or does not belong to the split.
    pub fn open(path: impl AsRef<Path>) -> Result<Gguf, GgufError> {
        let path = path.as_ref();
        let (part, header) = open_part(path, None)?;
        let count = split_count(&header, path)?;
        let mut opened = Vec::new();
        if count > 1 {
            for index in 0..count {
                let path = split_path(path, index, count)?;
                let first = opened.first().map(|(_, header): &(Part, Header)| header.alignment);
                let (part, header) = open_part(&path, first)?;
                check_split(&header, &path, index, count)?;
                opened.push((part, header));
            }
            check_total(&opened)?;
        } else {
            opened.push((part, header));
        }
        let mut gguf = Gguf {
            parts: Vec::new(),
            metadata: Metadata::default(),
            tensors: Vec::new(),
            by_name: HashMap::new(),
        };
        for (index, (part, header)) in opened.into_iter().enumerate() {
            for info in header.tensors {
                if gguf.by_name.insert(info.name.clone(), gguf.tensors.len()).is_some() {
                    return Err(GgufError::DuplicateTensor { name: info.name });
                }
                gguf.tensors.push(GgufTensor { info, part: index });
            }
            if index == 0 {
                gguf.metadata = header.metadata;
            }
            gguf.parts.push(part);
        }
        Ok(gguf)
    }

    /// Metadata of the (first) file.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// All tensors, file by file.
    pub fn tensors(&self) -> &[GgufTensor] {
        &self.tensors
    }

    /// The tensor with this name.
    pub fn tensor(&self, name: &str) -> Option<&GgufTensor> {
        self.by_name.get(name).and_then(|&index| self.tensors.get(index))
    }

    /// Paths and lengths of the files.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.parts.iter().map(|part| (part.path.as_path(), part.bytes))
    }

    /// The files themselves, in order.
    pub(crate) fn into_files(self) -> impl Iterator<Item = (SourceFile, File)> {
        self.parts.into_iter().map(|Part { path, bytes, stamp, file }| {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            (SourceFile { name, path, bytes, kind: FileKind::Weights, stamp }, file)
        })
    }

    /// The name of the type that most weights are of, for provenance; `None` without tensors.
    pub fn main_type(&self) -> Option<GgmlType> {
        let mut bytes: HashMap<GgmlType, u64> = HashMap::new();
        for tensor in self.tensors.iter().filter(|tensor| tensor.info.shape.len() > 1) {
            *bytes.entry(tensor.info.kind).or_default() += tensor.info.bytes;
        }
        bytes.into_iter().max_by_key(|&(kind, bytes)| (bytes, kind.code())).map(|(kind, _)| kind)
    }

    /// Reads rows as f32 into `out`, `[rows.len(), cols]`, as they stand in the file.
    ///
    /// # Errors
    /// When rows are out of range, `out` has another length, the type cannot be decoded, or the disk fails.
    pub fn read_rows_f32(
        &self,
        tensor: &GgufTensor,
        rows: Range<usize>,
        out: &mut [f32],
    ) -> Result<(), GgufError> {
        let info = &tensor.info;
        let cols = info.cols();
        let row_bytes = info.kind.row_bytes(cols).unwrap_or(0);
        let bad = |requested: String, actual: usize| GgufError::OutOfRange {
            name: info.name.clone(),
            requested,
            actual: actual as u64,
        };
        if rows.start > rows.end || rows.end > info.rows() {
            return Err(bad(format!("rows {}..{}", rows.start, rows.end), info.rows()));
        }
        if out.len() != rows.len() * cols {
            return Err(bad(format!("a buffer of {}", out.len()), rows.len() * cols));
        }
        if !gq_tensor::ggml::is_decodable(info.kind) {
            return Err(GgufError::UndecodableType { name: info.name.clone(), kind: info.kind.name() });
        }
        let step = (CHUNK_BYTES / row_bytes.max(1)).max(1);
        let mut buffer = vec![0; step.min(rows.len()) * row_bytes];
        for (first, part) in (rows.start..rows.end).step_by(step).zip(out.chunks_mut((step * cols).max(1))) {
            let bytes = &mut buffer[..part.len() / cols * row_bytes];
            self.read_bytes(tensor, first as u64 * row_bytes as u64, bytes)?;
            gq_tensor::ggml::decode_blocks(info.kind, bytes, part);
        }
        Ok(())
    }

    /// Reads bytes of a tensor from `offset` on, as they stand in the file.
    ///
    /// # Errors
    /// When they are not all the tensor's, or the disk fails.
    pub fn read_bytes(&self, tensor: &GgufTensor, offset: u64, out: &mut [u8]) -> Result<(), GgufError> {
        let info = &tensor.info;
        let end = offset.checked_add(out.len() as u64);
        let part = self.parts.get(tensor.part).filter(|_| end.is_some_and(|end| end <= info.bytes));
        let Some(part) = part else {
            let requested = format!("{} bytes from {offset} on", out.len());
            return Err(GgufError::OutOfRange { name: info.name.clone(), requested, actual: info.bytes });
        };
        read_exact_at(&part.file, out, info.offset + offset)
            .map_err(|source| GgufError::Io { path: part.path.clone(), source })
    }
}

/// `first` is the alignment that the first file of a split says.
fn open_part(path: &Path, first: Option<u64>) -> Result<(Part, Header), GgufError> {
    let failed = |source| GgufError::Io { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let (bytes, stamp) = (metadata.len(), Stamp::of(&metadata));
    if let Some(what) = StandIn::of_file(path).map_err(failed)? {
        return Err(GgufError::StandIn { path: path.to_owned(), what });
    }
    let header = Header::read_part(&mut BufReader::with_capacity(1 << 16, &file), bytes, first)?;
    Ok((Part { path: path.to_owned(), bytes, stamp, file }, header))
}

fn split_number(header: &Header, key: &str) -> Option<u64> {
    header.metadata.get(key).and_then(super::Value::as_u64)
}

fn split_count(header: &Header, path: &Path) -> Result<u64, GgufError> {
    match split_number(header, "split.count") {
        None => Ok(1),
        Some(count) if count <= limits::SPLITS => Ok(count),
        Some(_) => Err(GgufError::Split { path: path.to_owned(), fault: "split.count is beyond 4096" }),
    }
}

/// `name-00002-of-00005.gguf` next to any other of its kind.
fn split_path(path: &Path, index: u64, count: u64) -> Result<PathBuf, GgufError> {
    let name = path.file_name().and_then(|name| name.to_str());
    let stem = name.and_then(|name| {
        let stem = name.strip_suffix(&format!("-of-{count:05}.gguf"))?;
        let (stem, number) = stem.rsplit_once('-')?;
        (number.len() == 5 && number.bytes().all(|b| b.is_ascii_digit())).then_some(stem)
    });
    match stem {
        Some(stem) => Ok(path.with_file_name(format!("{stem}-{:05}-of-{count:05}.gguf", index + 1))),
        None => Err(GgufError::Split {
            path: path.to_owned(),
            fault: "part of a split, but not named NAME-00001-of-0000N.gguf",
        }),
    }
}

fn check_split(header: &Header, path: &Path, index: u64, count: u64) -> Result<(), GgufError> {
    let fault = |fault| Err(GgufError::Split { path: path.to_owned(), fault });
    if split_number(header, "split.count") != Some(count) {
        return fault("its split.count is not that of the others");
    }
    if split_number(header, "split.no") != Some(index) {
        return fault("its split.no is not that of its name");
    }
    Ok(())
}

fn check_total(opened: &[(Part, Header)]) -> Result<(), GgufError> {
    let total: usize = opened.iter().map(|(_, header)| header.tensors.len()).sum();
    match opened.first() {
        Some((part, first))
            if split_number(first, "split.tensors.count").is_some_and(|n| n != total as u64) =>
        {
            Err(GgufError::Split {
                path: part.path.clone(),
                fault: "the files have another number of tensors",
            })
        }
        _ => Ok(()),
    }
}
