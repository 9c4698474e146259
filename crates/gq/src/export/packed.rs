//! Matrices of integer codes as compressed-tensors packs them: which tensors a matrix has in a file, and their bytes.

use gq_codec::{GroupCode, GroupedRows};
use gq_tensor::DType;

/// A tensor of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl Entry {
    /// Bytes in the file.
    pub fn bytes(&self) -> u64 {
        self.dtype.size() as u64 * self.shape.iter().map(|&n| n as u64).product::<u64>()
    }
}

/// Codes that a word of 32 bits has.
fn per_word(code: GroupCode) -> usize {
    32 / usize::from(code.bits())
}

/// What a matrix `[rows, cols]` is in a file, after its shape: codes, zero points where there are some, scales.
pub fn entries(name: &str, code: GroupCode, [rows, cols]: [usize; 2]) -> Vec<Entry> {
    let entry = |end: &str, dtype, shape: [usize; 2]| Entry {
        name: format!("{name}_{end}"),
        dtype,
        shape: shape.to_vec(),
    };
    let groups = cols / code.group();
    let mut entries = vec![entry("packed", DType::I32, [rows, cols / per_word(code)])];
    if !code.is_symmetric() {
        entries.push(entry("zero_point", DType::I32, [rows.div_ceil(per_word(code)), groups]));
    }
    entries.push(entry("scale", DType::BF16, [rows, groups]));
    entries
}

/// The tensor that says a matrix's shape.
pub fn shape_entry(name: &str) -> Entry {
    Entry { name: format!("{name}_shape"), dtype: DType::I64, shape: vec![2] }
}

/// A shape's bytes.
pub fn shape_bytes(shape: &[usize]) -> Vec<u8> {
    shape.iter().flat_map(|&n| (n as i64).to_le_bytes()).collect()
}

/// Whether a matrix can be packed so: whole words of rows and columns.
pub fn is_packable(code: GroupCode, [rows, cols]: [usize; 2]) -> bool {
    rows.is_multiple_of(8) && cols.is_multiple_of(code.group())
}

/// Codes as words, the first in the lowest bits.
pub fn code_bytes(code: GroupCode, codes: &[u8]) -> Vec<u8> {
    match code.bits() {
        4 => codes.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4).collect(),
        _ => codes.to_vec(),
    }
}

/// Scales and zero points of a matrix, collected while its codes are written.
#[derive(Debug, Default)]
pub struct Rest {
    scales: Vec<u8>,
    zeros: Vec<u8>,
}

impl Rest {
    /// Adds those of further rows.
    pub fn add(&mut self, rows: &GroupedRows) {
        self.scales.extend(rows.scales.iter().flat_map(|scale| scale.to_le_bytes()));
        self.zeros.extend_from_slice(&rows.zeros);
    }

    /// Their bytes in the order of [`entries`]; words of zero points go down the rows.
    pub fn bytes(&self, code: GroupCode, groups: usize) -> Vec<u8> {
        let (words, bits) = (per_word(code), u32::from(code.bits()));
        let mut bytes = Vec::new();
        for rows in self.zeros.chunks((words * groups).max(1)) {
            for group in 0..groups {
                let column = rows.iter().skip(group).step_by(groups).zip(0..);
                let word = column.fold(0u32, |word, (&zero, row)| word | u32::from(zero) << (bits * row));
                bytes.extend(word.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&self.scales);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn a_matrix_takes_the_bytes_of_its_entries() {
        let (asymmetric, symmetric) =
            (GroupCode::new(4, 32, false).unwrap(), GroupCode::new(8, 64, true).unwrap());
        let shapes = |code| {
            let entries = entries("w", code, [16, 128]);
            entries.into_iter().map(|entry| (entry.name, entry.dtype, entry.shape)).collect::<Vec<_>>()
        };
        let entry = |name: &str, dtype, shape: [usize; 2]| (name.to_owned(), dtype, shape.to_vec());
        let packed = entry("w_packed", DType::I32, [16, 16]);
        let zeros = entry("w_zero_point", DType::I32, [2, 4]);
        assert_eq!(shapes(asymmetric), [packed, zeros, entry("w_scale", DType::BF16, [16, 4])]);
        let packed = entry("w_packed", DType::I32, [16, 32]);
        assert_eq!(shapes(symmetric), [packed, entry("w_scale", DType::BF16, [16, 2])]);

        assert_eq!(code_bytes(asymmetric, &[1, 2, 3, 15]), [0x21, 0xF3]);
        assert_eq!(code_bytes(symmetric, &[1, 255]), [1, 255]);
        // Sixteen rows of two groups, zero points row % 16 and 3, added in two pieces.
        let mut rest = Rest::default();
        for rows in [0..5u8, 5..16] {
            rest.add(&GroupedRows {
                codes: Vec::new(),
                scales: rows.clone().flat_map(|_| [bf16::ONE, bf16::ZERO]).collect(),
                zeros: rows.flat_map(|row| [row, 3]).collect(),
            });
        }
        let bytes = rest.bytes(asymmetric, 2);
        let words = [0x7654_3210u32, 0x3333_3333, 0xFEDC_BA98, 0x3333_3333].map(u32::to_le_bytes);
        assert_eq!(bytes[..16], *words.as_flattened());
        assert_eq!((bytes.len(), &bytes[16..20]), (16 + 64, &[0x80, 0x3F, 0, 0][..]));
    }
}
