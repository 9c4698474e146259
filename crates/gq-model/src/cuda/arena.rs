//! Scratch memory of a device: one range, handed out in blocks that come back when they are dropped.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks begin at multiples of this, as loads of every kernel want.
pub(super) const GRAIN: u64 = 256;

/// The range.
#[derive(Debug)]
pub(super) struct Arena(Arc<Mutex<Spaces>>);

#[derive(Debug)]
struct Spaces {
    /// Free parts: where each begins, and how long it is. None of them touch.
    free: BTreeMap<u64, u64>,
    size: u64,
    used: u64,
    peak: u64,
}

/// A part that belongs to somebody.
#[derive(Debug)]
pub(super) struct Block {
    spaces: Arc<Mutex<Spaces>>,
    at: u64,
    bytes: u64,
}

impl Arena {
    /// `size` bytes.
    pub(super) fn new(size: u64) -> Arena {
        let free = BTreeMap::from([(0, size)]);
        Arena(Arc::new(Mutex::new(Spaces { free, size, used: 0, peak: 0 })))
    }

    /// The first free part that is long enough: the same requests in the same order give the same places.
    pub(super) fn take(&self, bytes: u64) -> Option<Block> {
        let bytes = bytes.max(1).checked_next_multiple_of(GRAIN)?;
        let mut spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (&at, &length) = spaces.free.iter().find(|(_, length)| **length >= bytes)?;
        spaces.free.remove(&at);
        if length > bytes {
            spaces.free.insert(at + bytes, length - bytes);
        }
        spaces.used += bytes;
        spaces.peak = spaces.peak.max(at + bytes);
        Some(Block { spaces: self.0.clone(), at, bytes })
    }

    /// Bytes in all.
    pub(super) fn size(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).size
    }

    /// The largest end of any block so far.
    pub(super) fn peak(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).peak
    }
}

impl Block {
    /// Where it begins in the range.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let mut spaces = self.spaces.lock().unwrap_or_else(PoisonError::into_inner);
        spaces.used -= self.bytes;
        let (mut at, mut bytes) = (self.at, self.bytes);
        if let Some((&before, &length)) = spaces.free.range(..at).next_back()
            && before + length == at
        {
            spaces.free.remove(&before);
            (at, bytes) = (before, bytes + length);
        }
        if let Some(behind) = spaces.free.remove(&(at + bytes)) {
            bytes += behind;
        }
        spaces.free.insert(at, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_whole_and_in_the_same_places() {
        let arena = Arena::new(10 * GRAIN);
        let places = |arena: &Arena| {
            let [a, b, c] = [1, 2 * GRAIN, GRAIN + 1].map(|bytes| arena.take(bytes).unwrap());
            let first = [a.at(), b.at(), c.at()];
            drop(b);
            let d = arena.take(GRAIN).unwrap();
            let e = arena.take(5 * GRAIN);
            (first, d.at(), e.map(|block| block.at()))
        };
        let made = places(&arena);
        assert_eq!(made, ([0, GRAIN, 3 * GRAIN], GRAIN, Some(5 * GRAIN)));
        assert_eq!(places(&arena), made);
        assert_eq!(arena.peak(), 10 * GRAIN);
        // Everything came back as one piece.
        assert!(arena.take(10 * GRAIN + 1).is_none());
        assert_eq!(arena.take(10 * GRAIN).unwrap().bytes(), arena.size());
    }
}
