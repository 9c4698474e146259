//! The header of one file: `u64` length, JSON, then tensor bytes without gaps or overlaps.
//!
//! The `safetensors` crate's parser keeps the last of two tensors of one name and reports gaps and overlaps alike;
//! this one names the tensor and the offsets. A test holds both to the same verdict on valid and broken headers.

use crate::limits;
use gq_files::{Escaped, Sentence};
use gq_tensor::DType;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Bytes of the length in front of the header.
const LENGTH_BYTES: u64 = 8;

/// What a header says, validated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Tensors in the order of their bytes.
    pub entries: Vec<HeaderEntry>,
}

/// One tensor of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderEntry {
    /// Name in the file.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// First byte, counted from the beginning of the file.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A header that breaks a rule of the format or a cap.
#[derive(Debug, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than the header's length.
    #[error("{actual} bytes, a weight file has at least 8")]
    TooShort {
        /// Length of the file.
        actual: u64,
    },
    /// Header beyond the cap.
    #[error("header of {actual} bytes, at most {limit} are allowed")]
    TooLong {
        /// Length that the file states.
        actual: u64,
        /// Cap.
        limit: u64,
    },
    /// Header beyond the end of the file.
    #[error("header of {header} bytes in a file of {file} bytes")]
    BeyondFile {
        /// Length that the file states.
        header: u64,
        /// Length of the file.
        file: u64,
    },
    /// Header that does not begin with a brace.
    #[error("header begins with byte {actual:#04x}, expected 0x7b (an opening brace)")]
    NotAnObject {
        /// First byte.
        actual: u8,
    },
    /// Header that is not JSON of the right form.
    #[error("header is not valid: {}", Sentence(.source))]
    Json {
        /// What the parser says, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// More tensors than the cap.
    #[error("{actual} tensors, at most {limit} are allowed")]
    TooManyTensors {
        /// Tensors.
        actual: usize,
        /// Cap.
        limit: usize,
    },
    /// Name that is empty or too long.
    #[error("tensor name {} has {actual} bytes, allowed are 1 to {limit}", Escaped(.name))]
    NameLength {
        /// Name.
        name: String,
        /// Its length in bytes.
        actual: usize,
        /// Cap.
        limit: usize,
    },
    /// One name twice.
    #[error("tensor {} appears twice", Escaped(.name))]
    Duplicate {
        /// Tensor.
        name: String,
    },
    /// Element type that is not known.
    #[error("tensor {} has dtype {}, which is not supported", Escaped(.name), Escaped(.dtype))]
    UnknownDType {
        /// Tensor.
        name: String,
        /// Its dtype.
        dtype: String,
    },
    /// Dimensions whose product does not fit.
    #[error("tensor {} has shape {shape:?}, whose bytes overflow", Escaped(.name))]
    Overflow {
        /// Tensor.
        name: String,
        /// Its shape.
        shape: Vec<u64>,
    },
    /// Offsets that contradict shape and dtype.
    #[error("tensor {} has offsets {begin}..{end}, shape and dtype call for {expected} bytes", Escaped(.name))]
    WrongLength {
        /// Tensor.
        name: String,
        /// First byte.
        begin: u64,
        /// End.
        end: u64,
        /// Bytes that shape and dtype call for.
        expected: u64,
    },
    /// Two tensors that share bytes.
    #[error("tensor {} begins at byte {begin}, tensor {} ends at {end}", Escaped(.name), Escaped(.before))]
    Overlap {
        /// Tensor.
        name: String,
        /// Its first byte.
        begin: u64,
        /// Tensor before it.
        before: String,
        /// That one's end.
        end: u64,
    },
    /// Bytes that belong to no tensor.
    #[error("bytes {begin}..{end} before tensor {} belong to no tensor", Escaped(.name))]
    Gap {
        /// Tensor.
        name: String,
        /// First byte of the gap.
        begin: u64,
        /// Its end.
        end: u64,
    },
    /// Data shorter than the tensors: a truncated file.
    #[error("tensor {} ends at byte {end} of the data, which has {data}", Escaped(.name))]
    Truncated {
        /// Tensor.
        name: String,
        /// Its end.
        end: u64,
        /// Bytes after the header.
        data: u64,
    },
    /// Data longer than the tensors.
    #[error("{actual} bytes follow the last tensor")]
    Trailing {
        /// Bytes that belong to no tensor.
        actual: u64,
    },
}

/// Length of the whole head (length and JSON) of a file of `file_bytes` that begins with `start`.
///
/// # Errors
/// When the stated length is beyond the file or the cap; nothing of that length has been allocated then.
pub fn header_bytes(start: &[u8], file_bytes: u64) -> Result<u64, HeaderError> {
    let length = start.first_chunk::<8>().filter(|_| file_bytes >= LENGTH_BYTES);
    let header = u64::from_le_bytes(*length.ok_or(HeaderError::TooShort { actual: file_bytes })?);
    if header > file_bytes - LENGTH_BYTES {
        return Err(HeaderError::BeyondFile { header, file: file_bytes });
    }
    if header > limits::HEADER_BYTES {
        return Err(HeaderError::TooLong { actual: header, limit: limits::HEADER_BYTES });
    }
    Ok(LENGTH_BYTES + header)
}

