//! `gq verify`: recomputes every digest of a file.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::progress::Progress;
use crate::release::verify;
use crate::{expected, seen, source, texts, units};
use gq_container::{Container, TextKind};
use std::path::{Path, PathBuf};

/// Check a .gq file or a release: structure, every digest against its bytes, every text as `gq run` reads it. Local files are checked offline.
///
/// Of a release: that each file is there with the digest of SHA256SUMS and none besides, that the manifests describe
/// the tensors, and that the evaluations and limits are those of release.json.
#[derive(clap::Args, Debug)]
pub struct VerifyArgs {
    /// The .gq file or a release's folder; here, or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq), which is fetched
    /// first where the cache lacks files of it.
    #[arg(value_name = "FILE|DIR")]
    file: PathBuf,
}

pub fn run(args: &VerifyArgs, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let found = source::find_release(&args.file, global)?;
    if found.path.is_dir() {
        return release(&found.path, args, global);
    }
    let container = Container::open(&found.path)?;
    let total = container.tensors().iter().map(|tensor| tensor.bytes).sum();
    let mut progress = Progress::staged(global, "verify", vec![expected::digesting(total)]);
    let mut done = 0;
    container.verify(|tensor, bytes| {
        done += bytes;
        progress.set(done, &tensor.name);
    })?;
    progress.finish();
    let texts = texts::of_container(&container)?;
    texts::or_refuse(texts::read_all(&texts), Exit::Check, "verify.text", &args.file.display().to_string())?;
    seen::finite(&container, Exit::Check, "verify.not_finite")?;
    let has_tokenizer = texts.contains_key(&TextKind::Tokenizer);
    if output.json {
        return output.document(&serde_json::json!({
            "file": args.file.display().to_string(),
            "ok": true,
            "file_bytes": container.file_bytes(),
            "tensors": container.tensors().len(),
            "texts": texts.keys().map(|kind| kind.name()).collect::<Vec<_>>(),
            "has_tokenizer": has_tokenizer,
            "file_sha256": container.file_sha256().to_string(),
            "payload_sha256": container.payload_sha256().to_string(),
        }));
    }
    output.data(&format!(
        "{}: ok, {} tensors, {} texts{}\nfile sha256     {}\npayload sha256  {}\n",
        args.file.display(),
        container.tensors().len(),
        texts.len(),
        if has_tokenizer { "" } else { " (no tokenizer)" },
        container.file_sha256(),
        container.payload_sha256(),
    ))
}

fn release(dir: &Path, args: &VerifyArgs, global: &Global) -> Result<(), Failure> {
    if !verify::is_release(dir) {
        let message = format!("{}: neither a .gq file nor a release", dir.display());
        let failure = Failure::new(Exit::Input, "verify.no_release", message).at(dir.display());
        return Err(failure.limit("SHA256SUMS and release.json"));
    }
    let verified = verify::verify(dir, global)?;
    let output = global.output();
    let shown = args.file.display().to_string();
    if output.json {
        return output.document(&serde_json::json!({
            "folder": shown,
            "ok": true,
            "files": verified.files,
            "bytes": verified.bytes,
            "tensors": verified.tensors,
            "variants": verified.manifest.variants.len(),
            "passed": verified.manifest.passed,
        }));
    }
    let limits = match verified.manifest.passed {
        true => "",
        false => "; a limit of its recipe is exceeded, as release.json says",
    };
    output.data(&format!(
        "{shown}: ok, {} files with {} bytes, {} sizes with {} tensors{limits}\n",
        verified.files,
        units::count(verified.bytes),
        verified.manifest.variants.len(),
        units::count(verified.tensors as u64),
    ))
}
