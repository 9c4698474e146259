//! Texts that ride along: kinds, compression, bounded decompression.

use crate::entry::Fields;
use crate::error::WriteRule;
use crate::layout::{TEXT_ENTRY_BYTES, slice};
use crate::limits;
use crate::rule::TextRule;
use crate::text_kind::{SKIPPABLE, TextKind};
use serde::{Deserialize, Serialize};

/// zstd level of texts. The bytes depend on it: changing it changes every file. On a 16 MB tokenizer, level 9 takes
/// 0.5 s and 4.5 MB; level 3 takes 0.1 s and 5.1 MB; level 19 takes 13 s and 3.7 MB.
const LEVEL: i32 = 9;
/// First bytes of a zstd frame (RFC 8878, section 3.1.1), little-endian.
const FRAME_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// How a text's bytes are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TextCoding {
    /// As they are.
    Plain,
    /// One zstd frame.
    Zstd,
}

impl TextCoding {
    const ALL: [TextCoding; 2] = [TextCoding::Plain, TextCoding::Zstd];

    const fn code(self) -> u8 {
        match self {
            TextCoding::Plain => 0,
            TextCoding::Zstd => 1,
        }
    }
}

/// A text ready to be stored; compressed where that makes it shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredText {
    kind: TextKind,
    coding: TextCoding,
    plain_bytes: u64,
    stored: Vec<u8>,
}

impl StoredText {
    /// Compresses `text`.
    ///
    /// # Errors
    /// When it is longer than [`limits::TEXT_BYTES`].
    pub fn new(kind: TextKind, text: &str) -> Result<StoredText, WriteRule> {
        let plain_bytes = text.len() as u64;
        if plain_bytes > limits::TEXT_BYTES {
            return Err(WriteRule::TextBytes { kind, limit: limits::TEXT_BYTES, actual: plain_bytes });
        }
        let compressed =
            zstd::bulk::compress(text.as_bytes(), LEVEL).ok().map(|bytes| (TextCoding::Zstd, bytes));
        let worth = |bytes: &Vec<u8>| {
            bytes.len() < text.len() && plain_bytes <= (bytes.len() as u64).saturating_mul(limits::TEXT_RATIO)
        };
        let (coding, stored) = compressed
            .filter(|(_, bytes)| worth(bytes))
            .unwrap_or_else(|| (TextCoding::Plain, text.as_bytes().to_vec()));
        Ok(StoredText { kind, coding, plain_bytes, stored })
    }

    /// What the text is.
    pub fn kind(&self) -> TextKind {
        self.kind
    }

    /// Bytes it takes in the file, its table entry aside.
    pub fn stored_bytes(&self) -> u64 {
        self.stored.len() as u64
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.stored
    }

    pub(crate) fn entry(&self, offset: u64) -> TextEntry {
        TextEntry {
            kind: self.kind.code(),
            coding: self.coding,
            offset,
            stored_bytes: self.stored_bytes(),
            plain_bytes: self.plain_bytes,
        }
    }
}

/// A text in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextEntry {
    /// Number of its kind; kinds that this reader does not know may occur.
    pub kind: u16,
    /// How its bytes are stored.
    pub coding: TextCoding,
    /// Where they begin in the file.
    pub offset: u64,
    /// How many they are.
    pub stored_bytes: u64,
    /// Length of the text itself.
    pub plain_bytes: u64,
}