/// Parses and validates the head of a file: `head` holds at least the length and the JSON behind it.
///
/// # Errors
/// When a rule is broken: see [`HeaderError`].
pub fn parse_header(head: &[u8], file_bytes: u64) -> Result<Header, HeaderError> {
    let length = header_bytes(head, file_bytes)?;
    let json = usize::try_from(length).ok().and_then(|length| head.get(LENGTH_BYTES as usize..length));
    let json =
        json.ok_or(HeaderError::BeyondFile { header: length - LENGTH_BYTES, file: head.len() as u64 })?;
    match json.first() {
        Some(b'{') => {}
        first => return Err(HeaderError::NotAnObject { actual: first.copied().unwrap_or(0) }),
    }
    let raw: RawHeader = serde_json::from_slice(json).map_err(|source| HeaderError::Json { source })?;
    if raw.0.len() > limits::TENSORS {
        return Err(HeaderError::TooManyTensors { actual: raw.0.len(), limit: limits::TENSORS });
    }
    let entries = raw.0.into_iter().map(|entry| entry.check(length)).collect::<Result<Vec<_>, _>>()?;
    lay_out(entries, file_bytes - length, length)
}

/// Sorts by offset and checks that names are unique and that the data are covered once.
fn lay_out(mut entries: Vec<HeaderEntry>, data_bytes: u64, data_start: u64) -> Result<Header, HeaderError> {
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    names.sort_unstable();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(HeaderError::Duplicate { name: pair[0].to_owned() });
    }
    entries.sort_by_key(|entry| (entry.offset, entry.bytes));
    let mut covered = 0;
    let mut before = "";
    for entry in &entries {
        let begin = entry.offset - data_start;
        let end = begin + entry.bytes;
        let name = || entry.name.clone();
        if begin < covered {
            return Err(HeaderError::Overlap {
                name: name(),
                begin,
                before: before.to_owned(),
                end: covered,
            });
        }
        if begin > covered {
            return Err(HeaderError::Gap { name: name(), begin: covered, end: begin });
        }
        if end > data_bytes {
            return Err(HeaderError::Truncated { name: name(), end, data: data_bytes });
        }
        (covered, before) = (end, &entry.name);
    }
    match data_bytes - covered {
        0 => Ok(Header { entries }),
        actual => Err(HeaderError::Trailing { actual }),
    }
}

/// Entries in file order, unchecked.
struct RawHeader(Vec<RawEntry>);

struct RawEntry {
    name: String,
    info: RawInfo,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawInfo {
    dtype: String,
    shape: RawShape,
    data_offsets: [u64; 2],
}

struct RawShape(Vec<u64>);

impl RawEntry {
    fn check(self, data_start: u64) -> Result<HeaderEntry, HeaderError> {
        let RawEntry { name, info: RawInfo { dtype, shape: RawShape(shape), data_offsets: [begin, end] } } =
            self;
        if name.is_empty() || name.len() > limits::NAME_BYTES {
            return Err(HeaderError::NameLength { actual: name.len(), name, limit: limits::NAME_BYTES });
        }
        let Some(dtype) = DType::from_name(&dtype) else {
            return Err(HeaderError::UnknownDType { name, dtype });
        };
        let size = dtype.size() as u64;
        let expected = shape.iter().try_fold(size, |bytes, &dim| bytes.checked_mul(dim));
        let dims = shape.iter().map(|&dim| usize::try_from(dim)).collect::<Result<Vec<_>, _>>();
        let (Some(expected), Ok(dims)) = (expected, dims) else {
            return Err(HeaderError::Overflow { name, shape });
        };
        let offset = begin.checked_add(data_start).filter(|_| end.checked_add(data_start).is_some());
        match (end.checked_sub(begin), offset) {
            (Some(bytes), Some(offset)) if bytes == expected => {
                Ok(HeaderEntry { name, dtype, shape: dims, offset, bytes })
            }
            _ => Err(HeaderError::WrongLength { name, begin, end, expected }),
        }
    }
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut entries = Vec::new();
                let mut metadata = 0;
                while let Some(name) = map.next_key::<String>()? {
                    if name == "__metadata__" {
                        map.next_value::<Texts>()?;
                        metadata += 1;
                        continue;
                    }
                    entries.push(RawEntry { name, info: map.next_value()? });
                }
                match metadata {
                    0 | 1 => Ok(RawHeader(entries)),
                    _ => Err(A::Error::custom("__metadata__ appears twice")),
                }
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// `__metadata__`: strings to strings, not kept.
struct Texts;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                while map.next_entry::<IgnoredAny, String>()?.is_some() {}
                Ok(Texts)
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

impl<'de> Deserialize<'de> for RawShape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dims;
        impl<'de> Visitor<'de> for Dims {
            type Value = RawShape;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {} dimensions", limits::RANK)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<RawShape, A::Error> {
                let mut dims = Vec::new();
                while let Some(dim) = items.next_element()? {
                    if dims.len() == limits::RANK {
                        return Err(A::Error::invalid_length(limits::RANK + 1, &self));
                    }
                    dims.push(dim);
                }
                Ok(RawShape(dims))
            }
        }
        deserializer.deserialize_seq(Dims)
    }
}
