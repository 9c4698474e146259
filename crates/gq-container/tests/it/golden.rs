//! Files of every format version are readable forever.

use crate::forge;
use crate::listing::listing;
use gq_container::{Container, TextKind, Writer, validate};
use std::path::{Path, PathBuf};

pub fn golden_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/golden/container")
}

pub fn golden(name: &str) -> Vec<u8> {
    std::fs::read(golden_dir().join(name)).unwrap()
}

#[test]
fn golden_files_read_as_listed() {
    for name in
        ["v1-smallest", "v1-two-tensors", "v1-everything", "v1-skippable", "v1-trellis", "v1-trellis-s14"]
    {
        let bytes = golden(&format!("{name}.gq"));
        let listed = String::from_utf8(golden(&format!("{name}.json"))).unwrap();
        assert_eq!(listing(&bytes), listed, "{name}");
        let layout = validate(&bytes).unwrap();
        let mut seen = 0;
        layout.verify(&bytes, |_, step| seen += step).unwrap();
        assert_eq!(seen, layout.tensors().iter().map(|tensor| tensor.bytes).sum::<u64>());
    }
}

#[test]
fn the_writer_still_writes_the_golden_bytes() {
    let dir = tempfile::tempdir().unwrap();
    assert!(forge::smallest(dir.path()) == golden("v1-smallest.gq"));
    assert!(forge::two_tensors(dir.path()) == golden("v1-two-tensors.gq"));
    assert!(forge::everything(dir.path()) == golden("v1-everything.gq"));
    assert!(forge::skippable(dir.path()) == golden("v1-skippable.gq"));
    assert!(forge::trellis(dir.path()) == golden("v1-trellis.gq"));
    assert!(forge::trellis_s14(dir.path()) == golden("v1-trellis-s14.gq"));
}

#[test]
fn a_mapped_file_gives_matrices_and_texts() {
    let path = golden_dir().join("v1-everything.gq");
    let container = Container::open(&path).unwrap();
    for tensor in container.tensors() {
        let matrix = container.matrix(tensor).unwrap();
        let shape = matrix.shape();
        assert_eq!((shape.rows * shape.cols) as u64, tensor.elements(), "{}", tensor.name);
        assert_eq!([matrix.codes(), matrix.scales()].concat(), container.payload(tensor));
        assert_eq!(container.tensor(&tensor.name), Some(tensor));
        assert_eq!(tensor.offset % 256, 0);
    }
    let experts = container.matrix(container.tensor("rank 3").unwrap()).unwrap().shape();
    assert_eq!((experts.rows, experts.cols), (6, 64));
    assert_eq!(container.tensor("rank"), None);
    assert_eq!(container.provenance().unwrap(), Some(forge::provenance()));
    let template = container.text(TextKind::ChatTemplate).unwrap().unwrap();
    assert!(template.starts_with("{\"\u{e4}\": \"chat_template"));
    container.verify(|_, _| {}).unwrap();
}

#[test]
fn texts_change_without_the_weights() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gq");
    std::fs::copy(golden_dir().join("v1-two-tensors.gq"), &path).unwrap();
    let before = Container::open(&path).unwrap();
    let text = gq_container::StoredText::new(TextKind::Config, "{\"changed\": true}").unwrap();
    let finished = before.with_texts(&path, vec![text]).unwrap();
    let after = Container::open(&path).unwrap();
    after.verify(|_, _| {}).unwrap();
    assert_eq!(after.tensors(), before.tensors());
    assert_eq!(
        (after.payload_sha256(), after.file_sha256()),
        (before.payload_sha256(), finished.file_sha256)
    );
    assert_ne!(after.file_sha256(), before.file_sha256());
    assert_eq!(after.text(TextKind::Config).unwrap().unwrap(), "{\"changed\": true}");
    assert_eq!(after.provenance().unwrap(), None);
    // The old map still shows the old file.
    assert_eq!(before.provenance().unwrap(), Some(forge::provenance()));
}

#[test]
fn the_payload_digest_knows_no_order() {
    let dir = tempfile::tempdir().unwrap();
    let f32 = gq_tensor::Encoding::from_name("f32").unwrap();
    let write = |names: [&str; 2]| {
        let path = dir.path().join("order.gq");
        let mut writer = Writer::create(&path).unwrap();
        for name in names {
            writer.write_tensor(forge::spec(name, &[1], f32), &[name.as_bytes()[0]; 4]).unwrap();
        }
        writer.finish(Vec::new()).unwrap()
    };
    let (one, other) = (write(["a", "b"]), write(["b", "a"]));
    assert_eq!(one.payload_sha256, other.payload_sha256);
    assert_ne!(one.file_sha256, other.file_sha256);
}
