//! Numbers of weights and norms, so that a device can hold a copy of each.

use std::sync::atomic::{AtomicU64, Ordering};

/// One set of numbers in memory: clones of a weight have its id, another payload has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WeightId(u64);

impl WeightId {
    /// An id that nothing else in this process has.
    pub fn unique() -> WeightId {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        WeightId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}
