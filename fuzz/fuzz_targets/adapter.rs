//! Any bytes as `adapter_config.json` next to an adapter of the demo.
//!
//! `cargo +nightly fuzz run adapter fuzz/corpus/adapter testdata/lora/*/adapter_config.json`
#![no_main]

use gq_checkpoint::Adapter;
use gq_fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::like("lora/demo", "adapter_config.json"));

fuzz_target!(|bytes: &[u8]| {
    let _ = Adapter::open(FOLDER.with(bytes), 1.0);
});
