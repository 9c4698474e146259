//! Any bytes as a GGUF: metadata, tensors, tokenizer.
//!
//! `cargo +nightly fuzz run gguf fuzz/corpus/gguf testdata/gguf`
#![no_main]

use gq_checkpoint::Checkpoint;
use gq_fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::like("tiny/llama", "model.gguf"));

fuzz_target!(|bytes: &[u8]| {
    FOLDER.with(bytes);
    let Ok(checkpoint) = Checkpoint::open(FOLDER.file()) else { return };
    let _ = checkpoint.texts();
    for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.rows() > 0) {
        let mut row = vec![0.0; tensor.cols()];
        let _ = checkpoint.read_rows_f32(tensor, 0..1, &mut row);
    }
});
