//! Lanes of a warp, and what may go wrong in one.

use crate::fault::FaultKind;
use crate::types::LANES;

/// Or the lane, where one is meant, and its fault.
pub(crate) type Result<T> = std::result::Result<T, (Option<usize>, FaultKind)>;

pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}
