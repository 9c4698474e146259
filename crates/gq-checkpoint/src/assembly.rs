//! Matrices that files have in another way than the graph: transposed, gate and up rows in turn, codes and their scales in
//! tensors of their own. Rows are put together as they are asked for; nothing else is read or held.

use crate::integers::Integers;
use serde::Serialize;
use std::ops::Range;

/// Elements that share a power of two.
const GROUP: usize = 32;

/// How rows of matrices `[rows, cols]`, one below the other, come from the pieces of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Assembly {
    /// The file has each matrix as `[cols, rows]`, in one piece.
    Transposed {
        /// Whether rows of the upper half and of the lower half stand in turn in the file: gate, up, gate, ….
        alternating: bool,
    },
    /// OCP MXFP4: the first piece has two codes a byte, the lower four bits first (`[rows, cols / 32, 16]`), the second a
    /// power of two for each 32 elements (`[rows, cols / 32]`). A row put together is its codes, then its powers.
    Mxfp4 {
        /// As above.
        alternating: bool,
    },
    /// Integer codes with scales of groups.
    Packed(Integers),
}

/// Matrices that are put together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrices {
    /// Rows of each.
    pub(crate) rows_per_matrix: usize,
    /// Elements of a row.
    pub(crate) cols: usize,
    /// Bytes of an element, where elements have whole bytes.
    pub(crate) size: usize,
}

/// Rows of one matrix that stand in the file at equal distances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    matrix: usize,
    /// Row of the file.
    first: usize,
    step: usize,
    count: usize,
}

impl Run {
    /// Rows of the file from the first to the last.
    fn span(self) -> usize {
        self.count.saturating_sub(1) * self.step + 1
    }
}

impl Assembly {
    fn alternating(self) -> bool {
        match self {
            Assembly::Transposed { alternating } | Assembly::Mxfp4 { alternating } => alternating,
            Assembly::Packed(_) => false,
        }
    }

    /// Whether elements are 4-bit floats.
    pub(crate) fn is_mxfp4(self) -> bool {
        matches!(self, Assembly::Mxfp4 { .. })
    }

    /// Bits of integer codes, where elements are such.
    pub(crate) fn integer_bits(self) -> Option<u8> {
        match self {
            Assembly::Packed(integers) => Some(integers.bits),
            _ => None,
        }
    }

    /// Decodes a row of codes that was put together; false where rows are values.
    pub(crate) fn decode_row(self, row: &[u8], out: &mut [f32]) -> bool {
        match self {
            Assembly::Transposed { .. } => return false,
            Assembly::Mxfp4 { .. } => decode_mxfp4(row, out),
            Assembly::Packed(integers) => integers.decode_row(row, out),
        }
        true
    }

    /// Values of one matrix, row after row, in the order that the file has them in; codes are not made.
    pub fn as_stored(self, values: &[f32], rows_per_matrix: usize) -> Vec<f32> {
        let cols = values.len() / rows_per_matrix.max(1);
        let mut stored = vec![0.0; values.len()];
        for (row, values) in values.chunks_exact(cols.max(1)).enumerate() {
            let row = if self.alternating() { alternating_row(row, rows_per_matrix) } else { row };
            for (col, value) in values.iter().enumerate() {
                let at = match self {
                    Assembly::Transposed { .. } => col * rows_per_matrix + row,
                    Assembly::Mxfp4 { .. } | Assembly::Packed(_) => row * cols + col,
                };
                stored[at] = *value;
            }
        }
        stored
    }

    /// Bytes of a row that is put together.
    pub(crate) fn row_bytes(self, cols: usize, size: usize) -> usize {
        match self {
            Assembly::Transposed { .. } => cols * size,
            Assembly::Mxfp4 { .. } => cols / 2 + cols / GROUP,
            Assembly::Packed(integers) => integers.row_bytes(cols),
        }
    }

    fn runs(self, rows: Range<usize>, rows_per_matrix: usize) -> Vec<Run> {
        let (rows_per_matrix, mut runs, mut row) = (rows_per_matrix.max(1), Vec::new(), rows.start);
        let half = rows_per_matrix / 2;
        while row < rows.end {
            let (matrix, place) = (row / rows_per_matrix, row % rows_per_matrix);
            let (first, step, end) = match self.alternating() {
                true if place < half => (2 * place, 2, half),
                true => (2 * (place - half) + 1, 2, rows_per_matrix),
                false => (place, 1, rows_per_matrix),
            };
            let count = (end - place).min(rows.end - row);
            runs.push(Run { matrix, first, step, count });
            row += count;
        }
        runs
    }

