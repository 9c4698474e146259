//! The first 256 bytes.

use crate::digest::Digest;
use crate::layout::HEADER_BYTES;
use crate::rule::FormatError;

/// First bytes of every file. The high bit and the line ends show damage by text-mode transfers.
pub(crate) const MAGIC: [u8; 8] = [0x89, b'G', b'Q', 0x0D, 0x0A, 0x1A, 0x0A, 0x00];
/// Major version that this reader understands.
pub(crate) const MAJOR: u16 = 1;
/// Minor version that the writer states; the reader accepts any.
pub(crate) const MINOR: u16 = 0;
/// Feature bits that this reader understands: none are defined yet.
const KNOWN_FEATURES: u32 = 0;
/// Where the reserved bytes begin.
const RESERVED: usize = 112;
/// Where the file's own digest lies.
const FILE_SHA256: usize = 80;

/// The header's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Minor version of the writer.
    pub minor: u16,
    /// Length of the file.
    pub file_bytes: u64,
    /// Where the tensor table begins; payloads lie before it.
    pub table_offset: u64,
    /// Length of the tensor table.
    pub table_bytes: u64,
    /// Entries of the tensor table.
    pub tensors: u32,
    /// Entries of the text table.
    pub texts: u32,
    /// Digest of names, shapes, encodings and payloads of all tensors, independent of order, place and texts.
    pub payload_sha256: Digest,
    /// Digest of header, tables and texts, and through the table of every byte of the file.
    pub file_sha256: Digest,
}

impl Header {
    /// The header's bytes.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            if let Some(place) = bytes.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
            at += field.len();
        };
        put(&MAGIC);
        put(&MAJOR.to_le_bytes());
        put(&self.minor.to_le_bytes());
        put(&KNOWN_FEATURES.to_le_bytes());
        put(&self.file_bytes.to_le_bytes());
        put(&self.table_offset.to_le_bytes());
        put(&self.table_bytes.to_le_bytes());
        put(&self.tensors.to_le_bytes());
        put(&self.texts.to_le_bytes());
        put(&self.payload_sha256.0);
        put(&self.file_sha256.0);
        bytes
    }

    /// The header's bytes while the file's digest is computed: its own field is zero.
    pub(crate) fn unsigned(bytes: &[u8; HEADER_BYTES]) -> [u8; HEADER_BYTES] {
        let mut bytes = *bytes;
        bytes[FILE_SHA256..FILE_SHA256 + 32].fill(0);
        bytes
    }

    /// Reads the header; its numbers are not yet compared with anything.
    pub(crate) fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> Result<Header, FormatError> {
        let mut fields = crate::entry::Fields(bytes);
        let magic = fields.take::<8>();
        if magic != MAGIC {
            return Err(FormatError::Magic { limit: MAGIC, actual: magic });
        }
        let major = fields.u16();
        if major != MAJOR {
            return Err(FormatError::Version { limit: MAJOR, actual: major });
        }
        let minor = fields.u16();
        let features = fields.u32();
        if features & !KNOWN_FEATURES != 0 {
            return Err(FormatError::Features { limit: KNOWN_FEATURES, actual: features });
        }
        let header = Header {
            minor,
            file_bytes: fields.u64(),
            table_offset: fields.u64(),
            table_bytes: fields.u64(),
            tensors: fields.u32(),
            texts: fields.u32(),
            payload_sha256: Digest(fields.take()),
            file_sha256: Digest(fields.take()),
        };
        match fields.0.iter().position(|byte| *byte != 0) {
            Some(at) => Err(FormatError::HeaderReserved { offset: (RESERVED + at) as u64 }),
            None => Ok(header),
        }
    }
}
