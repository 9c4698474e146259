//! Any bytes as the index of a model in shards.
//!
//! `cargo +nightly fuzz run index fuzz/corpus/index testdata/tiny/qwen2`
#![no_main]

use gq_checkpoint::Checkpoint;
use gq_fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> =
    LazyLock::new(|| Folder::like("tiny/qwen2", "model.safetensors.index.json"));

fuzz_target!(|bytes: &[u8]| {
    let _ = Checkpoint::open(FOLDER.with(bytes));
});
