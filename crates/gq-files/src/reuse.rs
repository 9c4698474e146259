//! An allocator that keeps some of the large buffers that were freed, for the next ones of the same size.
//!
//! Work on matrices frees and asks for the same few sizes again and again. The system zeroes every page of a fresh
//! buffer when it is first touched, which took a third of the time of measuring SmolLM2; a buffer that is used again
//! costs nothing. How much is kept at most is known, so that it can be promised.
#![allow(unsafe_code)]

use crate::allocator::MAPPED_ALONE;
use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Buffers that are kept at most.
const SLOTS: usize = 64;

/// The system's allocator, with buffers of at least [`MAPPED_ALONE`] bytes kept while [`Reuser::keep`] allows it.
///
/// At first nothing is kept.
pub struct Reuser {
    /// Bytes that may be kept.
    limit: AtomicUsize,
    /// Whether a thread is looking at `kept`. One that finds it taken goes to the system instead of waiting.
    taken: AtomicBool,
    kept: std::cell::UnsafeCell<Kept>,
}

struct Kept {
    /// The oldest first.
    buffers: [(*mut u8, Layout); SLOTS],
    count: usize,
    bytes: usize,
}

// SAFETY: `kept` is only looked at by the thread that set `taken`.
unsafe impl Sync for Reuser {}

impl Reuser {
    /// One that keeps nothing yet.
    pub const fn new() -> Reuser {
        let nothing = (null_mut(), Layout::new::<u8>());
        let kept = Kept { buffers: [nothing; SLOTS], count: 0, bytes: 0 };
        Reuser {
            limit: AtomicUsize::new(0),
            taken: AtomicBool::new(false),
            kept: std::cell::UnsafeCell::new(kept),
        }
    }

    /// From now on keeps at most `bytes` of freed buffers; what is above that goes back to the system.
    pub fn keep(&self, bytes: usize) {
        self.limit.store(bytes, Ordering::Relaxed);
        while self.with(|kept| kept.shrink(bytes)).is_none() {
            std::thread::yield_now();
        }
    }

    /// Runs `look` on what is kept; `None` where another thread is at it.
    fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> Option<T> {
        if self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: this thread has set `taken`, and nobody else looks until it is cleared.
        let result = look(unsafe { &mut *self.kept.get() });
        self.taken.store(false, Ordering::Release);
        Some(result)
    }

    fn used_again(&self, layout: Layout) -> Option<*mut u8> {
        let may = layout.size() >= MAPPED_ALONE && self.limit.load(Ordering::Relaxed) > 0;
        may.then(|| self.with(|kept| kept.find(layout)).flatten()).flatten()
    }
}

impl Default for Reuser {
    fn default() -> Reuser {
        Reuser::new()
    }
}

impl Kept {
    fn find(&mut self, layout: Layout) -> Option<*mut u8> {
        // The newest is the likeliest to be in a cache.
        let at = self.buffers[..self.count].iter().rposition(|(_, kept)| *kept == layout)?;
        Some(self.take(at).0)
    }

    fn take(&mut self, at: usize) -> (*mut u8, Layout) {
        let taken = self.buffers[at];
        self.buffers.copy_within(at + 1..self.count, at);
        self.count -= 1;
        self.bytes -= taken.1.size();
        taken
    }

    /// Gives the oldest back until at most `bytes` are left.
    fn shrink(&mut self, bytes: usize) {
        while self.bytes > bytes {
            let (buffer, layout) = self.take(0);
            // SAFETY: it came from `System` with this layout, and its owner has freed it.
            unsafe { System.dealloc(buffer, layout) };
        }
    }

    /// Whether the buffer was kept.
    fn add(&mut self, buffer: *mut u8, layout: Layout, limit: usize) -> bool {
        if layout.size() > limit {
            return false;
        }
        let room = limit - layout.size();
        self.shrink(if self.count == SLOTS { room.min(self.bytes - 1) } else { room });
        self.buffers[self.count] = (buffer, layout);
        self.count += 1;
        self.bytes += layout.size();
        true
    }
}

