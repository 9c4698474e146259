//! The rules of `formats/container.md`, as errors. Foreign text is escaped when shown.

use crate::digest::Digest;
use gq_files::Escaped;
use gq_tensor::{Encoding, RotationKind};

/// A rule of `formats/container.md` that a file breaks. Offsets and lengths are in bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Too short for a header.
    #[error("{actual} bytes, a header alone has {limit}")]
    TooShort {
        /// Length of a header.
        limit: u64,
        /// Length of the file.
        actual: u64,
    },
    /// Not a `.gq` file.
    #[error("not a .gq file: it begins with {actual:02x?}, expected {limit:02x?}")]
    Magic {
        /// The format's first bytes.
        limit: [u8; 8],
        /// The file's.
        actual: [u8; 8],
    },
    /// Another major version.
    #[error("format version {actual}, this program reads version {limit}")]
    Version {
        /// Version that is understood.
        limit: u16,
        /// Version of the file.
        actual: u16,
    },
    /// Features that this reader does not know.
    #[error("needs features {actual:#x}, this program knows {limit:#x}")]
    Features {
        /// Bits that are understood.
        limit: u32,
        /// Bits of the file.
        actual: u32,
    },
    /// A reserved byte of the header is not zero.
    #[error("reserved byte {offset} of the header is not zero")]
    HeaderReserved {
        /// First such byte.
        offset: u64,
    },
    /// Cut short, or something was appended.
    #[error("{actual} bytes, the header says {limit}")]
    FileBytes {
        /// Length in the header.
        limit: u64,
        /// Length of the file.
        actual: u64,
    },
    /// More tensors than the cap.
    #[error("{actual} tensors, at most {limit} are allowed")]
    TensorCount {
        /// Cap.
        limit: u32,
        /// Tensors according to the header.
        actual: u32,
    },
    /// More texts than the cap.
    #[error("{actual} texts, at most {limit} are allowed")]
    TextCount {
        /// Cap.
        limit: u32,
        /// Texts according to the header.
        actual: u32,
    },
    /// The tensor table begins at no multiple of 256, in the header, or past the end.
    #[error("the tensor table begins at {actual}, allowed are multiples of 256 from 256 to {limit}")]
    TableOffset {
        /// Length of the file.
        limit: u64,
        /// Offset in the header.
        actual: u64,
    },
    /// The tensor table ends past the end of the file.
    #[error("a tensor table of {actual} bytes, {limit} are left")]
    TableBytes {
        /// Bytes left in the file.
        limit: u64,
        /// Length in the header.
        actual: u64,
    },
    /// The tensor table is shorter than its entries at their shortest.
    #[error("{actual} tensors in a table that has room for {limit}")]
    TableRoom {
        /// Entries that would fit.
        limit: u64,
        /// Entries according to the header.
        actual: u32,
    },
    /// Bytes of the tensor table that belong to no entry.
    #[error("{actual} bytes at the end of the tensor table belong to no entry")]
    TableLeftover {
        /// Such bytes.
        actual: u64,
    },
    /// A gap between the last payload and the tensor table.
    #[error("the payloads end at {limit}, the tensor table begins at {actual}")]
    Gap {
        /// Where the table would have to begin.
        limit: u64,
        /// Where it begins.
        actual: u64,
    },
    /// Two tensors of one name.
    #[error("two tensors are named {}", Escaped(.name))]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// Padding that is not zero.
    #[error("byte {offset} is padding and not zero")]
    Padding {
        /// First such byte.
        offset: u64,
    },
    /// The tensor table does not belong to the header.
    #[error("digest of the tensors is {actual}, the header says {limit}")]
    PayloadDigest {
        /// Digest in the header.
        limit: Digest,
        /// Digest of the table.
        actual: Digest,
    },
    /// The text table ends past the end of the file.
    #[error("a text table of {actual} bytes, {limit} are left")]
    TextTable {
        /// Bytes left in the file.
        limit: u64,
        /// Length that follows from the header.
        actual: u64,
    },
    /// Bytes after the last text.
    #[error("{actual} bytes after the last text")]
    TextLeftover {
        /// Such bytes.
        actual: u64,
    },
    /// Header, tables or texts were changed.
    #[error("digest of header, tables and texts is {actual}, the header says {limit}")]
    FileDigest {
        /// Digest in the header.
        limit: Digest,
        /// Digest of the bytes.
        actual: Digest,
    },
    /// A tensor's entry breaks a rule.
    #[error("tensor {index} {}: {source}", Escaped(.name))]
    Tensor {
        /// Place in the table.
        index: usize,
        /// Its name; empty when it cannot be read.
        name: String,
        /// Which rule.
        #[source]
        source: TensorRule,
    },
    /// A text breaks a rule.
    #[error("text {kind}: {source}")]
    Text {
        /// Number of the text's kind.
        kind: u16,
        /// Which rule.
        #[source]
        source: TextRule,
    },
}

