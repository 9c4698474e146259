//! Rounding rows to block types of GGML and to integer codes in groups: what GGUF files and vLLM's checkpoints hold, and no
//! `.gq` file.
//!
//! Blocks have scales of their own, so they are chosen where a block begins, from the targets as errors of earlier columns
//! have been fed back to them; values are then rounded column after column with the scales fixed (LDLQ, QuIP, arXiv
//! 2307.13304). Scales are compared by what they cost when every column of their sub-block is rounded with feedback.
//! Without feedback the same is rounding to nearest by importance weights.
//!
//! All in single IEEE operations in a fixed order: the same bytes on every instruction set and number of threads.

mod fit;
mod groups;
mod levels;
mod round;
mod strip;
mod table;
mod trial;

pub use groups::{GroupCode, GroupedRows, round_groups};
pub use round::round_blocks;
pub use strip::Metric;
pub use table::BlockCode;
