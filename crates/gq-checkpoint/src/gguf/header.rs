//! The header of one file: pure, from bytes to metadata and tensor places, every length checked before use.

use super::bytes::Reader;
use super::value::Value;
use super::{GgmlType, GgufError, limits};
use std::collections::HashMap;
use std::io::Read;

/// Metadata in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    by_key: HashMap<String, usize>,
}

impl Metadata {
    /// Key and value, in file order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.by_key.get(key).and_then(|&index| self.entries.get(index)).map(|entry| &entry.1)
    }

    /// Sets a key; a new one goes to the end.
    pub fn set(&mut self, key: &str, value: Value) {
        match self.by_key.get(key).and_then(|&index| self.entries.get_mut(index)) {
            Some(entry) => entry.1 = value,
            None => {
                self.by_key.insert(key.to_owned(), self.entries.len());
                self.entries.push((key.to_owned(), value));
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Where a tensor is in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, as stored.
    pub name: String,
    /// Dimensions, outermost first (the file has them the other way round).
    pub shape: Vec<usize>,
    /// Element type.
    pub kind: GgmlType,
    /// First byte, from the beginning of the file.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

impl TensorInfo {
    /// Elements of a row.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// All dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, leading)| leading.iter().product())
    }
}

/// What a header says.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// Metadata.
    pub metadata: Metadata,
    /// Tensors, in file order.
    pub tensors: Vec<TensorInfo>,
    /// Offsets are multiples of it.
    pub alignment: u64,
    /// First byte after the padded header.
    pub data_start: u64,
}

impl Header {
    /// Reads and validates the header of a file of `file_bytes` bytes.
    ///
    /// # Errors
    /// The first broken rule. Memory stays within a small multiple of the bytes that are there.
    pub fn read(source: &mut dyn Read, file_bytes: u64) -> Result<Header, GgufError> {
        Header::read_part(source, file_bytes, None)
    }

    /// The same for a later file of a split, whose first file says the alignment `first`.
    ///
    /// gguf-py writes that key into the first file only and aligns all of them by it; llama.cpp's splitter aligns later
    /// files by 32. The length of the file tells which.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn read_part(
        source: &mut dyn Read,
        file_bytes: u64,
        first: Option<u64>,
    ) -> Result<Header, GgufError> {
        let mut reader = Reader { source, at: 0, end: file_bytes };
        let magic: [u8; 4] = reader.number(|bytes: [u8; 4]| bytes)?;
        if magic != *b"GGUF" {
            return Err(GgufError::Magic { actual: magic });
        }
        let version = reader.number(u32::from_le_bytes)?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version { actual: version });
        }
        let tensor_count = reader.count("tensors", limits::TENSORS)?;
        let entry_count = reader.count("metadata entries", limits::ENTRIES)?;
        let mut metadata = Metadata::default();
        for _ in 0..entry_count {
            let key = reader.string(limits::KEY_BYTES)?;
            let code = reader.number(u32::from_le_bytes)?;
            let value = Value::read(&mut reader, code)?;
            if metadata.get(&key).is_some() {
                return Err(GgufError::DuplicateKey { key });
            }
            metadata.set(&key, value);
        }
        let own = alignment(&metadata)?;
        let mut tensors = Vec::new();
        for _ in 0..tensor_count {
            tensors.push(read_tensor(&mut reader)?);
        }
        let fits = |alignment: u64| {
            let ends = tensors.iter().filter_map(|tensor| tensor.offset.checked_add(tensor.bytes));
            let end = ends.max().and_then(|end| end.checked_add(reader.at.next_multiple_of(alignment)));
            end.and_then(|end| file_bytes.checked_sub(end)).is_some_and(|rest| rest < alignment)
        };
        let inherited = first.unwrap_or(DEFAULT_ALIGNMENT);
        let by_length =
            if fits(inherited) || !fits(DEFAULT_ALIGNMENT) { inherited } else { DEFAULT_ALIGNMENT };
        let alignment = own.unwrap_or(by_length);
        let data_start = reader.at.next_multiple_of(alignment);
        place(&mut tensors, data_start, alignment, file_bytes)?;
        Ok(Header { version, metadata, tensors, alignment, data_start })
    }
}

/// Offsets are its multiples where a file does not say.
const DEFAULT_ALIGNMENT: u64 = 32;

fn alignment(metadata: &Metadata) -> Result<Option<u64>, GgufError> {
    let key = "general.alignment";
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let wrong = || GgufError::KeyType { key: key.to_owned(), actual: value.kind(), expected: "an integer" };
    let actual = value.as_u64().ok_or_else(wrong)?;
    if actual.is_power_of_two() && actual <= limits::ALIGNMENT {
        Ok(Some(actual))
    } else {
        Err(GgufError::Alignment { actual, limit: limits::ALIGNMENT })
    }
}

/// A tensor whose `offset` is still counted from the beginning of the data.
fn read_tensor(reader: &mut Reader<'_>) -> Result<TensorInfo, GgufError> {
    let name = reader.string(limits::NAME_BYTES)?;
    let count = reader.number(u32::from_le_bytes)?;
    if count > limits::DIMS {
        let (actual, limit) = (count.into(), limits::DIMS.into());
        return Err(GgufError::Count { what: "dimensions", actual, limit });
    }
    let dims = reader.numbers(count.into(), u64::from_le_bytes)?;
    let code = reader.number(u32::from_le_bytes)?;
    let offset = reader.number(u64::from_le_bytes)?;
    let kind = match GgmlType::from_code(code) {
        Some(kind) => kind,
        None => return Err(GgufError::UnknownType { name, actual: code }),
    };
    let bad = || GgufError::Dims { name: name.clone(), dims: dims.clone() };
    let cols = dims.first().copied().unwrap_or(1);
    let elements = dims.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim));
    let elements = elements.filter(|&n| n > 0 && n <= 1 << 48).ok_or_else(bad)?;
    let shape: Option<Vec<usize>> = dims.iter().rev().map(|&dim| usize::try_from(dim).ok()).collect();
    let shape = shape.ok_or_else(bad)?;
    let block = kind.block_len();
    if cols % block as u64 != 0 {
        return Err(GgufError::RowLen { name, kind: kind.name(), cols, block });
    }
    let bytes = (elements / block as u64).checked_mul(kind.block_bytes() as u64).ok_or_else(bad)?;
    Ok(TensorInfo { name, shape, kind, offset, bytes })
}

/// Makes offsets absolute; refuses overlaps, and bytes outside of the file.
fn place(
    tensors: &mut [TensorInfo],
    data_start: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<(), GgufError> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| tensors[i].offset);
    let mut end = 0;
    for &index in &order {
        let tensor = &mut tensors[index];
        let fault = |fault| GgufError::Place {
            name: tensor.name.clone(),
            offset: tensor.offset,
            bytes: tensor.bytes,
            fault,
        };
        if !tensor.offset.is_multiple_of(alignment) {
            return Err(fault("the offset is not aligned"));
        }
        if tensor.offset < end {
            return Err(fault("it overlaps the tensor before it"));
        }
        let last = tensor.offset.checked_add(tensor.bytes).and_then(|end| end.checked_add(data_start));
        if last.is_none_or(|last| last > file_bytes) {
            return Err(fault("it ends after the file"));
        }
        end = tensor.offset + tensor.bytes;
        tensor.offset += data_start;
    }
    let mut seen = std::collections::HashSet::new();
    match tensors.iter().find(|tensor| !seen.insert(tensor.name.as_str())) {
        Some(tensor) => Err(GgufError::DuplicateTensor { name: tensor.name.clone() }),
        None => Ok(()),
    }
}
