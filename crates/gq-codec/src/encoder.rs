//! Rows in, codes and scales out.

use crate::code::{Code, ColumnCode, EncodeScratch};
use crate::decoder::Decoder;
use crate::error::CodecError;
use gq_tensor::{CodedRows, Encoding, Isa, MatrixShape, Storage};
use std::sync::Arc;

/// Rounds rows to the nearest codes of one encoding and width.
#[derive(Clone, Debug)]
pub struct Encoder {
    encoding: Encoding,
    cols: usize,
    code: Arc<dyn Code>,
}

impl Encoder {
    /// An encoder of rows of `cols` elements.
    ///
    /// # Errors
    /// For exact encodings, and for widths the encoding does not support.
    pub fn new(storage: Storage, cols: usize) -> Result<Encoder, CodecError> {
        Encoder::of(&Decoder::new(storage, cols)?)
    }

    /// What writes the rows that `decoder` reads; it shares its tables.
    ///
    /// # Errors
    /// For exact encodings.
    pub(crate) fn of(decoder: &Decoder) -> Result<Encoder, CodecError> {
        let (encoding, cols, code) = (decoder.encoding(), decoder.cols(), decoder.code().clone());
        match encoding.is_exact() {
            true => Err(CodecError::Exact { encoding }),
            false => Ok(Encoder { encoding, cols, code }),
        }
    }

    /// What reads the rows; it shares this encoder's tables.
    pub fn decoder(&self) -> Decoder {
        Decoder::of(self.encoding, self.cols, self.code.clone())
    }

    /// How rows are rounded column after column; `None` for a code that rounds rows as they are.
    pub fn columns(&self) -> Option<Arc<dyn ColumnCode>> {
        self.code.clone().columns()
    }

    /// How rows are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Rounds the rows `[rows, cols]` of a matrix, already rotated, and gives them as they are stored. The same bytes at
    /// every level and thread count.
    ///
    /// Rows may be given in parts, each of which begins with a strip: a multiple of
    /// [`strip_rows`](Encoding::strip_rows) after the first row.
    /// A row (or scale group) with a non-finite element is stored with scale NaN and decodes to NaN;
    /// one too small for an fp16 scale decodes to zeros. On a grid, a group that does not sit on it decodes to NaN.
    ///
    /// # Panics
    /// When a slice's length is not what the rows take.
    pub fn encode_rows<'a>(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &'a mut [u8],
        scales: &'a mut [u8],
        scratch: &mut EncodeScratch,
    ) -> CodedRows<'a> {
        let rows = rotated.len() / self.cols;
        assert_eq!(rotated.len(), rows * self.cols, "row length");
        assert_eq!(Some(codes.len()), self.encoding.codes_bytes(rows, self.cols), "code bytes");
        assert_eq!(scales.len(), rows * self.encoding.scales_row_bytes(self.cols), "scale bytes");
        let strip = self.encoding.strip_rows();
        let strips = rotated
            .chunks(strip * self.cols)
            .zip(codes.chunks_mut(strip * self.encoding.codes_row_bytes(self.cols)))
            .zip(scales.chunks_mut(strip * self.encoding.scales_row_bytes(self.cols)));
        for ((rotated, codes), scales) in strips {
            self.code.encode(level, rotated, codes, scales, scratch);
        }
        self.rows(codes, scales)
    }

    /// [`encode_rows`](Encoder::encode_rows) for a matrix of one row.
    ///
    /// # Panics
    /// When a slice's length is not that of a row.
    pub fn encode_row<'a>(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &'a mut [u8],
        scales: &'a mut [u8],
        scratch: &mut EncodeScratch,
    ) -> CodedRows<'a> {
        assert_eq!(rotated.len(), self.cols, "row length");
        self.encode_rows(level, rotated, codes, scales, scratch)
    }

    /// Rows of one matrix that were encoded before: as many as there are scales for.
    ///
    /// # Panics
    /// When the slices are not those of as many whole rows.
    pub fn rows<'a>(&self, codes: &'a [u8], scales: &'a [u8]) -> CodedRows<'a> {
        let rows = scales.len() / self.encoding.scales_row_bytes(self.cols).max(1);
        CodedRows::new(self.encoding, MatrixShape::new(rows, self.cols), codes, scales)
    }
}
