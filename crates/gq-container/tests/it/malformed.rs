//! One file per broken rule, each refused by exactly that rule.

use crate::golden::golden;
use crate::{allocations, forge};
use gq_container::{Container, ContainerError, FormatError, VerifyError, validate};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/malformed/container")
}

/// Reads a file from end to end.
fn read(bytes: &[u8]) -> Result<(), VerifyError> {
    let layout = validate(bytes)?;
    layout.verify(bytes, |_, _| {})
}

#[test]
fn each_file_breaks_the_rule_in_its_name() {
    let mut files = 0;
    for entry in std::fs::read_dir(dir()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let bytes = std::fs::read(&path).unwrap();
        let (outcome, peak) = allocations::peak(|| read(&bytes));
        let error = outcome.unwrap_err();
        assert_eq!(error.code(), name.split("--").next().unwrap(), "{name}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{name}");
        assert!(peak < bytes.len() + 4096, "{name}: {peak} bytes allocated");
        files += 1;
    }
    assert!(files >= 60, "{files}");
}

#[test]
fn the_files_are_those_of_the_generator() {
    let cases = forge::malformed(&golden("v1-two-tensors.gq"));
    for (name, bytes) in &cases {
        let committed = std::fs::read(dir().join(name).with_extension("gq")).unwrap();
        assert!(*bytes == committed, "{name}: run the example make_testdata");
    }
    assert_eq!(cases.len(), std::fs::read_dir(dir()).unwrap().count());
}

#[test]
fn every_rule_of_the_specification_has_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let spec = std::fs::read_to_string(root.join("formats/container.md")).unwrap();
    let rules = spec.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | MUST "));
    let rules: BTreeSet<_> = rules.map(|(code, _)| code.to_owned()).collect();
    let cases = forge::malformed(&golden("v1-two-tensors.gq"));
    let files: BTreeSet<_> =
        cases.iter().map(|(name, _)| name.split("--").next().unwrap().to_owned()).collect();
    assert_eq!(rules, files);
}

#[test]
fn opening_names_the_file() {
    let path = dir().join("magic.gq");
    let error = Container::open(&path).unwrap_err();
    assert!(matches!(error, ContainerError::Format { .. }));
    assert!(error.to_string().contains("magic.gq: not a .gq file"), "{error}");
    let missing = Container::open(&dir().join("none.gq")).unwrap_err();
    assert!(matches!(missing, ContainerError::Io { .. }));
    assert!(matches!(Container::open(&dir()).unwrap_err(), ContainerError::Io { .. }));
    let empty = Container::open(&dir().join("too-short--empty.gq")).unwrap_err();
    assert!(matches!(empty, ContainerError::Format { source: FormatError::TooShort { actual: 0, .. }, .. }));
}
