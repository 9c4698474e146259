//! The one reader of foreign bytes: every rule of `formats/container.md`, in its order.

use crate::digest::Hasher;
use crate::entry::{FIXED_BYTES, TensorEntry, payload_digest};
use crate::header::Header;
use crate::layout::{ALIGNMENT, HEADER_BYTES, TEXT_ENTRY_BYTES, align, slice};
use crate::limits;
use crate::provenance::Provenance;
use crate::rule::{FormatError, TensorRule, TextRule};
use crate::text::TextEntry;
use crate::text_kind::TextKind;

/// What a valid file holds, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    header: Header,
    tensors: Vec<TensorEntry>,
    texts: Vec<TextEntry>,
    by_name: Vec<u32>,
}

/// Checks a whole file but the payloads' own digests, which [`Layout::verify`] recomputes.
///
/// Allocates in proportion to the entries that are really there, never to what a length claims.
///
/// # Errors
/// The first rule that is broken.
pub fn validate(file: &[u8]) -> Result<Layout, FormatError> {
    let actual = file.len() as u64;
    let Some((head, _)) = file.split_first_chunk::<HEADER_BYTES>() else {
        return Err(FormatError::TooShort { limit: HEADER_BYTES as u64, actual });
    };
    let header = Header::from_bytes(head)?;
    if header.file_bytes != actual {
        return Err(FormatError::FileBytes { limit: header.file_bytes, actual });
    }
    let (table, rest) = split_tail(file, &header)?;
    let tensors = read_tensors(table, &header)?;
    let by_name = sort_names(&tensors)?;
    check_padding(file, &tensors)?;
    let actual = payload_digest(&tensors);
    if header.payload_sha256 != actual {
        return Err(FormatError::PayloadDigest { limit: header.payload_sha256, actual });
    }
    let texts = read_texts(file, rest, header.texts)?;
    let mut hasher = Hasher::default();
    hasher.update(&Header::unsigned(head));
    hasher.update(slice(file, header.table_offset, tail_bytes(file, &header)));
    let actual = hasher.finish();
    if header.file_sha256 != actual {
        return Err(FormatError::FileDigest { limit: header.file_sha256, actual });
    }
    Ok(Layout { header, tensors, texts, by_name })
}

/// Bytes from the tensor table to the end of the file.
fn tail_bytes(file: &[u8], header: &Header) -> u64 {
    (file.len() as u64).saturating_sub(header.table_offset)
}

/// The tensor table, and what follows it.
fn split_tail<'a>(file: &'a [u8], header: &Header) -> Result<(&'a [u8], &'a [u8]), FormatError> {
    if header.tensors > limits::TENSORS {
        return Err(FormatError::TensorCount { limit: limits::TENSORS, actual: header.tensors });
    }
    if header.texts > limits::TEXTS {
        return Err(FormatError::TextCount { limit: limits::TEXTS, actual: header.texts });
    }
    let (limit, actual) = (file.len() as u64, header.table_offset);
    let inside = (HEADER_BYTES as u64..=limit).contains(&actual) && actual.is_multiple_of(ALIGNMENT);
    let tail = slice(file, actual, tail_bytes(file, header));
    if !inside {
        return Err(FormatError::TableOffset { limit, actual });
    }
    let length = usize::try_from(header.table_bytes).ok();
    let split = length.and_then(|length| tail.split_at_checked(length));
    let (limit, actual) = (tail.len() as u64, header.table_bytes);
    let (table, rest) = split.ok_or(FormatError::TableBytes { limit, actual })?;
    let limit = (table.len() / FIXED_BYTES) as u64;
    if u64::from(header.tensors) > limit {
        return Err(FormatError::TableRoom { limit, actual: header.tensors });
    }
    Ok((table, rest))
}

/// Every entry, its payload placed where the one before ends.
fn read_tensors(mut table: &[u8], header: &Header) -> Result<Vec<TensorEntry>, FormatError> {
    let mut tensors = Vec::with_capacity(header.tensors as usize);
    let mut begin = HEADER_BYTES as u64;
    for index in 0..header.tensors as usize {
        let rule = |name: &str, source| FormatError::Tensor { index, name: name.to_owned(), source };
        let entry = TensorEntry::read(&mut table).map_err(|(name, source)| rule(&name, source))?;
        if entry.offset != begin {
            return Err(rule(&entry.name, TensorRule::Offset { limit: begin, actual: entry.offset }));
        }
        let end = begin.checked_add(entry.bytes);
        let (limit, actual) = (header.table_offset, end.unwrap_or(u64::MAX));
        if actual > limit {
            return Err(rule(&entry.name, TensorRule::PastTable { limit, actual }));
        }
        // At most the table's offset, itself a multiple.
        begin = align(actual).unwrap_or(limit);
        tensors.push(entry);
    }
    if !table.is_empty() {
        return Err(FormatError::TableLeftover { actual: table.len() as u64 });
    }
    if begin != header.table_offset {
        return Err(FormatError::Gap { limit: begin, actual: header.table_offset });
    }
    Ok(tensors)
}

