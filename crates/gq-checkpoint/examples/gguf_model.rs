//! What a GGUF holds as a checkpoint, for `scripts/check_gguf.py`: texts into a folder, and the tensors' digests.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test tool

use gq_checkpoint::Checkpoint;
use sha2::{Digest, Sha256};

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(out)) = (args.next(), args.next()) else {
        println!("usage: gguf_model FILE.gguf OUT_DIR");
        return;
    };
    let model = Checkpoint::open(path).unwrap();
    let texts = model.texts().unwrap();
    std::fs::create_dir_all(&out).unwrap();
    let put = |name: &str, text: &str| std::fs::write(format!("{out}/{name}"), text).unwrap();
    put("config.json", &texts.config);
    texts.tokenizer.iter().for_each(|text| put("tokenizer.json", text));
    texts.tokenizer_config.iter().for_each(|text| put("tokenizer_config.json", text));
    texts.chat_template.iter().for_each(|text| put("chat_template.jinja", text));
    for tensor in model.tensors() {
        let mut hasher = Sha256::new();
        let step = ((1 << 20) / tensor.cols()).max(1);
        for first in (0..tensor.rows()).step_by(step) {
            let rows = first..(first + step).min(tensor.rows());
            let mut values = vec![0.0; rows.len() * tensor.cols()];
            model.read_rows_f32(tensor, rows, &mut values).unwrap();
            values.iter().for_each(|value| hasher.update(value.to_le_bytes()));
        }
        let digest: String = hasher.finalize().iter().map(|b| format!("{b:02x}")).collect();
        println!("{} {:?} {digest}", tensor.name, tensor.shape);
    }
}
