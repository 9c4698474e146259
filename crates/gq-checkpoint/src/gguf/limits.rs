//! Caps on what a GGUF file may claim, each with its reason.

/// Longest metadata string: tokenizers kept whole as JSON take 34 MB.
pub const STRING_BYTES: u64 = 256 << 20;
/// Longest key: the format's own limit.
pub const KEY_BYTES: u64 = 65_535;
/// Longest tensor name: the format's limit is 64; some writers go beyond it.
pub const NAME_BYTES: u64 = 1024;
/// Most elements of an array: merges of the largest vocabularies are 600,000.
pub const ARRAY_LEN: u64 = 1 << 24;
/// Deepest nesting of arrays: real files have none.
pub const ARRAY_DEPTH: usize = 4;
/// Most metadata entries: real files have fewer than 100.
pub const ENTRIES: u64 = 1 << 16;
/// Most tensors of one file.
pub const TENSORS: u64 = 1 << 20;
/// Most dimensions: the format's own limit.
pub const DIMS: u32 = 4;
/// Largest alignment: a page is the most that anybody uses.
pub const ALIGNMENT: u64 = 1 << 20;
/// Longest header: 600,000 merges and 262,144 tokens take 20 MB.
pub const HEADER_BYTES: u64 = 1 << 30;
/// Most files of a split: the largest released ones have about 50.
pub const SPLITS: u64 = 4096;
