//! The one memory-map call.

use memmap2::Mmap;
use std::fs::File;

#[allow(unsafe_code)]
pub(crate) fn map_file(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: The mapping is private and read-only. It is sound as long as nobody writes to or truncates the file
    // while it is mapped, which `Container::open` asks of its caller; this crate itself never changes a finished
    // file: a writer makes a new one beside it and renames, which leaves the mapped one alone.
    unsafe { Mmap::map(file) }
}
