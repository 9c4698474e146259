//! Integration tests of the crate, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use gq_checkpoint::Checkpoint;
use std::path::PathBuf;

mod chat;
mod harmony;
mod tokenizer;

fn testdata(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(path)
}

fn tiny(name: &str) -> Checkpoint {
    Checkpoint::open(testdata("tiny").join(name)).unwrap()
}
