//! Where things lie, and how long a file will be before it is written.

use crate::entry::FIXED_BYTES;

/// Length of the header.
pub const HEADER_BYTES: usize = 256;
/// Payloads and the tensor table begin at multiples of this: whole cache lines, and what GPU copies like best.
pub const ALIGNMENT: u64 = 256;
/// Length of an entry of the text table.
pub const TEXT_ENTRY_BYTES: usize = 32;

/// The next multiple of [`ALIGNMENT`]; `None` when it does not fit in a u64.
pub const fn align(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(ALIGNMENT)
}

/// The exact length of a file: `tensors` gives name and payload bytes of each, in any order, and `text_bytes`
/// the stored bytes of each text. The writer itself uses it. `None` when it does not fit in a u64.
pub fn file_bytes<'a>(
    tensors: impl IntoIterator<Item = (&'a str, u64)>,
    text_bytes: impl IntoIterator<Item = u64>,
) -> Option<u64> {
    let (mut payloads, mut tail) = (HEADER_BYTES as u64, 0_u64);
    for (name, bytes) in tensors {
        payloads = payloads.checked_add(align(bytes)?)?;
        tail = tail.checked_add((FIXED_BYTES + name.len()) as u64)?;
    }
    for bytes in text_bytes {
        tail = tail.checked_add(bytes)?.checked_add(TEXT_ENTRY_BYTES as u64)?;
    }
    payloads.checked_add(tail)
}

/// `bytes` bytes of `file` from `offset`; empty when they are not all there.
pub(crate) fn slice(file: &[u8], offset: u64, bytes: u64) -> &[u8] {
    let range = usize::try_from(offset).ok().zip(usize::try_from(bytes).ok());
    let range = range.and_then(|(offset, bytes)| Some(offset..offset.checked_add(bytes)?));
    range.and_then(|range| file.get(range)).unwrap_or(&[])
}
