//! What codes say of themselves, for every encoding of the registry.

use crate::source::{self, Source};
use gq_codec::{Code, CodecError, Coders, EncodeScratch, code_of};
use gq_tensor::{DType, Encoding, Isa, MatrixShape, Storage};
use half::f16;
use std::sync::Arc;

const COLS: usize = 128;

fn code(encoding: Encoding) -> Arc<dyn Code> {
    code_of(Storage::unrotated(encoding)).unwrap()
}

#[test]
fn every_encoding_has_a_code_and_no_other_has() {
    for encoding in Encoding::all() {
        let (code, lossless) = (code(encoding), encoding.is_exact() || encoding.is_grid());
        assert_eq!(code.distortion() == Some(0.0), lossless, "{encoding}");
        let by_column = matches!(encoding, Encoding::Turbo { .. } | Encoding::Trellis { .. });
        assert_eq!(code.clone().columns().is_some(), by_column, "{encoding}");
        assert_eq!(code.levels().is_some(), code.has_row_scale(), "{encoding}");
        // Dense matrices alone take room for the square of the width.
        let dense = matches!(encoding, Encoding::Prod { .. });
        assert_eq!(code.tables(COLS).kept > 0, dense, "{encoding}");
    }
    for encoding in
        [Encoding::Exact(DType::I8), Encoding::Trellis { bits: 7, states: gq_tensor::States::S10 }]
    {
        let refused = code_of(Storage::unrotated(encoding)).unwrap_err();
        assert_eq!(refused, CodecError::Unregistered { encoding });
    }
}

#[test]
fn expected_distortions_are_those_of_long_rows() {
    let (rows, cols) = (256, 576);
    let data = source::rows(Source::Gaussian, rows, cols, 3);
    for name in ["tq2", "tq4", "tt2", "tt4-s12"] {
        let encoding = Encoding::from_name(name).unwrap();
        let mut coders = Coders::default();
        let encoder = coders.encoder(Storage::unrotated(encoding), cols).unwrap();
        let mut codes = vec![0; encoding.codes_bytes(rows, cols).unwrap()];
        let mut scales = vec![0; rows * encoding.scales_row_bytes(cols)];
        let scratch = &mut EncodeScratch::default();
        let coded = encoder.encode_rows(Isa::detect(), &data, &mut codes, &mut scales, scratch);
        let mut decoded = vec![0.0; data.len()];
        encoder.decoder().decode_rows(Isa::detect(), &coded, 0..rows, &mut decoded);
        let square = |x: f32| f64::from(x) * f64::from(x);
        let error: f64 = data.iter().zip(&decoded).map(|(x, y)| square(x - y)).sum();
        let ratio =
            error / data.iter().map(|&x| square(x)).sum::<f64>() / code(encoding).distortion().unwrap();
        // Scales that suit each row lower it a little.
        assert!((0.9..1.05).contains(&ratio), "{name}: {ratio}");
    }
}

#[test]
fn a_factor_on_a_row_scale_is_a_factor_on_the_row() {
    let data = source::rows(Source::Gaussian, 8, COLS, 4);
    for encoding in Encoding::all().into_iter().filter(|encoding| code(*encoding).has_row_scale()) {
        let mut coders = Coders::default();
        let storage = Storage::unrotated(encoding);
        let (encoder, decoder) =
            (coders.encoder(storage, COLS).unwrap(), coders.decoder(storage, COLS).unwrap());
        let mut codes = vec![0; encoding.codes_bytes(8, COLS).unwrap()];
        let mut scales = vec![0; 8 * encoding.scales_row_bytes(COLS)];
        encoder.encode_rows(Isa::Scalar, &data, &mut codes, &mut scales, &mut EncodeScratch::default());
        let decode = |scales: &[u8]| {
            let mut out = vec![0.0; data.len()];
            let rows = gq_tensor::CodedRows::new(encoding, MatrixShape::new(8, COLS), &codes, scales);
            decoder.decode_rows(Isa::Scalar, &rows, 0..8, &mut out);
            out
        };
        let before = decode(&scales);
        for scale in scales.as_chunks_mut::<2>().0 {
            *scale = (f16::from_le_bytes(*scale) * f16::from_f32(2.0)).to_le_bytes();
        }
        assert!(
            decode(&scales).iter().zip(&before).all(|(after, before)| *after == 2.0 * before),
            "{encoding}"
        );
    }
}

#[test]
fn scales_that_are_no_numbers_are_found() {
    for encoding in Encoding::all() {
        let bytes = encoding.scales_row_bytes(COLS);
        assert!(code(encoding).finite_scales(&vec![0; bytes]), "{encoding}");
        assert_eq!(code(encoding).finite_scales(&vec![0xFF; bytes]), encoding.is_exact(), "{encoding}");
    }
}
