//! Caps on what a file may claim, each with its reason. Lengths are checked before anything is allocated.

/// Most tensors: the largest released models have about 200,000 (unfused experts).
pub const TENSORS: u32 = 1 << 20;
/// Longest tensor name in bytes: real ones have about 100.
pub const NAME_BYTES: usize = 1024;
/// Most dimensions: matrices have 2, fused experts 3; one is kept in reserve.
pub const RANK: usize = 4;
/// Largest dimension: vocabularies have 262,208 rows; a row of this many 8-byte elements still has a 32-bit length.
pub const DIMENSION: u64 = 1 << 28;
/// Most text sections: one per kind, and there are 9 kinds.
pub const TEXTS: u32 = 64;
/// Longest text in bytes: a tokenizer of 262,144 entries takes 16 MB to 34 MB.
pub const TEXT_BYTES: u64 = 256 << 20;
/// Most bytes of text per stored byte: tokenizers reach 4, reports 30; a bomb of zeros would reach 30,000.
pub const TEXT_RATIO: u64 = 64;