/// Indices of the tensors by ascending name.
fn sort_names(tensors: &[TensorEntry]) -> Result<Vec<u32>, FormatError> {
    let name = |index: &u32| tensors.get(*index as usize).map_or("", |tensor| tensor.name.as_str());
    let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
    by_name.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    let mut neighbors = by_name.iter().zip(by_name.iter().skip(1));
    match neighbors.find(|(a, b)| name(a) == name(b)) {
        Some((twice, _)) => Err(FormatError::DuplicateName { name: name(twice).to_owned() }),
        None => Ok(by_name),
    }
}

/// Between the end of each payload and the next multiple of 256 there are zeros.
fn check_padding(file: &[u8], tensors: &[TensorEntry]) -> Result<(), FormatError> {
    for tensor in tensors {
        let end = tensor.offset + tensor.bytes;
        let padding = slice(file, end, align(end).unwrap_or(end) - end);
        if let Some(at) = padding.iter().position(|byte| *byte != 0) {
            return Err(FormatError::Padding { offset: end + at as u64 });
        }
    }
    Ok(())
}

/// Every text, placed where the one before ends; `rest` begins with their table and ends with the file.
fn read_texts(file: &[u8], rest: &[u8], count: u32) -> Result<Vec<TextEntry>, FormatError> {
    let actual = count as usize * TEXT_ENTRY_BYTES;
    let Some((table, stored)) = rest.split_at_checked(actual) else {
        return Err(FormatError::TextTable { limit: rest.len() as u64, actual: actual as u64 });
    };
    let mut begin = (file.len() - stored.len()) as u64;
    let mut texts: Vec<TextEntry> = Vec::with_capacity(count as usize);
    for fixed in table.as_chunks::<TEXT_ENTRY_BYTES>().0 {
        let before = texts.last().map(|text| text.kind);
        let entry = TextEntry::read(fixed, file, begin, before)
            .map_err(|(kind, source)| FormatError::Text { kind, source })?;
        begin += entry.stored_bytes;
        texts.push(entry);
    }
    match file.len() as u64 - begin {
        0 => Ok(texts),
        actual => Err(FormatError::TextLeftover { actual }),
    }
}

impl Layout {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Every tensor, in file order.
    pub fn tensors(&self) -> &[TensorEntry] {
        &self.tensors
    }

    /// The tensor of this name.
    pub fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        let entry = |index: &u32| self.tensors.get(*index as usize);
        let found = self.by_name.binary_search_by(|index| entry(index).map_or("", |e| &e.name).cmp(name));
        self.by_name.get(found.ok()?).and_then(entry)
    }

    /// Every text, in file order.
    pub fn texts(&self) -> &[TextEntry] {
        &self.texts
    }

    /// The text of this kind in `file`, the bytes that were validated; `None` when there is none.
    ///
    /// # Errors
    /// When its stored bytes do not decompress to the declared length or are not UTF-8.
    pub fn text(&self, file: &[u8], kind: TextKind) -> Result<Option<String>, FormatError> {
        let entry = self.texts.iter().find(|text| text.kind == kind.code());
        let decode = |entry: &TextEntry| {
            entry.decode(file).map_err(|source| FormatError::Text { kind: entry.kind, source })
        };
        entry.map(decode).transpose()
    }

    /// Where `file`, the bytes that were validated, comes from; `None` when it does not say.
    ///
    /// # Errors
    /// When the text cannot be read or is not the JSON it should be.
    pub fn provenance(&self, file: &[u8]) -> Result<Option<Provenance>, FormatError> {
        let Some(text) = self.text(file, TextKind::Provenance)? else { return Ok(None) };
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|error| {
            let source = TextRule::Json { line: error.line(), column: error.column() };
            FormatError::Text { kind: TextKind::Provenance.code(), source }
        })
    }
}
