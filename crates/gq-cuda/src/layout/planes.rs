//! Scalar codes and grids: planes of the whole matrix, words that are selectors of byte permutes.
//!
//! Stored, a row is its planes one after another. On the device every plane has all rows, widest plane first, so that
//! loads are aligned and lanes next to each other read words next to each other. Of 32 elements, element `8 k + n` has its
//! part in nibble `n` of word `k` where the plane has 4 bits, at bit `2 (k mod 2)` of nibble `n` of word `k / 2` where it
//! has 2, at bit `k` of nibble `n` where it has 1; a plane of 8 bits is as it was.

/// Elements of a packing group.
const GROUP: usize = 32;

/// Widths of the planes of a code, least significant bits first.
fn plane_widths(bits: u8) -> &'static [usize] {
    match bits {
        1 => &[1],
        2 => &[2],
        3 => &[2, 1],
        4 => &[4],
        5 => &[4, 1],
        6 => &[4, 2],
        7 => &[4, 2, 1],
        8 => &[8],
        _ => &[],
    }
}

/// Where the part of element `e` of a group lies in a plane of `width` bits: its lowest bit.
fn place(width: usize, e: usize) -> usize {
    let (k, n) = (e / 8, e % 8);
    match width {
        8 => 8 * e,
        4 => 32 * k + 4 * n,
        2 => 32 * (k / 2) + 4 * n + 2 * (k % 2),
        _ => 4 * n + k,
    }
}

/// Stored codes of `rows` rows of `cols` elements, permuted for a device: as many bytes.
///
/// # Panics
/// When `bits` is not 1 to 8, `cols` is no multiple of 32 or `codes` has another length.
pub fn planes_upload(bits: u8, rows: usize, cols: usize, codes: &[u8]) -> Vec<u8> {
    assert!((1..=8).contains(&bits) && cols.is_multiple_of(GROUP), "bits and width");
    let row_bytes = cols / 8 * usize::from(bits);
    assert_eq!(codes.len(), rows * row_bytes, "codes");
    let mut out = vec![0; codes.len()];
    let (mut from_plane, mut to_plane) = (0, 0);
    for &width in plane_widths(bits) {
        let (plane_bytes, group_bytes) = (cols / 8 * width, 4 * width);
        let rows_of_plane = out[to_plane..to_plane + rows * plane_bytes].chunks_exact_mut(plane_bytes.max(1));
        for (to, from) in rows_of_plane.zip(codes.chunks_exact(row_bytes.max(1))) {
            let from = &from[from_plane..from_plane + plane_bytes];
            for (to, from) in to.chunks_exact_mut(group_bytes).zip(from.chunks_exact(group_bytes)) {
                if width == 8 {
                    to.copy_from_slice(from);
                    continue;
                }
                for e in 0..GROUP {
                    let part = from[e % group_bytes] >> (width * (e / group_bytes)) & ((1 << width) - 1);
                    let at = place(width, e);
                    to[at / 8] |= part << (at % 8);
                }
            }
        }
        from_plane += plane_bytes;
        to_plane += rows * plane_bytes;
    }
    out
}

/// The code of an element of a matrix on the device.
///
/// # Panics
/// When it is out of range, or `codes` is too short.
pub fn plane_code(bits: u8, rows: usize, cols: usize, codes: &[u8], row: usize, col: usize) -> u8 {
    assert!(row < rows && col < cols, "element");
    let (mut plane, mut low, mut code) = (0, 0, 0);
    for &width in plane_widths(bits) {
        let group = (row * cols + col) / GROUP;
        let at = place(width, col % GROUP);
        let byte = codes[plane + group * 4 * width + at / 8];
        let part = if width == 8 { byte } else { byte >> (at % 8) & ((1 << width) - 1) };
        code |= part << low;
        (plane, low) = (plane + rows * cols / 8 * width, low + width);
    }
    code
}
