//! GGML's tensor types: number, name, block and bytes. How blocks are decoded lives next to this file.

/// An element type of a GGUF tensor. Numbers that are not here are refused when a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, missing_docs)] // the format's own names
pub enum GgmlType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

use GgmlType as T;

/// Number in files, name, elements of a block, bytes of a block.
const TABLE: [(GgmlType, u32, &str, usize, usize); 35] = [
    (T::F32, 0, "F32", 1, 4),
    (T::F16, 1, "F16", 1, 2),
    (T::Q4_0, 2, "Q4_0", 32, 18),
    (T::Q4_1, 3, "Q4_1", 32, 20),
    (T::Q5_0, 6, "Q5_0", 32, 22),
    (T::Q5_1, 7, "Q5_1", 32, 24),
    (T::Q8_0, 8, "Q8_0", 32, 34),
    (T::Q8_1, 9, "Q8_1", 32, 36),
    (T::Q2_K, 10, "Q2_K", 256, 84),
    (T::Q3_K, 11, "Q3_K", 256, 110),
    (T::Q4_K, 12, "Q4_K", 256, 144),
    (T::Q5_K, 13, "Q5_K", 256, 176),
    (T::Q6_K, 14, "Q6_K", 256, 210),
    (T::Q8_K, 15, "Q8_K", 256, 292),
    (T::IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    (T::IQ2_XS, 17, "IQ2_XS", 256, 74),
    (T::IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    (T::IQ1_S, 19, "IQ1_S", 256, 50),
    (T::IQ4_NL, 20, "IQ4_NL", 32, 18),
    (T::IQ3_S, 21, "IQ3_S", 256, 110),
    (T::IQ2_S, 22, "IQ2_S", 256, 82),
    (T::IQ4_XS, 23, "IQ4_XS", 256, 136),
    (T::I8, 24, "I8", 1, 1),
    (T::I16, 25, "I16", 1, 2),
    (T::I32, 26, "I32", 1, 4),
    (T::I64, 27, "I64", 1, 8),
    (T::F64, 28, "F64", 1, 8),
    (T::IQ1_M, 29, "IQ1_M", 256, 56),
    (T::BF16, 30, "BF16", 1, 2),
    (T::TQ1_0, 34, "TQ1_0", 256, 54),
    (T::TQ2_0, 35, "TQ2_0", 256, 66),
    (T::MXFP4, 39, "MXFP4", 32, 17),
    (T::NVFP4, 40, "NVFP4", 64, 36),
    (T::Q1_0, 41, "Q1_0", 128, 18),
    (T::Q2_0, 42, "Q2_0", 64, 18),
];

impl GgmlType {
    /// Every known type, in the order of numbers.
    pub fn all() -> impl Iterator<Item = GgmlType> {
        TABLE.iter().map(|row| row.0)
    }

    const fn row(self) -> &'static (GgmlType, u32, &'static str, usize, usize) {
        &TABLE[self as usize]
    }

    /// The type with this number.
    pub fn from_code(code: u32) -> Option<GgmlType> {
        TABLE.iter().find(|row| row.1 == code).map(|row| row.0)
    }

    /// The type with this name, in any case.
    pub fn from_name(name: &str) -> Option<GgmlType> {
        TABLE.iter().find(|row| row.2.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    /// Number in files.
    pub const fn code(self) -> u32 {
        self.row().1
    }

    /// Name, as llama.cpp writes it.
    pub const fn name(self) -> &'static str {
        self.row().2
    }

    /// Elements of a block; rows are a multiple of it.
    pub const fn block_len(self) -> usize {
        self.row().3
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        self.row().4
    }

    /// Bytes of a row of `cols` elements; `None` when blocks do not divide it, or it overflows.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Bits per element, scales included.
    pub fn bits(self) -> f64 {
        8.0 * self.block_bytes() as f64 / self.block_len() as f64
    }

    /// Whether values are coded, so that coding them again loses twice.
    pub const fn is_quantized(self) -> bool {
        self.block_len() > 1
    }

    /// The number that `general.file_type` has when most tensors are of this type; `None` where there is none.
    pub const fn file_type(self) -> Option<u32> {
        match self {
            T::F32 => Some(0),
            T::F16 => Some(1),
            T::Q4_0 => Some(2),
            T::Q4_1 => Some(3),
            T::Q8_0 => Some(7),
            T::Q5_0 => Some(8),
            T::Q5_1 => Some(9),
            T::Q2_K => Some(10),
            T::Q3_K => Some(11),
            T::Q4_K => Some(14),
            T::Q5_K => Some(16),
            T::Q6_K => Some(18),
            T::IQ4_NL => Some(25),
            T::IQ4_XS => Some(30),
            T::BF16 => Some(32),
            _ => None,
        }
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (row, kind) in TABLE.iter().zip(GgmlType::all()) {
            assert_eq!(
                (row.0, GgmlType::from_code(row.1), GgmlType::from_name(row.2)),
                (kind, Some(kind), Some(kind))
            );
            assert_eq!(kind.code(), row.1);
        }
        assert!(TABLE.windows(2).all(|w| w[0].1 < w[1].1));
        assert_eq!(GgmlType::from_code(4), None);
        assert_eq!(T::Q6_K.row_bytes(512), Some(420));
        assert_eq!(T::Q6_K.row_bytes(511), None);
    }
}