/// A rule about one tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorRule {
    /// The entry ends past the end of the table.
    #[error("an entry of {limit} more bytes, {actual} are left of the table")]
    Truncated {
        /// Bytes the entry needs.
        limit: u64,
        /// Bytes left.
        actual: u64,
    },
    /// An empty or overlong name.
    #[error("a name of {actual} bytes, allowed are 1 to {limit}")]
    NameLength {
        /// Cap.
        limit: usize,
        /// Length.
        actual: usize,
    },
    /// A name that is not UTF-8.
    #[error("the name is not UTF-8 at byte {at}")]
    NameUtf8 {
        /// First bad byte.
        at: usize,
    },
    /// The entry's reserved byte is not zero.
    #[error("the reserved byte is {actual}, not zero")]
    Reserved {
        /// Its value.
        actual: u8,
    },
    /// Too many dimensions.
    #[error("{actual} dimensions, at most {limit} are allowed")]
    Rank {
        /// Cap.
        limit: usize,
        /// Dimensions.
        actual: usize,
    },
    /// A dimension beyond the rank that is not zero.
    #[error("a dimension beyond the rank is {actual}, not zero")]
    UnusedDimension {
        /// Its value.
        actual: u64,
    },
    /// A dimension that is zero or beyond the cap.
    #[error("a dimension of {actual}, allowed are 1 to {limit}")]
    Dimension {
        /// Cap.
        limit: u64,
        /// The dimension.
        actual: u64,
    },
    /// A shape whose bytes cannot be counted.
    #[error("shape {shape:?} has too many elements")]
    Overflow {
        /// The shape.
        shape: Vec<u64>,
    },
    /// An encoding that is not in the registry.
    #[error("encoding {actual:#06x} is not known")]
    Encoding {
        /// Its number.
        actual: u16,
    },
    /// A rotation that is not in the registry.
    #[error("rotation {actual} is not known")]
    Rotation {
        /// Its number.
        actual: u8,
    },
    /// A seed for exact elements.
    #[error("an exact encoding with seed {actual}")]
    Seed {
        /// The seed.
        actual: u64,
    },
    /// Exact elements or a grid in a rotated basis.
    #[error("an exact encoding or a grid with rotation {}", .actual.name())]
    RotatedExact {
        /// The rotation.
        actual: RotationKind,
    },
    /// A source dtype that is not in the list.
    #[error("source dtype {actual} is not known")]
    SourceDType {
        /// Its number.
        actual: u8,
    },
    /// An encoding that cannot store rows of this width.
    #[error("encoding {encoding} cannot store rows of {actual} elements")]
    Width {
        /// The encoding.
        encoding: Encoding,
        /// The width.
        actual: usize,
    },
    /// A payload of another length than shape and encoding say.
    #[error("a payload of {actual} bytes, shape and encoding call for {limit}")]
    Bytes {
        /// What shape and encoding call for.
        limit: u64,
        /// The length.
        actual: u64,
    },
    /// A payload that does not begin where the one before ends (rounded up to 256).
    #[error("the payload begins at {actual}, it has to begin at {limit}")]
    Offset {
        /// Where it has to begin.
        limit: u64,
        /// Where it begins.
        actual: u64,
    },
    /// A payload that runs into the tensor table.
    #[error("the payload ends at {actual}, the tensor table begins at {limit}")]
    PastTable {
        /// Where the table begins.
        limit: u64,
        /// Where the payload ends; u64::MAX when beyond.
        actual: u64,
    },
}

