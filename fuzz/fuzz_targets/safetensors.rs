//! Any bytes as the weights of a tiny model: header, ranges, and the rows of every tensor that is in its place.
//!
//! `cargo +nightly fuzz run safetensors fuzz/corpus/safetensors testdata/malformed/checkpoint`
#![no_main]

use gq_checkpoint::Checkpoint;
use gq_fuzz::Folder;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::like("tiny/llama", "model.safetensors"));

fuzz_target!(|bytes: &[u8]| {
    let Ok(checkpoint) = Checkpoint::open(FOLDER.with(bytes)) else { return };
    for tensor in checkpoint.tensors().iter().filter(|tensor| tensor.rows() > 0) {
        let mut row = vec![0.0; tensor.cols()];
        let _ = checkpoint.read_rows_f32(tensor, 0..1, &mut row);
    }
});
