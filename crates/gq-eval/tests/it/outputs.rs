//! Files of reference outputs: what is read, what is refused, what is written.

use crate::fixtures::{Made, against, f64_bytes, id_bytes, model_logit, safetensors, write};
use gq_checkpoint::safetensors::HeaderError;
use gq_eval::{
    EvalError, OutputsError, OutputsReader, OutputsWriter, Sizes, TextOptions, compare_with_outputs,
};
use half::{bf16, f16};

const IDS: [i64; 4] = [0, 1, 2, 1];
/// Exact in every element type.
const LOGITS: [f64; 12] = [0.5, -1.0, 2.0, 0.0, 0.25, -3.0, 1.0, 1.5, -0.5, 4.0, -2.0, 0.125];

fn file(ids: &[i64], shape: &[usize], dtype: &str, logits_shape: &[usize], logits: &[u8]) -> Vec<u8> {
    let ids = id_bytes(ids);
    safetensors(&[("input_ids", "I64", shape, &ids), ("logits", dtype, logits_shape, logits)])
}

fn open(bytes: &[u8]) -> Result<OutputsReader, OutputsError> {
    let dir = tempfile::tempdir().unwrap();
    OutputsReader::open(&write(dir.path(), "outputs.safetensors", bytes))
}

#[test]
fn every_element_type_gives_the_same_logits() {
    let of = |dtype: &str| -> Vec<u8> {
        let bytes = LOGITS.iter().map(|&x| match dtype {
            "F64" => x.to_le_bytes().to_vec(),
            "F32" => (x as f32).to_le_bytes().to_vec(),
            "F16" => f16::from_f64(x).to_le_bytes().to_vec(),
            _ => bf16::from_f64(x).to_le_bytes().to_vec(),
        });
        bytes.flatten().collect()
    };
    for dtype in ["F64", "F32", "F16", "BF16"] {
        let reader = open(&file(&IDS, &[2, 2], dtype, &[2, 2, 3], &of(dtype))).unwrap();
        assert_eq!(reader.input_ids(), [vec![0, 1], vec![2, 1]]);
        assert_eq!((reader.vocab(), reader.dtype().name()), (3, dtype));
        for (at, expected) in LOGITS.chunks(3).enumerate() {
            assert_eq!(reader.logits(at / 2, at % 2).unwrap(), expected, "{dtype} {at}");
        }
    }
}

#[test]
fn each_malformed_file_has_its_own_error() {
    let logits = f64_bytes(&LOGITS);
    let good = file(&IDS, &[2, 2], "F64", &[2, 2, 3], &logits);
    open(&good).unwrap();
    let header_end = 8 + u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
    let ids = id_bytes(&IDS);
    let only_ids = safetensors(&[("input_ids", "I64", &[2, 2], &ids)]);
    let only_logits = safetensors(&[("logits", "F64", &[2, 2, 3], &logits)]);
    let i32_ids =
        safetensors(&[("input_ids", "I32", &[2, 2], &ids[..16]), ("logits", "F64", &[2, 2, 3], &logits)]);
    let duplicate = String::from_utf8_lossy(&good[8..header_end]).replace("logits", "input_ids");
    let duplicate = [&good[..8], duplicate.as_bytes(), &good[header_end..]].concat();
    type Check = fn(&OutputsError) -> bool;
    let cases: [(&str, Vec<u8>, Check); 16] = [
        ("empty", Vec::new(), |e| {
            matches!(e, OutputsError::Header { source: HeaderError::TooShort { .. }, .. })
        }),
        ("cut in the header", good[..20].to_vec(), |e| {
            matches!(e, OutputsError::Header { source: HeaderError::BeyondFile { .. }, .. })
        }),
        ("cut in the data", good[..good.len() - 1].to_vec(), |e| {
            matches!(e, OutputsError::Header { source: HeaderError::Truncated { .. }, .. })
        }),
        ("a byte too many", [&good[..], &[0]].concat(), |e| {
            matches!(e, OutputsError::Header { source: HeaderError::Trailing { .. }, .. })
        }),
        ("one name twice", duplicate, |e| matches!(e, OutputsError::Header { .. })),
        ("no logits", only_ids, |e| matches!(e, OutputsError::Missing { name: "logits", .. })),
        ("no ids", only_logits, |e| matches!(e, OutputsError::Missing { name: "input_ids", .. })),
        ("32-bit ids", i32_ids, |e| matches!(e, OutputsError::DType { name: "input_ids", .. })),
        ("integer logits", file(&IDS, &[2, 2], "I64", &[2, 2, 3], &logits), |e| {
            matches!(e, OutputsError::DType { name: "logits", .. })
        }),
        ("flat ids", file(&IDS, &[4], "F64", &[2, 2, 3], &logits), |e| {
            matches!(e, OutputsError::Shape { name: "input_ids", .. })
        }),
        ("flat logits", file(&IDS, &[2, 2], "F64", &[4, 3], &logits), |e| {
            matches!(e, OutputsError::Shape { name: "logits", .. })
        }),
        ("no vocabulary", file(&IDS, &[2, 2], "F64", &[2, 2, 0], &[]), |e| {
            matches!(e, OutputsError::Shape { name: "logits", .. })
        }),
        ("other rows", file(&IDS, &[4, 1], "F64", &[2, 2, 3], &logits), |e| {
            matches!(e, OutputsError::ShapesDiffer { .. })
        }),
        ("a token beyond the vocabulary", file(&[0, 1, 3, 1], &[2, 2], "F64", &[2, 2, 3], &logits), |e| {
            matches!(e, OutputsError::Token { row: 1, col: 0, limit: 3, actual: 3, .. })
        }),
        ("a negative token", file(&[0, -1, 2, 1], &[2, 2], "F64", &[2, 2, 3], &logits), |e| {
            matches!(e, OutputsError::Token { row: 0, col: 1, actual: -1, .. })
        }),
        ("a header that is no JSON", [&2u64.to_le_bytes()[..], b"{]"].concat(), |e| {
            matches!(e, OutputsError::Header { source: HeaderError::Json { .. }, .. })
        }),
    ];
    for (name, bytes, is_expected) in cases {
        let error = open(&bytes).expect_err(name);
        assert!(is_expected(&error), "{name}: {error}");
        assert!(error.to_string().contains("outputs.safetensors"), "{name}: {error}");
    }
}

