//! Blocks, bit for bit against gguf-py, and our K-quant encoders against their own decoders.

use super::support::{fixture, floats};
use gq_checkpoint::gguf::{GgmlType, Gguf, GgufError, decode_blocks, encode_blocks, is_encodable};

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn every_supported_type_decodes_bit_for_bit_as_the_reference() {
    let gguf = Gguf::open(fixture("types.gguf")).unwrap();
    assert_eq!(gguf.tensors().len(), 16);
    for tensor in gguf.tensors() {
        let kind = tensor.info.kind;
        assert_eq!(tensor.info.name, format!("t.{kind}"));
        let expected = floats(&fixture("types.safetensors"), &format!("decoded.{kind}"));
        let mut actual = vec![0.0; expected.len()];
        gguf.read_rows_f32(tensor, 0..2, &mut actual).unwrap();
        assert_eq!(bits(&actual), bits(&expected), "{kind}");
        let mut row = vec![0.0; 512];
        gguf.read_rows_f32(tensor, 1..2, &mut row).unwrap();
        assert_eq!(bits(&row), bits(&expected[512..]), "{kind}, second row alone");
    }
}

#[test]
fn types_of_32_encode_bit_for_bit_as_the_reference() {
    let rows = floats(&fixture("types.safetensors"), "rows");
    let file = std::fs::read(fixture("types.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&file).unwrap();
    for name in ["BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"] {
        let kind = GgmlType::from_name(name).unwrap();
        let expected = file.tensor(&format!("encoded.{name}")).unwrap().data().to_vec();
        let mut actual = vec![0; rows.len() / 96 * kind.row_bytes(96).unwrap()];
        assert!(encode_blocks(kind, &rows, &mut actual));
        assert_eq!(actual, expected, "{name}");
    }
}

/// Uniform sums: near enough to a normal distribution, and the same everywhere.
fn gaussian(len: usize) -> Vec<f32> {
    let mut state = 7u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..len).map(|_| (0..12).map(|_| uniform()).sum()).collect()
}

/// Error relative to the values' energy, and its lower and upper bound.
///
/// Bounds: a uniform quantizer of b bits over the range of n normal values with a stored minimum has a relative
/// error near (2 * 2.1 / 2^b)^2 / 12; fitted scales are some percent better than that, coded scales worse.
#[test]
fn k_quants_lose_as_little_as_their_bits_allow() {
    let values = gaussian(256 * 64);
    let energy: f64 = values.iter().map(|v| f64::from(*v).powi(2)).sum();
    for (name, low, high) in [("Q4_K", 0.0040, 0.0062), ("Q5_K", 0.0009, 0.0016), ("Q6_K", 0.00020, 0.00042)]
    {
        let kind = GgmlType::from_name(name).unwrap();
        let mut bytes = vec![0; kind.row_bytes(values.len()).unwrap()];
        assert!(encode_blocks(kind, &values, &mut bytes));
        let mut back = vec![0.0; values.len()];
        assert!(decode_blocks(kind, &bytes, &mut back));
        let error: f64 = values.iter().zip(&back).map(|(a, b)| f64::from(a - b).powi(2)).sum();
        let relative = error / energy;
        println!("{name}: {relative:.5}");
        assert!((low..high).contains(&relative), "{name}: {relative}");
    }
}

#[test]
fn k_quants_of_special_rows() {
    for kind in [GgmlType::Q4_K, GgmlType::Q5_K, GgmlType::Q6_K] {
        for (fill, tolerance) in [(0.0, 0.0), (0.5, 0.02), (-0.5, 0.02), (1e-6, 1e-6), (1e4, 400.0)] {
            let values = [fill; 256];
            let mut bytes = vec![0; kind.block_bytes()];
            encode_blocks(kind, &values, &mut bytes);
            let mut back = [9.0; 256];
            decode_blocks(kind, &bytes, &mut back);
            assert!(
                back.iter().all(|b: &f32| (b - fill).abs() <= tolerance),
                "{kind} of {fill}: {}",
                back[0]
            );
        }
    }
    assert!(!is_encodable(GgmlType::Q2_K) && !is_encodable(GgmlType::I8));
}

#[test]
fn a_type_without_a_decoder_is_refused_by_name() {
    let mut bytes = [0; 98];
    assert!(!decode_blocks(GgmlType::IQ3_XXS, &bytes, &mut [0.0; 256]));
    assert!(!encode_blocks(GgmlType::IQ3_XXS, &[0.0; 256], &mut bytes));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let tensors =
        [gq_checkpoint::gguf::NewTensor { name: "t".into(), shape: vec![1, 256], kind: GgmlType::IQ3_XXS }];
    super::support::write(&path, &Default::default(), &tensors, |_| vec![0; 98]).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let error = gguf.read_rows_f32(&gguf.tensors()[0], 0..1, &mut [0.0; 256]).unwrap_err();
    assert!(matches!(error, GgufError::UndecodableType { kind: "IQ3_XXS", .. }));
    assert!(error.to_string().contains("supported: F32, F16, Q4_0"), "{error}");
}
