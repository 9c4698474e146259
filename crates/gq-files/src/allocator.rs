//! What the allocator keeps of memory that was freed.

/// From which size on a buffer is mapped alone, in bytes.
pub const MAPPED_ALONE: usize = 256 << 10;

/// From now on buffers of at least [`MAPPED_ALONE`] bytes go back to the system when they are freed.
///
/// Without it glibc raises that size to the largest buffer that was ever freed, up to 32 MiB, and keeps all that is
/// smaller for the thread that had it: how much memory a program takes then depends on which thread freed what first
/// (mallopt(3), `M_MMAP_THRESHOLD`). Every large buffer costs a system call and fresh pages instead: for commands that
/// promise their memory, not for generation. Other allocators are left as they are.
pub fn return_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::set();
}

/// Gives back what was freed in small pieces: after something of many pieces is gone, such as a tokenizer.
pub fn return_small_pieces() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::trim();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
mod glibc {
    pub(super) fn trim() {
        // SAFETY: `malloc_trim` may be called at any time from any thread; it takes a number and no pointer.
        unsafe { libc::malloc_trim(0) };
    }

    pub(super) fn set() {
        // SAFETY: `mallopt` may be called at any time from any thread; it takes two numbers and no pointer.
        let taken = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, super::MAPPED_ALONE as libc::c_int) };
        debug_assert_eq!(taken, 1, "the value is below half of an arena's size");
    }
}
