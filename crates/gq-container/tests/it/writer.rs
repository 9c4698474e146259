//! The writer: exact sizes, refusals, and the same bytes after any interruption.

use crate::forge::{noise, spec};
use gq_container::{
    Container, StoredText, TensorEntry, TensorRule, TensorSpec, TextKind, WriteError, WriteRule, Writer,
    layout, partial_path,
};
use gq_tensor::Encoding;
use std::path::Path;

fn encoding(name: &str) -> Encoding {
    Encoding::from_name(name).unwrap()
}

/// Tensors whose payloads end on, before and after multiples of 256.
fn tensors() -> Vec<TensorSpec> {
    vec![
        spec("a", &[64], encoding("f32")),
        spec("b", &[3, 64], encoding("tq3")),
        spec("c", &[1], encoding("bf16")),
        spec("d", &[4, 96], encoding("tq5-g32")),
        spec("e", &[129], encoding("bf16")),
    ]
}

fn texts() -> Vec<StoredText> {
    let config = format!("{{\"list\": [{}1]}}", "1, ".repeat(200));
    [(TextKind::Report, "{}"), (TextKind::Config, &config), (TextKind::Licence, "free")]
        .map(|(kind, text)| StoredText::new(kind, text).unwrap())
        .into()
}

/// Writes tensor `i` in three pieces.
fn write_tensor(writer: &mut Writer, i: usize) -> TensorEntry {
    let spec = tensors().swap_remove(i);
    let payload = noise(i as u64, spec.payload_bytes().unwrap());
    writer.begin_tensor(spec).unwrap();
    for piece in payload.chunks(payload.len().div_ceil(3)) {
        writer.append(piece).unwrap();
    }
    writer.end_tensor().unwrap()
}

fn write_from(mut writer: Writer) -> Vec<TensorEntry> {
    for i in writer.entries().len()..tensors().len() {
        write_tensor(&mut writer, i);
    }
    let entries = writer.entries().to_vec();
    writer.finish(texts()).unwrap();
    entries
}

#[test]
fn a_file_is_as_long_as_planned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    write_from(Writer::create(&path).unwrap());
    let specs = tensors();
    let sizes = specs.iter().map(|spec| (spec.name.as_str(), spec.payload_bytes().unwrap()));
    let planned = layout::file_bytes(sizes, texts().iter().map(StoredText::stored_bytes));
    assert_eq!(planned, Some(std::fs::metadata(&path).unwrap().len()));
    assert!(!partial_path(&path).exists());
    let container = Container::open(&path).unwrap();
    assert_eq!(container.file_bytes(), planned.unwrap());
    container.verify(|_, _| {}).unwrap();
    assert_eq!(layout::file_bytes([("a", u64::MAX)], []), None);
    assert_eq!(layout::file_bytes([], []), Some(256));
}

#[test]
fn an_empty_file_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    Writer::create(&path).unwrap().finish(Vec::new()).unwrap();
    let container = Container::open(&path).unwrap();
    assert_eq!((container.file_bytes(), container.tensors().len(), container.texts().len()), (256, 0, 0));
}

#[test]
fn interrupted_anywhere_the_bytes_are_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    let entries = write_from(Writer::create(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    let last = entries.last().unwrap();
    let payloads_end = (last.offset + last.bytes) as usize;
    let mut cuts = 0;
    // Also cuts within tables and texts, which are written again.
    for cut in (0..whole.len()).step_by(13).chain([255, 256, 257, 511, 512, payloads_end, whole.len()]) {
        let finished = entries.iter().filter(|entry| (entry.offset + entry.bytes) as usize <= cut).count();
        for kept in [finished, finished.saturating_sub(1)] {
            let mut partial = whole[..cut].to_vec();
            partial.extend(noise(cut as u64, (cut % 3 * 100) as u64));
            std::fs::write(partial_path(&path), &partial).unwrap();
            assert_eq!(Writer::intact(&path, &entries[..kept], |_| {}).unwrap(), kept);
            write_from(Writer::resume(&path, &entries[..kept]).unwrap());
            assert!(std::fs::read(&path).unwrap() == whole, "cut at {cut}");
            cuts += 1;
        }
    }
    assert!(cuts > 300, "{cuts}");
}

#[test]
fn a_dropped_writer_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    write_from(Writer::create(&path).unwrap());
    let whole = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let mut writer = Writer::create(&path).unwrap();
    let finished: Vec<_> = (0..2).map(|i| write_tensor(&mut writer, i)).collect();
    writer.begin_tensor(tensors().swap_remove(2)).unwrap();
    writer.append(&[0xEE]).unwrap();
    drop(writer);
    assert!(!path.exists());
    // Bytes that are not what they were: the journal must not be believed from there on.
    let mut partial = std::fs::read(partial_path(&path)).unwrap();
    partial[finished[1].offset as usize + 5] ^= 1;
    std::fs::write(partial_path(&path), partial).unwrap();
    let mut read = 0;
    assert_eq!(Writer::intact(&path, &finished, |step| read += step).unwrap(), 1);
    assert_eq!(read, finished[0].bytes + finished[1].bytes);
    write_from(Writer::resume(&path, &finished[..1]).unwrap());
    assert!(std::fs::read(&path).unwrap() == whole);
    assert_eq!(Writer::intact(&path, &finished, |_| {}).unwrap(), 0);
}

