//! Matrices of integer codes with a scale for each group of columns, as quantizers pack them into words of 32 bits. Rows are
//! put together as they are asked for; nothing else is read or held.

use gq_tensor::{DType, decode_f32};
use serde::Serialize;
use std::ops::Range;

/// How the pieces of a matrix `[rows, cols]` of codes lie in a file. A value is (code - zero) * scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Packing {
    /// compressed-tensors: codes in words along a row (`[rows, ceil(cols * bits / 32)]`), the lowest bits first, scales
    /// `[rows, groups]`, zero points in words that go down the rows (`[ceil(rows * bits / 32), groups]`).
    CompressedTensors,
    /// GPTQ: codes in words down the columns of the transposed matrix (`[cols * bits / 32, rows]`), the lowest bits first,
    /// scales `[groups, rows]`, zero points less `less` in words along the rows (`[groups, rows * bits / 32]`).
    Gptq {
        /// What zero points have less than they are: 1, or 0 in the second version. Those that pass the largest code
        /// begin at 0 again.
        less: u8,
    },
    /// AWQ for its GEMM kernels, 4 bits: codes (`[cols, rows / 8]`) and zero points (`[groups, rows / 8]`) of eight rows
    /// in a word, rows 0, 2, 4, 6, 1, 3, 5, 7 of them from the lowest bits on; scales `[groups, rows]`.
    Awq,
}

/// Integer codes: the pieces are codes, scales, then zero points and the group of each column, where there are such.
/// A row put together is its codes in whole words, its scales, its zero points in a byte each, and the groups of columns
/// in two bytes each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Integers {
    /// How the pieces lie.
    pub packing: Packing,
    /// Bits of a code: 4 or 8.
    pub bits: u8,
    /// Columns of a scale.
    pub group: usize,
    /// Whether there are zero points; without, zero is half of the codes' range.
    pub zeros: bool,
    /// Whether a piece says which group a column is of (`g_idx`); without, groups are columns next to each other.
    pub order: bool,
    /// Type of the scales.
    pub scale: DType,
    /// Rows of the pieces.
    pub rows: usize,
    /// Row of the pieces that this matrix begins with: not 0 where files have several matrices in one.
    pub first: usize,
}

/// Place in a word of [`Packing::Awq`] of each of eight rows.
const AWQ_PLACES: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

impl Integers {
    fn words(self, codes: usize) -> usize {
        (codes * usize::from(self.bits)).div_ceil(32)
    }

    fn groups(self, cols: usize) -> usize {
        cols / self.group.max(1)
    }

    /// Ends of codes, scales, zero points and groups of columns in a row that is put together.
    fn ends(self, cols: usize) -> [usize; 4] {
        let groups = self.groups(cols);
        let codes = self.words(cols) * 4;
        let scales = codes + groups * self.scale.size();
        let zeros = scales + if self.zeros { groups } else { 0 };
        [codes, scales, zeros, zeros + if self.order { 2 * cols } else { 0 }]
    }

    /// Bytes of a row that is put together.
    pub(crate) fn row_bytes(self, cols: usize) -> usize {
        self.ends(cols)[3]
    }

    /// Bits of a code, of its byte.
    fn code(self, byte: u8, bit: usize) -> u8 {
        byte >> (bit % 8) & (u8::MAX >> (8 - self.bits.clamp(1, 8)))
    }

