//! Header, metadata and placement: what gguf-py writes is read, what we write reads back, splits are joined.

use super::support::{fixture, write};
use gq_checkpoint::gguf::{Array, GgmlType, Gguf, GgufError, GgufWriter, Metadata, NewTensor, Value};

#[test]
fn every_kind_of_value_with_its_width() {
    let gguf = Gguf::open(fixture("types.gguf")).unwrap();
    let metadata = gguf.metadata();
    let expected = [
        ("general.architecture", Value::String("test".into())),
        ("value.u8", Value::U8(200)),
        ("value.i8", Value::I8(-100)),
        ("value.u16", Value::U16(60000)),
        ("value.i16", Value::I16(-30000)),
        ("value.u32", Value::U32(4_000_000_000)),
        ("value.i32", Value::I32(-2_000_000_000)),
        ("value.f32", Value::F32(1e-6)),
        ("value.bool", Value::Bool(true)),
        ("value.string", Value::String("Grüße ▁".into())),
        ("value.u64", Value::U64((1 << 63) + 1)),
        ("value.i64", Value::I64(-(1 << 62))),
        ("value.f64", Value::F64(0.1)),
        ("array.u8", Value::Array(Array::U8(vec![1, 2, 3, 4, 5]))),
        ("array.i16", Value::Array(Array::I16(vec![-1, 2]))),
        ("array.u32", Value::Array(Array::U32((0..7).collect()))),
        ("array.i32", Value::Array(Array::I32(vec![-5, 5]))),
        ("array.f32", Value::Array(Array::F32(vec![0.5, -0.25]))),
        ("array.bool", Value::Array(Array::Bool(vec![true, false]))),
        ("array.string", Value::Array(Array::String(["a", "", "bc", "d", "e"].map(str::to_owned).into()))),
        ("array.u64", Value::Array(Array::U64(vec![1 << 40]))),
        ("array.f64", Value::Array(Array::F64(vec![0.1]))),
    ];
    for (key, value) in &expected {
        assert_eq!(metadata.get(key), Some(value), "{key}");
    }
    assert_eq!(metadata.len(), expected.len());
    assert_eq!(metadata.get("value.f32").unwrap().as_f64(), Some(1e-6), "by its decimal form");
    assert_eq!(metadata.get("array.i32").unwrap().as_array().unwrap().to_u64s(), None, "a negative one");
    assert_eq!(metadata.get("value.i8").unwrap().as_u64(), None);
}

#[test]
fn a_file_written_again_is_the_same_file() {
    let original = std::fs::read(fixture("types.gguf")).unwrap();
    let gguf = Gguf::open(fixture("types.gguf")).unwrap();
    let tensors: Vec<_> = gguf
        .tensors()
        .iter()
        .map(|t| NewTensor { name: t.info.name.clone(), shape: t.info.shape.clone(), kind: t.info.kind })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("again.gguf");
    let bytes = write(&path, gguf.metadata(), &tensors, |index| {
        let tensor = &gguf.tensors()[index];
        let mut bytes = vec![0; tensor.info.bytes as usize];
        gguf.read_bytes(tensor, 0, &mut bytes).unwrap();
        bytes
    })
    .unwrap();
    assert!(std::fs::read(&path).unwrap() == original);
    assert_eq!(bytes, original.len() as u64);
    assert_eq!(GgufWriter::file_bytes(gguf.metadata(), &tensors).unwrap(), bytes);
}

#[test]
fn splits_are_joined_from_any_of_their_files() {
    for name in ["split-00001-of-00003.gguf", "split-00003-of-00003.gguf"] {
        let gguf = Gguf::open(fixture(name)).unwrap();
        assert_eq!((gguf.files().count(), gguf.tensors().len()), (3, 5));
        assert_eq!(gguf.metadata().get("general.architecture"), Some(&Value::String("test".into())));
        for i in 0..5 {
            let mut values = [9.0; 64];
            gguf.read_rows_f32(gguf.tensor(&format!("t.{i}")).unwrap(), 0..2, &mut values).unwrap();
            assert_eq!(values, [i as f32; 64]);
        }
    }
}

