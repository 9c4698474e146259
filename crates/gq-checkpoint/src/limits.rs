//! Caps on what a file may claim, each with its reason. Lengths are checked before anything is allocated.

/// Longest safetensors header: the format's own limit.
pub const HEADER_BYTES: u64 = 100_000_000;
/// Most tensors of one checkpoint: the largest released models have about 200,000 (unfused experts).
pub const TENSORS: usize = 1 << 20;
/// Longest tensor name: real ones have about 100 bytes.
pub const NAME_BYTES: usize = 1024;
/// Most dimensions of a tensor: convolutions of vision towers have 5.
pub const RANK: usize = 8;
/// Most weight files: the largest released models have about 200.
pub const SHARDS: usize = 4096;
/// Longest index: 200,000 entries of 130 bytes are 26 MB.
pub const INDEX_BYTES: u64 = 64 << 20;
/// Longest `config.json`: real ones have a few kilobytes; quantization lists can make them longer.
pub const CONFIG_BYTES: u64 = 4 << 20;
/// Longest `tokenizer.json`: vocabularies of 262,144 entries take 34 MB.
pub const TOKENIZER_BYTES: u64 = 256 << 20;
/// Longest other text: `tokenizer_config.json` of a vocabulary with many added tokens takes 1.2 MB.
pub const TEXT_BYTES: u64 = 16 << 20;

/// Most layers: the deepest released models have about 130.
pub const LAYERS: u64 = 1024;
/// Largest residual width: the widest released models have 16,384.
pub const HIDDEN: u64 = 1 << 18;
/// Largest MLP width: the widest released models have 53,248.
pub const WIDTH: u64 = 1 << 20;
/// Largest vocabulary: the largest released ones have 262,208.
pub const VOCAB: u64 = 1 << 24;
/// Most attention heads: real ones have up to 128.
pub const HEADS: u64 = 1 << 14;
/// Widest attention head: real ones have up to 512.
pub const HEAD_DIM: u64 = 1 << 12;
/// Most experts of a layer: real ones have up to 512.
pub const EXPERTS: u64 = 1 << 14;
/// Most positions: real ones have up to 10 million.
pub const POSITIONS: u64 = 1 << 32;
