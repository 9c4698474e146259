//! `gq verify`: recomputes every digest of a file.

use crate::cli::Global;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};
use crate::source;
use gq_container::Container;
use std::path::PathBuf;

/// Check a .gq file: its structure, and every digest against its bytes.
#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// The .gq file, or one in a repository: hf://ORG/NAME/FILE.gq.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub fn run(args: &VerifyArgs, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let found = source::find(&args.file, global)?;
    let container = Container::open(&found.path)?;
    let total = container.tensors().iter().map(|tensor| tensor.bytes).sum();
    let mut progress = Progress::new(global.progress, output, "verify", Unit::Bytes, total);
    let mut done = 0;
    container.verify(|tensor, bytes| {
        done += bytes;
        progress.set(done, &tensor.name);
    })?;
    progress.finish();
    if output.json {
        return output.document(&serde_json::json!({
            "file": args.file.display().to_string(),
            "ok": true,
            "file_bytes": container.file_bytes(),
            "tensors": container.tensors().len(),
            "file_sha256": container.file_sha256().to_string(),
            "payload_sha256": container.payload_sha256().to_string(),
        }));
    }
    output.data(&format!(
        "{}: ok, {} tensors\nfile sha256     {}\npayload sha256  {}\n",
        args.file.display(),
        container.tensors().len(),
        container.file_sha256(),
        container.payload_sha256(),
    ))
}
