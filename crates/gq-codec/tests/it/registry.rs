//! `formats/registry.md` and the tables of the code say the same.

use gq_tensor::{Encoding, RotationKind};

const REGISTRY: &str = include_str!("../../../../formats/registry.md");

/// First two cells, code spans unquoted, of each row of the table under a heading.
fn table(heading: &str) -> Vec<(String, String)> {
    let section = REGISTRY.split(&format!("## {heading}\n")).nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let cells =
        |line: &str| line.split('|').map(|c| c.trim().trim_matches('`').to_owned()).collect::<Vec<_>>();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(cells).map(|c| (c[1].clone(), c[2].clone())).collect()
}

#[test]
fn encodings() {
    let want: Vec<_> = Encoding::all().iter().map(|e| (format!("0x{:04X}", e.code()), e.name())).collect();
    assert_eq!(table("Encodings"), want);
}

#[test]
fn rotations() {
    let want: Vec<_> =
        RotationKind::ALL.iter().map(|k| (k.code().to_string(), k.name().to_owned())).collect();
    assert_eq!(table("Rotations"), want);
}
