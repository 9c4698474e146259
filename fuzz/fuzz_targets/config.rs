//! Any bytes as `config.json`. Seeds: `testdata/configs`.
//!
//! `cargo +nightly fuzz run config fuzz/corpus/config testdata/configs`
#![no_main]

use gq_checkpoint::Checkpoint;
use gq_fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::like("tiny/llama", "config.json"));

fuzz_target!(|bytes: &[u8]| {
    let _ = Checkpoint::open(FOLDER.with(bytes));
});
