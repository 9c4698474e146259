//! Prints the `tokenizer.json` that a GGUF's metadata stands for; of a file with a vocabulary and no weights too.
//!
//!     cargo run -p gq-checkpoint --example gguf_tokenizer -- FILE.gguf [PRE]

use gq_checkpoint::gguf::Gguf;
use gq_checkpoint::gguf_model::tokenizer_texts;
use gq_checkpoint::{OpenOptions, TurnTokens};
use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("a GGUF is expected")?;
    let mut options = OpenOptions::default();
    options.assume_pre = arguments.next();
    options.turn_tokens = Some(TurnTokens::Text);
    let texts = tokenizer_texts(Gguf::open(path)?.metadata(), &options)?.ok_or("there is no tokenizer")?;
    std::io::stdout().write_all(texts.tokenizer.as_bytes())?;
    Ok(())
}