/// A rule about one text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextRule {
    /// A kind that is not known and must not be skipped.
    #[error("its kind is not known to this program, and files with it must not be read without it")]
    Kind,
    /// Kinds not in ascending order, or one twice.
    #[error("it follows text {limit}, kinds have to ascend")]
    Order {
        /// The kind before.
        limit: u16,
    },
    /// A reserved byte of the entry is not zero.
    #[error("a reserved byte of its entry is not zero")]
    Reserved,
    /// A coding that is not in the list.
    #[error("coding {actual} is not known")]
    Coding {
        /// Its number.
        actual: u8,
    },
    /// A text that does not begin where the one before ends.
    #[error("it begins at {actual}, it has to begin at {limit}")]
    Offset {
        /// Where it has to begin.
        limit: u64,
        /// Where it begins.
        actual: u64,
    },
    /// A text that ends past the end of the file.
    #[error("{actual} stored bytes, {limit} are left")]
    StoredBytes {
        /// Bytes left in the file.
        limit: u64,
        /// Length.
        actual: u64,
    },
    /// A text beyond the absolute cap.
    #[error("{actual} bytes of text, at most {limit} are allowed")]
    PlainBytes {
        /// Cap.
        limit: u64,
        /// Length once decompressed.
        actual: u64,
    },
    /// A text that grows beyond the ratio cap.
    #[error("{actual} bytes of text in {stored} stored ones, at most {limit} times as many are allowed")]
    Ratio {
        /// Cap on text bytes per stored byte.
        limit: u64,
        /// Length once decompressed.
        actual: u64,
        /// Length as stored.
        stored: u64,
    },
    /// A plain text whose two lengths differ.
    #[error("{actual} stored bytes of plain text, its length is {limit}")]
    PlainDiffers {
        /// Length of the text.
        limit: u64,
        /// Length as stored.
        actual: u64,
    },
    /// Not exactly one zstd frame that states its content's length.
    #[error("not a single zstd frame with its length stated")]
    Frame,
    /// A zstd frame with another content length than the entry.
    #[error("its zstd frame holds {actual} bytes, its entry says {limit}")]
    FrameContent {
        /// Length in the entry.
        limit: u64,
        /// Length in the frame.
        actual: u64,
    },
    /// A frame that does not decompress.
    #[error("its zstd frame is damaged")]
    Corrupt,
    /// A text that is not UTF-8.
    #[error("not UTF-8 at byte {at}")]
    Utf8 {
        /// First bad byte.
        at: usize,
    },
    /// A text that is not the JSON it should be.
    #[error("not the expected JSON at line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
}

impl FormatError {
    /// A stable identifier of the broken rule, as in `formats/container.md`.
    pub fn code(&self) -> &'static str {
        match self {
            FormatError::TooShort { .. } => "too-short",
            FormatError::Magic { .. } => "magic",
            FormatError::Version { .. } => "version",
            FormatError::Features { .. } => "features",
            FormatError::HeaderReserved { .. } => "header-reserved",
            FormatError::FileBytes { .. } => "file-bytes",
            FormatError::TensorCount { .. } => "tensor-count",
            FormatError::TextCount { .. } => "text-count",
            FormatError::TableOffset { .. } => "table-offset",
            FormatError::TableBytes { .. } => "table-bytes",
            FormatError::TableRoom { .. } => "table-room",
            FormatError::TableLeftover { .. } => "table-leftover",
            FormatError::Gap { .. } => "gap",
            FormatError::DuplicateName { .. } => "duplicate-name",
            FormatError::Padding { .. } => "padding",
            FormatError::PayloadDigest { .. } => "payload-digest",
            FormatError::TextTable { .. } => "text-table",
            FormatError::TextLeftover { .. } => "text-leftover",
            FormatError::FileDigest { .. } => "file-digest",
            FormatError::Tensor { source, .. } => source.code(),
            FormatError::Text { source, .. } => source.code(),
        }
    }
}

impl TensorRule {
    /// A stable identifier of the broken rule, as in `formats/container.md`.
    pub fn code(&self) -> &'static str {
        match self {
            TensorRule::Truncated { .. } => "entry-truncated",
            TensorRule::NameLength { .. } => "name-length",
            TensorRule::NameUtf8 { .. } => "name-utf8",
            TensorRule::Reserved { .. } => "entry-reserved",
            TensorRule::Rank { .. } => "rank",
            TensorRule::UnusedDimension { .. } => "unused-dimension",
            TensorRule::Dimension { .. } => "dimension",
            TensorRule::Overflow { .. } => "shape-overflow",
            TensorRule::Encoding { .. } => "encoding",
            TensorRule::Rotation { .. } => "rotation",
            TensorRule::Seed { .. } => "seed",
            TensorRule::RotatedExact { .. } => "rotated-exact",
            TensorRule::SourceDType { .. } => "source-dtype",
            TensorRule::Width { .. } => "width",
            TensorRule::Bytes { .. } => "payload-bytes",
            TensorRule::Offset { .. } => "payload-offset",
            TensorRule::PastTable { .. } => "payload-past-table",
        }
    }
}

impl TextRule {
    /// A stable identifier of the broken rule, as in `formats/container.md`.
    pub fn code(&self) -> &'static str {
        match self {
            TextRule::Kind => "text-kind",
            TextRule::Order { .. } => "text-order",
            TextRule::Reserved => "text-reserved",
            TextRule::Coding { .. } => "text-coding",
            TextRule::Offset { .. } => "text-offset",
            TextRule::StoredBytes { .. } => "text-stored-bytes",
            TextRule::PlainBytes { .. } => "text-plain-bytes",
            TextRule::Ratio { .. } => "text-ratio",
            TextRule::PlainDiffers { .. } => "text-plain-differs",
            TextRule::Frame => "text-frame",
            TextRule::FrameContent { .. } => "text-frame-content",
            TextRule::Corrupt => "text-corrupt",
            TextRule::Utf8 { .. } => "text-utf8",
            TextRule::Json { .. } => "text-json",
        }
    }
}
