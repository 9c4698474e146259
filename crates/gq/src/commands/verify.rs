//! `gq verify`: recomputes every digest of a file.

mod rederive;

use crate::adapters::Adapters;
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
///
/// With --rederive, that a .gq file derives from its source: the source's files have the digests that the file records, and
/// its tensors, encoded again, are the file's bit for bit.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq verify model.gq
  gq verify model.gq --rederive ./SmolLM2-135M-Instruct               every tensor that needs no measurements
  gq verify model.gq --rederive hf://HuggingFaceTB/SmolLM2-135M-Instruct --sample 8
  gq verify model.gq --rederive ./SmolLM2-135M-Instruct --measurements smol.measurements
  gq verify smol-release
")]
pub struct VerifyArgs {
    /// The .gq file or a release's folder; here, or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq), which is fetched
    /// first where the cache lacks files of it.
    #[arg(value_name = "FILE|DIR")]
    file: PathBuf,
    /// What the .gq file was made from: a checkpoint directory, a GGUF, or a repository. Its files are digested and compared
    /// with what the file records, and tensors are encoded again as the file says and compared bit for bit.
    #[arg(long, value_name = "SRC")]
    rederive: Option<PathBuf>,
    /// Encode so many tensors again instead of all: chosen among the rounded ones by the digest of the file's payload, so that
    /// whoever made the file did not choose them.
    #[arg(long, value_name = "N", requires = "rederive", value_parser = clap::value_parser!(u32).range(1..))]
    sample: Option<u32>,
    /// The measurements that the file was rounded by, from `gq calibrate` or --keep-measurements; without them tensors that
    /// were rounded by measurements are not encoded again.
    #[arg(long, value_name = "DIR", requires = "rederive")]
    measurements: Option<PathBuf>,
    #[command(flatten)]
    loras: Adapters,
}

pub fn run(args: &VerifyArgs, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    if args.rederive.is_none() && !args.loras.is_empty() {
        let failure =
            Failure::new(Exit::Usage, "verify.lora", "--lora says how the source of --rederive is opened");
        return Err(failure.at("--lora").limit("--rederive SRC"));
    }
    let found = source::find_release(&args.file, global)?;
    if found.path.is_dir() {
        if args.rederive.is_some() {
            let message = "--rederive compares one .gq file with its source: give a file of the release";
            return Err(Failure::new(Exit::Usage, "verify.rederive_release", message).at("--rederive"));
        }
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
    let asked = args.rederive.as_deref().map(|source| rederive::Asked {
        container: &container,
        source,
        loras: &args.loras,
        sample: args.sample,
        measurements: args.measurements.as_deref(),
    });
    let rederived = asked.map(|asked| rederive::rederive(&asked, global)).transpose()?;
    let failure = rederived.as_ref().and_then(|rederived| rederived.failure(&args.file));
    if output.json {
        output.document(&serde_json::json!({
            "file": args.file.display().to_string(),
            "ok": failure.is_none(),
            "file_bytes": container.file_bytes(),
            "tensors": container.tensors().len(),
            "texts": texts.keys().map(|kind| kind.name()).collect::<Vec<_>>(),
            "has_tokenizer": has_tokenizer,
            "file_sha256": container.file_sha256().to_string(),
            "payload_sha256": container.payload_sha256().to_string(),
            "rederived": rederived.as_ref().map(rederive::Rederived::json),
        }))?;
        return failure.map_or(Ok(()), |failure| Err(failure.shown(true)));
    }
    output.data(&format!(
        "{}: ok, {} tensors, {} texts{}\nfile sha256     {}\npayload sha256  {}\n",
        args.file.display(),
        container.tensors().len(),
        texts.len(),
        if has_tokenizer { "" } else { " (no tokenizer)" },
        container.file_sha256(),
        container.payload_sha256(),
    ))?;
    if let Some(rederived) = &rederived {
        output.data(&rederived.text())?;
    }
    failure.map_or(Ok(()), Err)
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
