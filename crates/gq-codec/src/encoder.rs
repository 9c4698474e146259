//! Rows in, codes and scales out.

use crate::trellis_strip::encode_strip;
use crate::{
    Codebook, Trellis, error::CodecError, grid, kernel::GridKind, packing, polar::PolarCode, prod::ProdCode,
    turbo,
};
use gq_tensor::{Encoding, Isa, RotationSpec, ScaleGroup};

/// Rounds rows to the nearest codes of one encoding and width.
#[derive(Clone, Debug)]
pub struct Encoder {
    encoding: Encoding,
    cols: usize,
    code: Code,
}

#[derive(Clone, Debug)]
enum Code {
    Turbo { book: Codebook, group: ScaleGroup },
    Prod(ProdCode),
    Polar(PolarCode),
    Trellis(Box<Trellis>),
    Grid(GridKind),
}

/// Buffers of [`Encoder::encode_row`]; keep one per thread.
#[derive(Clone, Debug, Default)]
pub struct EncodeScratch {
    pub(crate) codes: Vec<u8>,
    pub(crate) residual: Vec<f32>,
    pub(crate) sketch: Vec<f32>,
}

impl Encoder {
    /// An encoder of rows of `cols` elements. The seed of `rotation` also seeds the sketch of `Prod`.
    ///
    /// # Errors
    /// For exact encodings, and for widths the encoding does not support.
    pub fn new(encoding: Encoding, rotation: RotationSpec, cols: usize) -> Result<Encoder, CodecError> {
        check_width(encoding, cols)?;
        let code = match encoding {
            Encoding::Exact(_) => return Err(CodecError::Exact { encoding }),
            Encoding::Turbo { bits, group } => {
                let book = Codebook::of(bits).ok_or(CodecError::Unregistered { encoding })?;
                Code::Turbo { book, group }
            }
            Encoding::Prod { bits, sketch } => Code::Prod(ProdCode::new(bits, sketch, rotation.seed, cols)?),
            Encoding::Polar(polar) => Code::Polar(PolarCode::new(polar)),
            Encoding::Trellis { .. } => {
                Code::Trellis(Box::new(Trellis::of(encoding).ok_or(CodecError::Unregistered { encoding })?))
            }
            Encoding::Grid(_) | Encoding::Mxfp4 => {
                Code::Grid(GridKind::of(encoding).ok_or(CodecError::Unregistered { encoding })?)
            }
        };
        Ok(Encoder { encoding, cols, code })
    }

    /// How rows are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Rounds the rows `[rows, cols]` of a matrix, already rotated. The same bytes at every level and thread count.
    ///
    /// Rows may be given in parts, each of which begins with a strip: a multiple of
    /// [`strip_rows`](Encoding::strip_rows) after the first row.
    /// A row (or scale group) with a non-finite element is stored with scale NaN and decodes to NaN;
    /// one too small for an fp16 scale decodes to zeros. On a grid, a group that does not sit on it decodes to NaN.
    ///
    /// # Panics
    /// When a slice's length is not what the rows take.
    pub fn encode_rows(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        let rows = rotated.len() / self.cols;
        assert_eq!(rotated.len(), rows * self.cols, "row length");
        assert_eq!(Some(codes.len()), self.encoding.codes_bytes(rows, self.cols), "code bytes");
        assert_eq!(scales.len(), rows * self.encoding.scales_row_bytes(self.cols), "scale bytes");
        let strip = self.encoding.strip_rows();
        let codes = codes.chunks_mut(strip * self.encoding.codes_row_bytes(self.cols));
        let scales = scales.chunks_mut(strip * self.encoding.scales_row_bytes(self.cols));
        for ((rotated, codes), scales) in rotated.chunks(strip * self.cols).zip(codes).zip(scales) {
            match &self.code {
                Code::Trellis(trellis) => encode_strip(level, trellis, self.cols, rotated, codes, scales),
                _ => self.encode_one(level, rotated, codes, scales, scratch),
            }
        }
    }

    /// [`encode_rows`](Encoder::encode_rows) for a matrix of one row.
    ///
    /// # Panics
    /// When a slice's length is not that of a row.
    pub fn encode_row(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        assert_eq!(rotated.len(), self.cols, "row length");
        self.encode_rows(level, rotated, codes, scales, scratch);
    }

    fn encode_one(
        &self,
        level: Isa,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        match &self.code {
            Code::Turbo { book, group } => {
                scratch.codes.resize(self.cols, 0);
                let len = group.len(self.cols);
                let groups = rotated.chunks_exact(len).zip(scratch.codes.chunks_exact_mut(len));
                for ((x, codes), scale) in groups.zip(scales.chunks_exact_mut(2)) {
                    scale.copy_from_slice(&turbo::encode_group(level, *book, x, codes).to_le_bytes());
                }
                packing::pack_row(book.bits(), &scratch.codes, codes);
            }
            Code::Prod(code) => code.encode_row(level, rotated, codes, scales, scratch),
            Code::Polar(code) => code.encode_row(rotated, codes, scales),
            Code::Grid(kind) => grid::encode_row(*kind, rotated, &mut scratch.codes, codes, scales),
            Code::Trellis(_) => {}
        }
    }
}

/// Refuses what is not in the registry, and widths an encoding does not support.
pub(crate) fn check_width(encoding: Encoding, cols: usize) -> Result<(), CodecError> {
    if Encoding::from_code(encoding.code()) != Some(encoding) {
        return Err(CodecError::Unregistered { encoding });
    }
    if !encoding.supports_cols(cols) {
        return Err(CodecError::Width { encoding, cols });
    }
    Ok(())
}
