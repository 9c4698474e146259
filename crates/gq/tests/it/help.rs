//! The manual is generated and committed.

use std::path::Path;
use std::process::Command;

#[test]
fn the_committed_manual_is_the_programs_own() {
    let output = Command::new(env!("CARGO_BIN_EXE_gq")).args(["man", "--markdown"]).output().unwrap();
    assert!(output.status.success());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/CLI.md");
    let committed = std::fs::read_to_string(path).unwrap();
    let actual = String::from_utf8(output.stdout).unwrap();
    assert!(committed == actual, "run: gq man --markdown > docs/CLI.md");
}
