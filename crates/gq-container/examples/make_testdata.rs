//! Writes `testdata/golden/container` and `testdata/malformed/container`.
//!
//! Golden files that exist are frozen and left alone: they must be readable forever.

#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code)]

#[path = "../tests/it/forge.rs"]
mod forge;
#[path = "../tests/it/listing.rs"]
mod listing;

use std::path::Path;

fn main() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let (golden, malformed) = (testdata.join("golden/container"), testdata.join("malformed/container"));
    std::fs::create_dir_all(&golden).unwrap();
    std::fs::create_dir_all(&malformed).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let two_tensors = forge::two_tensors(scratch.path());
    let files = [
        ("v1-smallest", forge::smallest(scratch.path())),
        ("v1-two-tensors", two_tensors),
        ("v1-everything", forge::everything(scratch.path())),
        ("v1-skippable", forge::skippable(scratch.path())),
        ("v1-trellis", forge::trellis(scratch.path())),
        ("v1-trellis-s14", forge::trellis_s14(scratch.path())),
    ];
    for (name, bytes) in files {
        let path = golden.join(name).with_extension("gq");
        if path.exists() {
            println!("{name}: exists, left alone");
            continue;
        }
        std::fs::write(&path, &bytes).unwrap();
        std::fs::write(path.with_extension("json"), listing::listing(&bytes)).unwrap();
    }
    let valid = std::fs::read(golden.join("v1-two-tensors.gq")).unwrap();
    for (name, bytes) in forge::malformed(&valid) {
        std::fs::write(malformed.join(name).with_extension("gq"), bytes).unwrap();
    }
}