#[test]
fn a_logit_that_is_not_finite_is_named_where_it_is() {
    let mut logits = LOGITS;
    logits[7] = f64::NAN;
    let reader = open(&file(&IDS, &[2, 2], "F64", &[2, 2, 3], &f64_bytes(&logits))).unwrap();
    reader.logits(0, 1).unwrap();
    let error = reader.logits(1, 0).unwrap_err();
    assert!(matches!(error, OutputsError::NotFinite { row: 1, col: 0, index: 1, .. }), "{error}");
}

#[test]
fn another_vocabulary_is_refused() {
    let reader = open(&file(&IDS, &[2, 2], "F64", &[2, 2, 3], &f64_bytes(&LOGITS))).unwrap();
    let mut model = Made::new(4, model_logit);
    let result =
        compare_with_outputs(&mut model, &reader, Sizes::default(), TextOptions::default(), &mut |_, _| {});
    assert!(matches!(result, Err(EvalError::Vocabulary { limit: 3, actual: 4 })));
    assert_eq!(model.tokens_run, 0);
}

#[test]
fn what_is_saved_is_read_back_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let given = write(dir.path(), "given", &file(&IDS, &[2, 2], "F64", &[2, 2, 3], &f64_bytes(&LOGITS)));
    let saved = dir.path().join("saved.safetensors");
    let options = TextOptions { save_outputs: Some(&saved), ..TextOptions::default() };
    let first = against(&mut Made::new(3, model_logit), &given, options);
    assert!(first.kld.mean > 0.0);
    let reader = OutputsReader::open(&saved).unwrap();
    for (row, col) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let token = IDS[2 * row + col] as u32;
        let expected: Vec<f64> = (0..3).map(|entry| f64::from(model_logit(col, token, entry))).collect();
        assert_eq!(reader.logits(row, col).unwrap(), expected);
    }
    let (rows, positions) = (reader.input_ids().len(), reader.input_ids()[0].len());
    let bytes = OutputsWriter::file_bytes(rows, positions, reader.vocab());
    assert_eq!(bytes, std::fs::metadata(&saved).unwrap().len(), "what was announced");
    let itself = against(&mut Made::new(3, model_logit), &saved, TextOptions::default());
    assert_eq!((itself.kld.max, itself.top1, itself.logits.unwrap().max_abs_error), (0.0, 1.0, 0.0));
    let names = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 2, "nothing else is left behind");
}

#[test]
fn an_unfinished_file_never_appears() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("saved.safetensors");
    let mut writer = OutputsWriter::create(&path, &[vec![0, 1]], 3).unwrap();
    writer.append(&[0.0; 3]).unwrap();
    assert!(matches!(writer.finish(), Err(OutputsError::Written { limit: 6, actual: 3, .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