    /// Rows into `out`. `fetch(piece, offset, bytes)` reads bytes of a piece from an offset in it on.
    ///
    /// # Errors
    /// Those of `fetch`.
    pub(crate) fn gather<E>(
        self,
        Matrices { rows_per_matrix, cols, size }: Matrices,
        rows: Range<usize>,
        mut fetch: impl FnMut(usize, u64, &mut [u8]) -> Result<(), E>,
        out: &mut [u8],
    ) -> Result<(), E> {
        if let Assembly::Packed(integers) = self {
            return integers.gather(cols, rows, fetch, out);
        }
        let row_bytes = self.row_bytes(cols, size).max(1);
        let (mut buffer, mut rest) = (Vec::new(), out);
        for run in self.runs(rows, rows_per_matrix) {
            let here = (run.count * row_bytes).min(rest.len());
            let (out, behind) = std::mem::take(&mut rest).split_at_mut(here);
            let first = run.matrix * rows_per_matrix + run.first;
            // Pieces that have bytes of their own for every row, one behind the other in a row that is put together.
            let widths = match self {
                Assembly::Mxfp4 { .. } => [cols / 2, cols / GROUP],
                Assembly::Transposed { .. } | Assembly::Packed(_) => [0, 0],
            };
            let mut at = 0;
            for (piece, width) in widths.into_iter().enumerate().filter(|(_, width)| *width > 0) {
                buffer.resize(run.span() * width, 0);
                fetch(piece, first as u64 * width as u64, &mut buffer)?;
                let stored = buffer.chunks_exact(width).step_by(run.step);
                for (row, stored) in out.chunks_exact_mut(row_bytes).zip(stored) {
                    row[at..at + width].copy_from_slice(stored);
                }
                at += width;
            }
            match self {
                Assembly::Mxfp4 { .. } | Assembly::Packed(_) => {}
                Assembly::Transposed { .. } => {
                    buffer.resize(run.span() * size, 0);
                    for col in 0..cols {
                        let first = ((run.matrix * cols + col) * rows_per_matrix + run.first) as u64;
                        fetch(0, first * size as u64, &mut buffer)?;
                        let stored = buffer.chunks_exact(size.max(1)).step_by(run.step);
                        for (row, stored) in out.chunks_exact_mut(row_bytes).zip(stored) {
                            row[col * size..(col + 1) * size].copy_from_slice(stored);
                        }
                    }
                }
            }
            rest = behind;
        }
        Ok(())
    }
}

/// Row of the file that holds row `row` of matrices of `rows_per_matrix` rows whose halves stand in turn there.
pub(crate) fn alternating_row(row: usize, rows_per_matrix: usize) -> usize {
    let (rows_per_matrix, half) = (rows_per_matrix.max(1), (rows_per_matrix / 2).max(1));
    let (matrix, place) = (row / rows_per_matrix, row % rows_per_matrix);
    matrix * rows_per_matrix + place % half * 2 + place / half
}

