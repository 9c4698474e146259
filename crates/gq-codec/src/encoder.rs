//! Rows in, codes and scales out.

use crate::{Codebook, error::CodecError, packing, polar::PolarCode, prod::ProdCode, turbo};
use gq_tensor::{CpuLevel, Encoding, RotationSpec, ScaleGroup};

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
        };
        Ok(Encoder { encoding, cols, code })
    }

    /// How rows are stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Rounds one row, already rotated. The same bytes at every level.
    ///
    /// A row (or scale group) with a non-finite element is stored with scale NaN and decodes to NaN;
    /// one too small for an fp16 scale decodes to zeros.
    ///
    /// # Panics
    /// When a slice's length is not that of a row.
    pub fn encode_row(
        &self,
        level: CpuLevel,
        rotated: &[f32],
        codes: &mut [u8],
        scales: &mut [u8],
        scratch: &mut EncodeScratch,
    ) {
        assert_eq!(rotated.len(), self.cols, "row length");
        assert_eq!(codes.len(), self.encoding.codes_row_bytes(self.cols), "code bytes");
        assert_eq!(scales.len(), self.encoding.scales_row_bytes(self.cols), "scale bytes");
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