    /// Rows into `out`. `fetch(piece, offset, bytes)` reads bytes of a piece from an offset in it on.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub(crate) fn gather<E>(
        self,
        cols: usize,
        rows: Range<usize>,
        mut fetch: impl FnMut(usize, u64, &mut [u8]) -> Result<(), E>,
        out: &mut [u8],
    ) -> Result<(), E> {
        let row_bytes = self.row_bytes(cols);
        if rows.is_empty() || row_bytes == 0 {
            return Ok(());
        }
        let rows = self.first + rows.start..self.first + rows.end;
        let [codes, scales, zeros, _] = self.ends(cols);
        self.gather_codes(cols, &rows, &mut fetch, out)?;
        let (size, groups, mut buffer) = (self.scale.size(), self.groups(cols), Vec::new());
        match self.packing {
            Packing::CompressedTensors => {
                buffer.resize(rows.len() * groups * size, 0);
                fetch(1, (rows.start * groups * size) as u64, &mut buffer)?;
                let stored = buffer.chunks_exact((groups * size).max(1));
                for (row, stored) in out.chunks_exact_mut(row_bytes).zip(stored) {
                    row[codes..scales].copy_from_slice(stored);
                }
            }
            Packing::Gptq { .. } | Packing::Awq => {
                let places = (codes..scales).step_by(size.max(1));
                self.columns([1, size], &rows, places, &mut fetch, out)?;
            }
        }
        if self.zeros {
            self.gather_zeros(&rows, scales..zeros, &mut fetch, out)?;
        }
        if self.order {
            buffer.resize(cols * 4, 0);
            fetch(2 + usize::from(self.zeros), 0, &mut buffer)?;
            for (col, word) in buffer.chunks_exact(4).enumerate() {
                let group = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
                // A negative one is none: columns next to each other. What is no group has no scale, which decodes to NaN.
                let group = if group < 0 { col / self.group.max(1) } else { group as usize };
                let group = u16::try_from(group).unwrap_or(u16::MAX).to_le_bytes();
                for row in out.chunks_exact_mut(row_bytes) {
                    row[zeros + 2 * col..][..2].copy_from_slice(&group);
                }
            }
        }
        Ok(())
    }

    /// Elements of `size` bytes of a piece `[places, rows]`: those of a row go to its places.
    fn columns<E>(
        self,
        [piece, size]: [usize; 2],
        rows: &Range<usize>,
        places: impl Iterator<Item = usize>,
        fetch: &mut impl FnMut(usize, u64, &mut [u8]) -> Result<(), E>,
        out: &mut [u8],
    ) -> Result<(), E> {
        let mut buffer = vec![0; rows.len() * size];
        let row_bytes = (out.len() / rows.len().max(1)).max(1);
        for (index, place) in places.enumerate() {
            fetch(piece, ((index * self.rows + rows.start) * size) as u64, &mut buffer)?;
            for (row, stored) in out.chunks_exact_mut(row_bytes).zip(buffer.chunks_exact(size.max(1))) {
                row[place..place + size].copy_from_slice(stored);
            }
        }
        Ok(())
    }

    fn gather_codes<E>(
        self,
        cols: usize,
        rows: &Range<usize>,
        fetch: &mut impl FnMut(usize, u64, &mut [u8]) -> Result<(), E>,
        out: &mut [u8],
    ) -> Result<(), E> {
        let (width, row_bytes) = (self.words(cols) * 4, self.row_bytes(cols));
        match self.packing {
            Packing::CompressedTensors => {
                let mut buffer = vec![0; rows.len() * width];
                fetch(0, (rows.start * width) as u64, &mut buffer)?;
                for (row, stored) in out.chunks_exact_mut(row_bytes).zip(buffer.chunks_exact(width)) {
                    row[..width].copy_from_slice(stored);
                }
                Ok(())
            }
            Packing::Gptq { .. } => self.columns([0, 4], rows, (0..width).step_by(4), fetch, out),
            Packing::Awq => {
                let across = self.rows / 8;
                let words = rows.start / 8..rows.end.div_ceil(8);
                let mut buffer = vec![0; words.len() * 4];
                for col in 0..cols {
                    fetch(0, ((col * across + words.start) * 4) as u64, &mut buffer)?;
                    for (row, out) in rows.clone().zip(out.chunks_exact_mut(row_bytes)) {
                        let bit = 4 * AWQ_PLACES[row % 8];
                        let code = self.code(buffer[(row / 8 - words.start) * 4 + bit / 8], bit);
                        let byte = &mut out[col / 2];
                        *byte = if col % 2 == 0 { code } else { *byte | code << 4 };
                    }
                }
                // Columns of a last word that is not full.
                let used = cols.div_ceil(2);
                out.chunks_exact_mut(row_bytes).for_each(|row| row[used..width].fill(0));
                Ok(())
            }
        }
    }

    /// Zero points, a byte each, to `place` of rows.
    fn gather_zeros<E>(
        self,
        rows: &Range<usize>,
        place: Range<usize>,
        fetch: &mut impl FnMut(usize, u64, &mut [u8]) -> Result<(), E>,
        out: &mut [u8],
    ) -> Result<(), E> {
        let (bits, groups) = (usize::from(self.bits), place.len());
        let row_bytes = (out.len() / rows.len().max(1)).max(1);
        let words = rows.start * bits / 32..(rows.end * bits).div_ceil(32);
        let mut buffer = vec![0; words.len() * groups * 4];
        // Words that go down the rows stand beside those of other groups, those along the rows before the next group's.
        let down = self.packing == Packing::CompressedTensors;
        if down {
            fetch(2, (words.start * groups * 4) as u64, &mut buffer)?;
        } else {
            let across = self.words(self.rows);
            for (group, part) in buffer.chunks_exact_mut((words.len() * 4).max(1)).enumerate() {
                fetch(2, ((group * across + words.start) * 4) as u64, part)?;
            }
        }
        for (row, out) in rows.clone().zip(out.chunks_exact_mut(row_bytes)) {
            // Codes of 4 or 8 bits never go from one byte to the next.
            let bit = row * bits;
            let (word, bit) = (bit / 32 - words.start, bit % 32);
            let bit = if self.packing == Packing::Awq { 4 * AWQ_PLACES[row % 8] } else { bit };
            for (group, zero) in out[place.clone()].iter_mut().enumerate() {
                let word = if down { word * groups + group } else { group * words.len() + word };
                let stored = self.code(buffer[word * 4 + bit / 8], bit);
                *zero = match self.packing {
                    Packing::Gptq { less } => self.code(stored.wrapping_add(less), 0),
                    Packing::CompressedTensors | Packing::Awq => stored,
                };
            }
        }
        Ok(())
    }

    /// Decodes a row that was put together. A column of no group is NaN.
    pub(crate) fn decode_row(self, row: &[u8], out: &mut [f32]) {
        let (cols, bits) = (out.len(), usize::from(self.bits));
        let [codes, scales, zeros, end] = self.ends(cols);
        let part = |range: Range<usize>| row.get(range).unwrap_or_default();
        let (points, order) = (part(scales..zeros), part(zeros..end));
        let mut values = vec![0.0; self.groups(cols)];
        decode_f32(self.scale, part(codes..scales), &mut values);
        let half = 1 << (self.bits.clamp(1, 8) - 1);
        for (col, value) in out.iter_mut().enumerate() {
            let group = match order.get(2 * col..2 * col + 2) {
                Some(group) => usize::from(u16::from_le_bytes([group[0], group[1]])),
                None => col / self.group.max(1),
            };
            let bit = col * bits;
            let code = row.get(bit / 8).map_or(0, |byte| self.code(*byte, bit));
            let zero = points.get(group).copied().unwrap_or(half);
            let scale = values.get(group).copied().unwrap_or(f32::NAN);
            *value = f32::from(i16::from(code) - i16::from(zero)) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    const PLAIN: Integers = Integers {
        packing: Packing::CompressedTensors,
        bits: 4,
        group: 32,
        zeros: false,
        order: false,
        scale: DType::BF16,
        rows: 10,
        first: 0,
    };

    /// Puts rows together from pieces in memory.
    fn gather(integers: Integers, cols: usize, rows: Range<usize>, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0; rows.len() * integers.row_bytes(cols)];
        let fetch = |piece: usize, offset: u64, out: &mut [u8]| -> Result<(), Infallible> {
            out.copy_from_slice(&pieces[piece][offset as usize..][..out.len()]);
            Ok(())
        };
        integers.gather(cols, rows, fetch, &mut out).unwrap();
        out
    }

    #[test]
    fn integer_codes_scales_and_zero_points_come_from_their_pieces() {
        // Ten rows of 64 columns: code (row + col) % 16, scale 2^group, zero (row + group) % 16.
        let code = |row: usize, col: usize| ((row + col) % 16) as u8;
        let zero = |row: usize, group: usize| ((row + group) % 16) as u32;
        let codes: Vec<u8> =
            (0..10 * 32).map(|at| code(at / 32, at % 32 * 2) | code(at / 32, at % 32 * 2 + 1) << 4).collect();
        let scales: Vec<u8> =
            (0..10).flat_map(|_| [0x3F80u16, 0x4000].map(u16::to_le_bytes)).flatten().collect();
        // Two words of eight rows, the second of them with two.
        let word = |word: usize, group: usize| {
            (8 * word..10.min(8 * word + 8))
                .fold(0u32, |bits, row| bits | zero(row, group) << (4 * (row % 8)))
        };
        let zeros: Vec<u8> = (0..4).flat_map(|at| word(at / 2, at % 2).to_le_bytes()).collect();
        let packed = |zeros| Integers { bits: 4, group: 32, zeros, scale: DType::BF16, ..PLAIN };
        for rows in [0..10, 3..5, 7..10, 8..9] {
            let with = gather(packed(true), 64, rows.clone(), &[&codes, &scales, &zeros]);
            let without = gather(packed(false), 64, rows.clone(), &[&codes, &scales]);
            assert_eq!((with.len(), without.len()), (rows.len() * 38, rows.len() * 36));
            for (index, row) in rows.enumerate() {
                let (mut a, mut b) = ([0.0; 64], [0.0; 64]);
                packed(true).decode_row(&with[38 * index..][..38], &mut a);
                packed(false).decode_row(&without[36 * index..][..36], &mut b);
                for col in 0..64 {
                    let (group, scale) = (col / 32, [1.0, 2.0][col / 32]);
                    let code = f32::from(code(row, col));
                    assert_eq!(a[col], (code - zero(row, group) as f32) * scale, "{row} {col}");
                    assert_eq!(b[col], (code - 8.0) * scale, "{row} {col}");
                }
            }
        }
        // Eight bits: a word has four rows.
        let bytes: Vec<u8> = (0..=255).collect();
        let eight = Integers { bits: 8, group: 64, zeros: true, scale: DType::F32, rows: 2, ..PLAIN };
        let scales = [1f32.to_le_bytes(), 0.5f32.to_le_bytes()].concat();
        let rows = gather(eight, 64, 1..2, &[&bytes[..128], &scales, &[7, 9, 0, 0]]);
        let mut values = [0.0; 64];
        eight.decode_row(&rows, &mut values);
        assert_eq!((values[0], values[63]), ((64.0 - 9.0) / 2.0, (127.0 - 9.0) / 2.0));
    }
}