// SAFETY: every buffer comes from `System` with the layout that it is given out and given back with; one that is kept
// belongs to nobody else, for its owner has freed it and it leaves `kept` when it is given out.
unsafe impl GlobalAlloc for Reuser {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.used_again(layout) {
            Some(buffer) => buffer,
            // SAFETY: as the caller promises.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.used_again(layout) {
            Some(buffer) => {
                // SAFETY: the buffer has this many bytes, and nobody else has it.
                unsafe { buffer.write_bytes(0, layout.size()) };
                buffer
            }
            // SAFETY: as the caller promises.
            None => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, buffer: *mut u8, layout: Layout) {
        let limit = self.limit.load(Ordering::Relaxed);
        let kept = layout.size() >= MAPPED_ALONE
            && limit > 0
            && self.with(|kept| kept.add(buffer, layout, limit)).unwrap_or(false);
        if !kept {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(buffer, layout) };
        }
    }

    unsafe fn realloc(&self, buffer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises.
        unsafe { System.realloc(buffer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 16).unwrap()
    }

    /// Fills a fresh buffer and frees it.
    fn used(reuser: &Reuser, layout: Layout) -> *mut u8 {
        // SAFETY: the layout is not empty, and the buffer is freed with it.
        unsafe {
            let buffer = reuser.alloc(layout);
            assert!(!buffer.is_null());
            buffer.write_bytes(7, layout.size());
            reuser.dealloc(buffer, layout);
            buffer
        }
    }

    fn kept(reuser: &Reuser) -> (usize, usize) {
        reuser.with(|kept| (kept.count, kept.bytes)).unwrap()
    }

    #[test]
    fn a_buffer_of_the_same_size_is_used_again_and_zeroed_where_that_is_asked_for() {
        let (reuser, large) = (Reuser::new(), layout(MAPPED_ALONE));
        used(&reuser, large);
        assert_eq!(kept(&reuser), (0, 0), "nothing is kept unless that is allowed");
        reuser.keep(4 * MAPPED_ALONE);
        let first = used(&reuser, large);
        assert_eq!(kept(&reuser), (1, MAPPED_ALONE));
        assert_eq!(used(&reuser, large), first);
        used(&reuser, layout(MAPPED_ALONE - 1));
        assert_eq!(kept(&reuser), (1, MAPPED_ALONE), "small ones are not kept");
        // SAFETY: as above.
        unsafe {
            let other = reuser.alloc(layout(MAPPED_ALONE + 1));
            assert_ne!(other, first);
            reuser.dealloc(other, layout(MAPPED_ALONE + 1));
            let again = reuser.alloc_zeroed(large);
            assert_eq!(again, first);
            assert!(std::slice::from_raw_parts(again, MAPPED_ALONE).iter().all(|byte| *byte == 0));
            reuser.dealloc(again, large);
        }
        reuser.keep(0);
        assert_eq!(kept(&reuser), (0, 0));
    }

    #[test]
    fn no_more_is_kept_than_allowed_and_the_oldest_goes_first() {
        let reuser = Reuser::new();
        reuser.keep(3 * MAPPED_ALONE + 3);
        let sizes: Vec<Layout> = (0..4).map(|more| layout(MAPPED_ALONE + more)).collect();
        for size in &sizes {
            used(&reuser, *size);
        }
        assert_eq!(kept(&reuser), (2, 2 * MAPPED_ALONE + 5));
        assert_eq!(reuser.with(|kept| kept.find(sizes[1])).unwrap(), None);
        used(&reuser, layout(4 * MAPPED_ALONE));
        assert_eq!(kept(&reuser).0, 2, "one that is too large drives nothing out");
        reuser.keep(1 << 40);
        for more in 0..2 * SLOTS {
            used(&reuser, layout(MAPPED_ALONE + 16 * more));
        }
        assert!(kept(&reuser).0 <= SLOTS);
        reuser.keep(MAPPED_ALONE);
        assert!(kept(&reuser).1 <= MAPPED_ALONE);
        reuser.keep(0);
    }

    #[test]
    fn threads_never_share_a_buffer() {
        let reuser = Reuser::new();
        reuser.keep(8 * MAPPED_ALONE);
        std::thread::scope(|scope| {
            for mark in 1..=4u8 {
                let reuser = &reuser;
                scope.spawn(move || {
                    for _ in 0..200 {
                        // SAFETY: as above.
                        unsafe {
                            let buffer = reuser.alloc(layout(MAPPED_ALONE));
                            buffer.write_bytes(mark, 4096);
                            std::thread::yield_now();
                            let seen = std::slice::from_raw_parts(buffer, 4096);
                            assert!(seen.iter().all(|byte| *byte == mark));
                            reuser.dealloc(buffer, layout(MAPPED_ALONE));
                        }
                    }
                });
            }
        });
        reuser.keep(0);
        assert_eq!(kept(&reuser), (0, 0));
    }
}