/// Decodes a row of [`Assembly::Mxfp4`] that was put together.
fn decode_mxfp4(row: &[u8], out: &mut [f32]) {
    const LEVELS: [f32; 16] =
        [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let (codes, powers) = row.split_at((out.len() / 2).min(row.len()));
    let groups = out.chunks_exact_mut(GROUP).zip(codes.chunks_exact(GROUP / 2)).zip(powers);
    for ((values, codes), power) in groups {
        let scale = match *power {
            0 => f32::from_bits(1 << 22), // 2^-127 is subnormal
            255 => f32::NAN,
            power => f32::from_bits(u32::from(power) << 23),
        };
        for (pair, code) in values.chunks_exact_mut(2).zip(codes) {
            pair[0] = LEVELS[usize::from(code & 0xF)] * scale;
            pair[1] = LEVELS[usize::from(code >> 4)] * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gq_tensor::{DType, decode_f32};
    use std::convert::Infallible;

    /// Puts rows together from pieces in memory.
    fn gather(assembly: Assembly, shape: Matrices, rows: Range<usize>, pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0; rows.len() * assembly.row_bytes(shape.cols, shape.size)];
        let fetch = |piece: usize, offset: u64, out: &mut [u8]| -> Result<(), Infallible> {
            out.copy_from_slice(&pieces[piece][offset as usize..][..out.len()]);
            Ok(())
        };
        assembly.gather(shape, rows, fetch, &mut out).unwrap();
        out
    }

    #[test]
    fn transposed_matrices_with_rows_in_turn() {
        // Two matrices [4, 3]: an element is 100 * matrix + 10 * row + column.
        let element = |matrix: usize, row: usize, col: usize| (100 * matrix + 10 * row + col) as u8;
        let order = [0, 2, 1, 3]; // rows of the graph in the file: gate 0, up 0, gate 1, up 1
        let mut file = Vec::new();
        for matrix in 0..2 {
            for col in 0..3 {
                file.extend(order.map(|row| element(matrix, row, col)));
            }
        }
        let shape = Matrices { rows_per_matrix: 4, cols: 3, size: 1 };
        let alternating = Assembly::Transposed { alternating: true };
        let all: Vec<u8> =
            (0..8).flat_map(|row| (0..3).map(move |col| element(row / 4, row % 4, col))).collect();
        for rows in [0..8, 1..7, 3..4, 2..6, 5..5] {
            let expected = &all[3 * rows.start..3 * rows.end];
            assert_eq!(gather(alternating, shape, rows.clone(), &[&file]), expected, "{rows:?}");
        }
        for (row, stored) in [0, 2, 1, 3, 4, 6, 5, 7].into_iter().enumerate() {
            assert_eq!(alternating_row(row, 4), stored);
        }
        let values: Vec<f32> = all[..12].iter().map(|value| f32::from(*value)).collect();
        let stored: Vec<u8> = alternating.as_stored(&values, 4).iter().map(|value| *value as u8).collect();
        assert_eq!(stored, file[..12]);
        let plain = Assembly::Transposed { alternating: false };
        assert_eq!(gather(plain, shape, 0..2, &[&file]), [0, 1, 2, 20, 21, 22]);
    }

    #[test]
    fn codes_and_powers_of_two_come_from_their_pieces() {
        let shape = Matrices { rows_per_matrix: 2, cols: 64, size: 2 };
        let codes: Vec<u8> = (0..4 * 32).collect();
        let powers = [127, 128, 126, 0, 1, 255, 130, 120];
        let rows = gather(Assembly::Mxfp4 { alternating: true }, shape, 0..4, &[&codes, &powers]);
        assert_eq!(rows.len(), 4 * 34);
        assert_eq!((rows[34], &rows[34 + 32..68]), (32, &[126, 0][..]), "two rows a matrix stay as they are");
        let mut values = [0.0; 64];
        decode_mxfp4(&rows[..34], &mut values);
        // Byte 0x01 is elements 2 and 3: codes 1 and 0.
        assert_eq!((values[2], values[3], values[4]), (0.5, 0.0, 1.0));
        // Byte 0x1F (31) is elements 62 and 63: -6 and 0.5, times 2.
        assert_eq!((values[62], values[63]), (-12.0, 1.0));
        decode_mxfp4(&rows[34..68], &mut values);
        assert_eq!(values[34], 2f32.powi(-127) * 0.5);
        decode_mxfp4(&rows[68..102], &mut values);
        assert!(values[63].is_nan());
    }

    /// Every value, by the library that owns the format on the Hub (`scripts/make_sources.py`).
    #[test]
    fn values_are_those_of_transformers() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/sources/mxfp4.safetensors");
        let bytes = std::fs::read(path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let [codes, powers, decoded] = ["blocks", "scales", "decoded"].map(|name| file.tensor(name).unwrap());
        // The library gives each matrix transposed, as its graph multiplies: gate and up stay in turn.
        assert_eq!(decoded.shape(), [2, 64, 64]);
        let shape = Matrices { rows_per_matrix: 64, cols: 64, size: 2 };
        let transposed = Assembly::Transposed { alternating: false };
        let expected = gather(transposed, shape, 0..128, &[decoded.data()]);
        let mut wanted = vec![0.0; 128 * 64];
        decode_f32(DType::BF16, &expected, &mut wanted);
        let assembly = Assembly::Mxfp4 { alternating: false };
        let rows = gather(assembly, shape, 0..128, &[codes.data(), powers.data()]);
        let mut values = vec![0.0; 64];
        for (row, wanted) in rows.chunks_exact(34).zip(wanted.chunks_exact(64)) {
            decode_mxfp4(row, &mut values);
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&values), bits(wanted));
        }
    }
}
