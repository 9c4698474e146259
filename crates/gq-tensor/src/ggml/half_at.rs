//! Numbers in half precision inside of blocks.

use half::f16;

/// The f16 at a byte offset.
pub(super) fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
