//! Bit planes: how a row's codes become bytes.

/// Elements per packing group.
pub(crate) const GROUP: usize = 32;

/// Widths of the planes of a `bits`-wide code, least significant bits first.
///
/// A row is its planes one after another; a plane of width w has `cols * w / 8` bytes, and 32 elements
/// take `4 w` adjacent bytes: element j is in byte `j % 4w`, at bit `w * (j / 4w)`.
pub(crate) const fn planes(bits: u8) -> &'static [u8] {
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

/// Packs a row of codes, one per byte, into `codes.len() * bits / 8` bytes.
#[inline(always)]
pub(crate) fn pack_row(bits: u8, codes: &[u8], out: &mut [u8]) {
    let (groups, _) = codes.as_chunks::<GROUP>();
    let (mut rest, mut low) = (out, 0);
    for &width in planes(bits) {
        let (plane, tail) = rest.split_at_mut(codes.len() * usize::from(width) / 8);
        match width {
            1 => pack_plane::<1, 4>(groups, low, plane),
            2 => pack_plane::<2, 8>(groups, low, plane),
            4 => pack_plane::<4, 16>(groups, low, plane),
            _ => plane.copy_from_slice(codes),
        }
        (rest, low) = (tail, low + width);
    }
}

#[inline(always)]
fn pack_plane<const W: usize, const BYTES: usize>(groups: &[[u8; GROUP]], low: u8, plane: &mut [u8]) {
    let (bytes, _) = plane.as_chunks_mut::<BYTES>();
    for (codes, bytes) in groups.iter().zip(bytes) {
        *bytes = [0; BYTES];
        for (shift, codes) in codes.chunks_exact(BYTES).enumerate() {
            for (byte, &code) in bytes.iter_mut().zip(codes) {
                *byte |= (code >> low & ((1 << W) - 1)) << (W * shift);
            }
        }
    }
}

/// The inverse of [`pack_row`].
#[inline(always)]
pub(crate) fn unpack_row(bits: u8, bytes: &[u8], codes: &mut [u8]) {
    let cols = codes.len();
    if bits == 8 {
        codes.copy_from_slice(bytes);
        return;
    }
    codes.fill(0);
    let (groups, _) = codes.as_chunks_mut::<GROUP>();
    let (mut rest, mut low) = (bytes, 0);
    for &width in planes(bits) {
        let (plane, tail) = rest.split_at(cols * usize::from(width) / 8);
        match width {
            1 => unpack_plane::<1, 4>(plane, low, groups),
            2 => unpack_plane::<2, 8>(plane, low, groups),
            _ => unpack_plane::<4, 16>(plane, low, groups),
        }
        (rest, low) = (tail, low + width);
    }
}

#[inline(always)]
fn unpack_plane<const W: usize, const BYTES: usize>(plane: &[u8], low: u8, groups: &mut [[u8; GROUP]]) {
    let (bytes, _) = plane.as_chunks::<BYTES>();
    for (codes, bytes) in groups.iter_mut().zip(bytes) {
        for (shift, codes) in codes.chunks_exact_mut(BYTES).enumerate() {
            for (code, &byte) in codes.iter_mut().zip(bytes) {
                *code |= (byte >> (W * shift) & ((1 << W) - 1)) << low;
            }
        }
    }
}

/// The codes of one packing group of a packed row.
#[inline(always)]
pub(crate) fn group_codes(bits: u8, row: &[u8], cols: usize, group: usize) -> [u8; GROUP] {
    let mut codes = [0; GROUP];
    let (mut start, mut low) = (0, 0);
    for &width in planes(bits) {
        let bytes = 4 * usize::from(width);
        let at = start + group * bytes;
        if let Some(plane) = row.get(at..at + bytes) {
            let codes = std::slice::from_mut(&mut codes);
            match width {
                1 => unpack_plane::<1, 4>(plane, low, codes),
                2 => unpack_plane::<2, 8>(plane, low, codes),
                4 => unpack_plane::<4, 16>(plane, low, codes),
                _ => codes.as_flattened_mut().copy_from_slice(plane),
            }
        }
        start += cols / 8 * usize::from(width);
        low += width;
    }
    codes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_add_up_and_rows_round_trip() {
        for bits in 1..=8u8 {
            assert_eq!(planes(bits).iter().sum::<u8>(), bits);
            let mask = if bits == 8 { 255 } else { (1 << bits) - 1 };
            let codes: Vec<u8> = (0..96u32).map(|i| (i * 37 + i / 7) as u8 & mask).collect();
            let mut bytes = vec![0xAA; 96 * usize::from(bits) / 8];
            pack_row(bits, &codes, &mut bytes);
            let mut back = vec![0x55; 96];
            unpack_row(bits, &bytes, &mut back);
            assert_eq!(codes, back, "{bits} bits");
        }
    }

    #[test]
    fn positions_are_those_of_the_specification() {
        let position = |bits: u8, element: usize, code: u8| {
            let mut codes = [0; GROUP];
            codes[element] = code;
            let mut bytes = vec![0; 4 * usize::from(bits)];
            pack_row(bits, &codes, &mut bytes);
            let byte = bytes.iter().position(|&b| b != 0).unwrap();
            (byte, bytes[byte])
        };
        assert_eq!(position(4, 3, 0xA), (3, 0x0A));
        assert_eq!(position(4, 19, 0xA), (3, 0xA0));
        assert_eq!(position(2, 17, 3), (1, 3 << 4));
        assert_eq!(position(1, 31, 1), (3, 1 << 7));
        assert_eq!(position(5, 6, 1 << 4), (16 + 2, 1 << 1));
    }
}