/// gguf-py says a split's alignment in its first file alone, and aligns all of them by it.
#[test]
fn the_first_files_alignment_is_that_of_all() {
    for name in ["aligned-00001-of-00003.gguf", "aligned-00002-of-00003.gguf"] {
        let gguf = Gguf::open(fixture(name)).unwrap();
        assert_eq!(gguf.tensors().len(), 5);
        for (index, tensor) in gguf.tensors().iter().enumerate() {
            let mut values = [0.0; 64];
            gguf.read_rows_f32(tensor, 0..2, &mut values).unwrap();
            assert_eq!(values, [index as f32; 64], "{name}: {}", tensor.info.name);
        }
    }
}

/// llama.cpp's splitter copies the key to the first file too, but aligns later ones by 32.
#[test]
fn later_files_aligned_by_32_are_told_by_their_length() {
    let dir = tempfile::tempdir().unwrap();
    let parts = ["00001", "00002", "00003"].map(|number| format!("{number}-of-00003.gguf"));
    for (index, part) in parts.iter().enumerate() {
        let from = if index == 0 { "aligned" } else { "split" };
        std::fs::copy(fixture(&format!("{from}-{part}")), dir.path().join(format!("x-{part}"))).unwrap();
    }
    let gguf = Gguf::open(dir.path().join(format!("x-{}", parts[0]))).unwrap();
    for (index, tensor) in gguf.tensors().iter().enumerate() {
        let mut values = [0.0; 64];
        gguf.read_rows_f32(tensor, 0..2, &mut values).unwrap();
        assert_eq!(values, [index as f32; 64], "{}", tensor.info.name);
    }
}

#[test]
fn broken_splits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let place = |from: &str, to: &str| std::fs::copy(fixture(from), dir.path().join(to)).unwrap();
    let open = |name: &str| Gguf::open(dir.path().join(name)).unwrap_err();
    place("split-00001-of-00003.gguf", "a-00001-of-00003.gguf");
    assert!(matches!(open("a-00001-of-00003.gguf"), GgufError::Io { .. }), "the second file is missing");
    place("split-00003-of-00003.gguf", "a-00002-of-00003.gguf");
    place("split-00003-of-00003.gguf", "a-00003-of-00003.gguf");
    assert!(
        matches!(open("a-00001-of-00003.gguf"), GgufError::Split { fault, .. } if fault.contains("split.no"))
    );
    place("split-00001-of-00003.gguf", "renamed.gguf");
    assert!(matches!(open("renamed.gguf"), GgufError::Split { fault, .. } if fault.contains("not named")));
}

#[test]
fn an_unfinished_file_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let tensors = [NewTensor { name: "t".into(), shape: vec![2, 32], kind: GgmlType::Q8_0 }];
    let metadata = Metadata::default();
    let mut writer = GgufWriter::create(&path, &metadata, &tensors).unwrap();
    writer.append(&[0; 34]).unwrap();
    assert!(matches!(writer.append(&[0; 35]), Err(GgufError::OutOfRange { actual: 34, .. })));
    assert!(matches!(writer.finish(), Err(GgufError::OutOfRange { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let odd = [NewTensor { name: "t".into(), shape: vec![2, 33], kind: GgmlType::Q8_0 }];
    assert!(matches!(GgufWriter::create(&path, &metadata, &odd), Err(GgufError::RowLen { cols: 33, .. })));
}

#[test]
fn requests_outside_of_a_tensor_are_refused() {
    let gguf = Gguf::open(fixture("types.gguf")).unwrap();
    let tensor = gguf.tensor("t.Q4_0").unwrap();
    for (rows, len) in [(0..3, 1536), (1..1, 512), (0..2, 1000)] {
        let error = gguf.read_rows_f32(tensor, rows, &mut vec![0.0; len]);
        assert!(matches!(error, Err(GgufError::OutOfRange { .. })));
    }
    assert!(gguf.read_bytes(tensor, tensor.info.bytes - 1, &mut [0; 2]).is_err());
    assert!(gguf.read_bytes(tensor, u64::MAX, &mut [0; 2]).is_err());
}