impl TextEntry {
    /// The entry's bytes in the table.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.kind.to_le_bytes());
        out.extend([self.coding.code(), 0, 0, 0, 0, 0]);
        out.extend(self.offset.to_le_bytes());
        out.extend(self.stored_bytes.to_le_bytes());
        out.extend(self.plain_bytes.to_le_bytes());
    }

    /// Reads one entry of a file in which the texts up to here end at `begin`; `before` is the kind before.
    pub(crate) fn read(
        fixed: &[u8; TEXT_ENTRY_BYTES],
        file: &[u8],
        begin: u64,
        before: Option<u16>,
    ) -> Result<TextEntry, (u16, TextRule)> {
        let mut fields = Fields(fixed);
        let kind = fields.u16();
        let [coding, reserved @ ..]: [u8; 6] = fields.take();
        let (offset, stored_bytes, plain_bytes) = (fields.u64(), fields.u64(), fields.u64());
        let checked = || {
            if let Some(limit) = before.filter(|before| *before >= kind) {
                return Err(TextRule::Order { limit });
            }
            if kind < SKIPPABLE && TextKind::from_code(kind).is_none() {
                return Err(TextRule::Kind);
            }
            if reserved != [0; 5] {
                return Err(TextRule::Reserved);
            }
            let known = TextCoding::ALL.into_iter().find(|known| known.code() == coding);
            let coding = known.ok_or(TextRule::Coding { actual: coding })?;
            if offset != begin {
                return Err(TextRule::Offset { limit: begin, actual: offset });
            }
            let limit = (file.len() as u64).saturating_sub(offset);
            if stored_bytes > limit {
                return Err(TextRule::StoredBytes { limit, actual: stored_bytes });
            }
            if plain_bytes > limits::TEXT_BYTES {
                return Err(TextRule::PlainBytes { limit: limits::TEXT_BYTES, actual: plain_bytes });
            }
            let entry = TextEntry { kind, coding, offset, stored_bytes, plain_bytes };
            entry.check_stored(entry.stored(file))?;
            Ok(entry)
        };
        checked().map_err(|rule| (kind, rule))
    }

    /// The rules that tie the lengths to the stored bytes.
    fn check_stored(&self, stored: &[u8]) -> Result<(), TextRule> {
        let (plain, stored_bytes) = (self.plain_bytes, self.stored_bytes);
        match self.coding {
            TextCoding::Plain if plain != stored_bytes => {
                return Err(TextRule::PlainDiffers { limit: plain, actual: stored_bytes });
            }
            TextCoding::Plain => return Ok(()),
            TextCoding::Zstd => {}
        }
        let limit = limits::TEXT_RATIO;
        if plain > stored_bytes.saturating_mul(limit) {
            return Err(TextRule::Ratio { limit, actual: plain, stored: stored_bytes });
        }
        // Skippable frames and several frames in a row are valid zstd, but none of ours.
        let frame_bytes = || zstd::zstd_safe::find_frame_compressed_size(stored);
        if !stored.starts_with(&FRAME_MAGIC) || frame_bytes() != Ok(stored.len()) {
            return Err(TextRule::Frame);
        }
        match zstd::zstd_safe::get_frame_content_size(stored) {
            Ok(Some(content)) if content == plain => Ok(()),
            Ok(Some(actual)) => Err(TextRule::FrameContent { limit: plain, actual }),
            _ => Err(TextRule::Frame),
        }
    }

    /// The stored bytes; empty if the entry is another file's.
    pub(crate) fn stored<'a>(&self, file: &'a [u8]) -> &'a [u8] {
        slice(file, self.offset, self.stored_bytes)
    }

    /// The text. Allocates no more than the length that the entry declares.
    pub(crate) fn decode(&self, file: &[u8]) -> Result<String, TextRule> {
        let stored = self.stored(file);
        let plain = match self.coding {
            TextCoding::Plain => stored.to_vec(),
            TextCoding::Zstd => decompress(stored, self.plain_bytes)?,
        };
        String::from_utf8(plain).map_err(|error| TextRule::Utf8 { at: error.utf8_error().valid_up_to() })
    }
}

fn decompress(stored: &[u8], plain_bytes: u64) -> Result<Vec<u8>, TextRule> {
    let length = usize::try_from(plain_bytes.min(limits::TEXT_BYTES)).map_err(|_| TextRule::Corrupt)?;
    let plain = zstd::bulk::decompress(stored, length).map_err(|_| TextRule::Corrupt)?;
    if plain.len() == length { Ok(plain) } else { Err(TextRule::Corrupt) }
}
