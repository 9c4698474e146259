//! Trellis codes: strips of 256 rows, the words of four adjacent columns side by side.
//!
//! Stored, a column of a strip is a bit string, first bit of a byte the most significant. On the device every strip has
//! 256 rows, whose bits are words of 32 with the first bit the most significant: segment s of a column, 32 rows, is as
//! many words as a code has bits. Four adjacent columns are a block: word k of segment s of column c of them is word
//! `32 k + 8 c + s` of the block. Rows that a strip does not have decode to something; the last 16 bits of their string are
//! those of the rows that are there, so that the ring closes as it does in the stored one.

/// Rows of a strip.
const STRIP: usize = 256;

/// Bytes of the codes of `stacked` matrices of `rows` rows each on a device.
pub fn trellis_bytes(bits: u8, rows: usize, cols: usize, stacked: usize) -> usize {
    stacked * rows.div_ceil(STRIP) * cols * STRIP / 8 * usize::from(bits)
}

/// Stored codes of `stacked` matrices of `rows` rows each, permuted for a device.
///
/// # Panics
/// When `bits` is not 2 to 6, `cols` is no multiple of 32 or `codes` has another length.
pub fn trellis_upload(bits: u8, rows: usize, cols: usize, stacked: usize, codes: &[u8]) -> Vec<u8> {
    assert!((2..=6).contains(&bits) && cols.is_multiple_of(32), "bits and width");
    let bits = usize::from(bits);
    assert_eq!(codes.len(), stacked * rows.div_ceil(8) * bits * cols, "codes");
    let mut out = vec![0; trellis_bytes(bits as u8, rows, cols, stacked)];
    let strip_bytes = cols * STRIP / 8 * bits;
    let (mut rest, mut strips) = (codes, out.chunks_exact_mut(strip_bytes.max(1)));
    for _ in 0..stacked {
        for first in (0..rows).step_by(STRIP) {
            let (Some(to), count) = (strips.next(), (rows - first).min(STRIP)) else { return out };
            let column_bytes = count.div_ceil(8) * bits;
            let (columns, behind) = rest.split_at(cols * column_bytes);
            rest = behind;
            for (col, column) in columns.chunks_exact(column_bytes).enumerate() {
                put_column(bits, column, col, to);
            }
        }
    }
    out
}

fn put_column(bits: usize, column: &[u8], col: usize, strip: &mut [u8]) {
    let mut padded = [0u8; STRIP / 8 * 6];
    let padded = &mut padded[..STRIP / 8 * bits];
    let (end, last) = (padded.len(), column.len());
    padded[end - 2..].copy_from_slice(&column[last - 2..]);
    padded[..last].copy_from_slice(column);
    for (word, bytes) in padded.as_chunks::<4>().0.iter().enumerate() {
        let at = word_place(bits, col, word / bits, word % bits);
        strip[4 * at..4 * at + 4].copy_from_slice(&u32::from_be_bytes(*bytes).to_le_bytes());
    }
}

/// Which word of a strip is word `k` of segment `segment` of a column.
fn word_place(bits: usize, col: usize, segment: usize, k: usize) -> usize {
    (col / 4 * bits + k) * 32 + col % 4 * 8 + segment
}

/// The last 32 bits up to row `row`'s own, the last one least significant, of a matrix on the device.
///
/// # Panics
/// When they are out of range.
pub fn trellis_window(bits: u8, cols: usize, codes: &[u8], row: usize, col: usize) -> u32 {
    let bits = usize::from(bits);
    let strip = &codes[row / STRIP * cols * STRIP / 8 * bits..];
    let count = STRIP * bits;
    let bit = |at: usize| {
        let word = at / 32;
        let place = 4 * word_place(bits, col, word / bits, word % bits);
        let word = u32::from_le_bytes(std::array::from_fn(|byte| strip[place + byte]));
        word >> (31 - at % 32) & 1
    };
    let end = bits * (row % STRIP + 1);
    (0..32).fold(0, |window, back| window | bit((end + count - 1 - back) % count) << back)
}