#[test]
fn an_ended_tensor_survives_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    let mut writer = Writer::create(&path).unwrap();
    for i in 0..tensors().len() {
        write_tensor(&mut writer, i);
        // What a killed process leaves is what was handed to the operating system.
        assert_eq!(Writer::intact(&path, writer.entries(), |_| {}).unwrap(), i + 1);
    }
    // An unfinished file is not taken for a finished one.
    assert!(Container::open(&partial_path(&path)).is_err());
}

/// The rule that a refused call names.
fn rule<T: std::fmt::Debug>(outcome: Result<T, WriteError>) -> WriteRule {
    match outcome.unwrap_err() {
        WriteError::Rule { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[test]
fn what_the_format_cannot_hold_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    let mut writer = Writer::create(&path).unwrap();
    let a = || spec("a", &[2], encoding("f32"));
    assert_eq!(rule(writer.append(&[0])), WriteRule::OutOfTurn);
    assert_eq!(rule(writer.end_tensor()), WriteRule::OutOfTurn);
    writer.begin_tensor(a()).unwrap();
    assert_eq!(rule(writer.begin_tensor(a())), WriteRule::OutOfTurn);
    let name = || "a".to_owned();
    assert_eq!(rule(writer.append(&[0; 9])), WriteRule::PayloadBytes { name: name(), limit: 8, actual: 9 });
    writer.append(&[0; 7]).unwrap();
    assert_eq!(rule(writer.end_tensor()), WriteRule::PayloadBytes { name: name(), limit: 8, actual: 7 });
    drop(writer);
    let mut writer = Writer::create(&path).unwrap();
    writer.write_tensor(a(), &[0; 8]).unwrap();
    assert_eq!(rule(writer.begin_tensor(a())), WriteRule::DuplicateName { name: name() });
    let mut begin = |shape: &[u64], encoding| match rule(writer.begin_tensor(spec("b", shape, encoding))) {
        WriteRule::Tensor { source, .. } => source.code(),
        other => panic!("{other}"),
    };
    assert_eq!(begin(&[33], encoding("tq4")), "width");
    assert_eq!(begin(&[0], encoding("f32")), "dimension");
    assert_eq!(begin(&[1; 5], encoding("f32")), "rank");
    assert_eq!(begin(&[1 << 28; 4], encoding("f32")), "shape-overflow");
    assert_eq!(begin(&[1], Encoding::Exact(gq_tensor::DType::I64)), "encoding");
    let long = TensorSpec { name: "n".repeat(1025), ..a() };
    assert_eq!(long.payload_bytes(), Err(TensorRule::NameLength { limit: 1024, actual: 1025 }));
    let text = || StoredText::new(TextKind::Config, "{}").unwrap();
    let twice = writer.finish(vec![text(), text()]);
    assert_eq!(rule(twice), WriteRule::DuplicateText { kind: TextKind::Config });
}

#[test]
fn resuming_what_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    let entries = write_from(Writer::create(&path).unwrap());
    let resume = |entries: &[TensorEntry]| rule(Writer::resume(&path, entries));
    assert_eq!(resume(&entries[..1]), WriteRule::PartialTooShort { limit: 512, actual: 0 });
    std::fs::copy(&path, partial_path(&path)).unwrap();
    assert_eq!(resume(&entries[1..]), WriteRule::OutOfTurn);
    assert_eq!(
        resume(&[entries[0].clone(), entries[0].clone()]),
        WriteRule::DuplicateName { name: "a".to_owned() }
    );
}

#[test]
fn two_writers_of_one_file_do_not_meet() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.gq");
    let writer = Writer::create(&path).unwrap();
    assert!(matches!(Writer::create(&path), Err(WriteError::Busy { .. })));
    assert!(matches!(Writer::resume(&path, &[]), Err(WriteError::Busy { .. })));
    writer.discard().unwrap();
    assert!(!partial_path(&path).exists());
    let nowhere = Writer::create(Path::new("no such folder/x.gq")).unwrap_err();
    assert!(matches!(nowhere, WriteError::Io { .. }));
}
