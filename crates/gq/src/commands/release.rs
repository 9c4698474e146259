//! `gq release`: several sizes of a model, measured and described, in one folder.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::Out;
use crate::release::describe::describe;
use crate::release::job::{Asked, Job, prepare};
use crate::release::make::make;
use crate::release::manifest::{Manifest, Names};
use crate::release::verify::{is_release, verify};
use crate::release::work::{Work, differs};
use crate::release::{CARD, MANIFEST, PAGE};
use crate::seen::NoCheck;
use crate::signals::Work as Left;
use crate::sums::{self, SUMS};
use crate::table::Table;
use crate::{guard, signals, units};
use std::path::{Path, PathBuf};

/// Make a release: several sizes of a model in one folder, measured, with checksums, manifests, a model card and a report.
///
/// The recipe says which sizes, on what they are measured and which limits they must keep. All files are written
/// even if a limit is exceeded; then the exit code is 1. A release that was interrupted is taken up where it stopped
/// when the same command is run again. The same source, recipe and version give the same bytes.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  gq release hf://HuggingFaceTB/SmolLM2-135M-Instruct --recipe release.toml -o smol-release
  gq verify smol-release
  gq push smol-release me/SmolLM2-135M-Instruct-gq

A recipe (all keys are in docs/RELEASE.md):
  repo = \"me/SmolLM2-135M-Instruct-gq\"
  [evaluation]
  text = \"wiki.test.txt\"
  windows = 40
  fail_above = [\"kld=0.2\"]
  [[variant]]
  bits = 8
  [[variant]]
  bits = 4
  fail_above = [\"kld=0.05\", \"ppl-ratio=1.03\"]")]
pub struct ReleaseArgs {
    /// Checkpoint directory, a GGUF, or a repository (hf://ORG/NAME, hf://ORG/NAME@REV).
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// The recipe.
    #[arg(long, value_name = "FILE")]
    recipe: PathBuf,
    /// Folder to make.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Quantize a source that is quantized already, such as a Q4_K GGUF.
    #[arg(long)]
    allow_requantize: bool,
    /// Refuse to start when more memory would be needed to convert.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    max_memory: Option<u64>,
    /// Directory where logits of references are kept [default: gq/logits in the user's cache].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Most bytes to keep there, the least recently used go first; 0 keeps nothing.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = units::parse_bytes)]
    cache_limit: u64,
    #[command(flatten)]
    no_check: NoCheck,
    /// Discard what an earlier run left in the folder.
    #[arg(long)]
    restart: bool,
}

pub fn run(args: &ReleaseArgs, global: &Global) -> Result<(), Failure> {
    let dir = &args.output;
    guard::check(&[Out::folder(dir)], &[&args.source, &args.recipe])?;
    refuse_full(args)?;
    let left = signals::during(Left::that_continues([dir.join(crate::release::work::NAME)]));
    let job = prepare(
        Asked {
            source: &args.source,
            recipe: &args.recipe,
            allow_requantize: args.allow_requantize,
            max_memory: args.max_memory,
            cache: args.cache.as_deref(),
            cache_limit: args.cache_limit,
            no_check: args.no_check,
        },
        global,
    )?;
    guard::check(&[Out::folder(dir)], &job.reads())?;
    std::fs::create_dir_all(dir).map_err(|e| Failure::io(dir, &e))?;
    if args.restart {
        discard(&job, dir)?;
    }
    if !Work::is_begun(dir) && is_release(dir) {
        return finished(&job, dir);
    }
    let mut work = Work::open(dir, &job.inputs, false)?;
    make(&job, dir, &mut work)?;
    let manifest = describe(&job, dir)?;
    // There is nothing to go on with.
    drop(left);
    work.finish()?;
    show(&manifest, dir, global)
}

/// Refuses a folder that holds something else than a release, finished or begun.
fn refuse_full(args: &ReleaseArgs) -> Result<(), Failure> {
    let dir = &args.output;
    if !dir.exists() || Work::is_begun(dir) || is_release(dir) {
        return Ok(());
    }
    let Some(name) = sums::list(dir)?.into_iter().next() else { return Ok(()) };
    let message = format!("{}: not empty, and no release: it holds {name}", dir.display());
    let failure = Failure::new(Exit::Usage, "release.not_empty", message);
    Err(failure.at(dir.display()).limit("an empty folder").actual(name))
}

/// Files that a run of this job may have left.
fn discard(job: &Job<'_>, dir: &Path) -> Result<(), Failure> {
    let sums = std::fs::read_to_string(dir.join(SUMS)).unwrap_or_default();
    let mut names: Vec<String> =
        sums::parse(&sums).unwrap_or_default().into_iter().map(|(name, _)| name).collect();
    for variant in &job.recipe.variants {
        let own = Names::new(&job.name, &variant.name);
        for end in [".partial", ".journal"] {
            names.push(format!("{}{end}", own.file));
        }
        names.extend([own.file, own.tensors, own.evaluation]);
    }
    names.extend([MANIFEST, CARD, PAGE, SUMS, ".gq-release"].map(str::to_owned));
    for name in names {
        match gq_files::remove(&dir.join(&name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::io(&dir.join(&name), &e));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A folder that holds a finished release: this one is checked, another one is left alone.
fn finished(job: &Job<'_>, dir: &Path) -> Result<(), Failure> {
    let verified = verify(dir, job.global)?;
    if verified.manifest.inputs != job.inputs {
        return Err(differs(dir, &verified.manifest.inputs, &job.inputs));
    }
    job.global.output().note(&format!("{}: this release is there already, and verified", dir.display()));
    show(&verified.manifest, dir, job.global)
}

/// Prints the sizes; a limit that is exceeded is the failure.
fn show(manifest: &Manifest, dir: &Path, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let failed = manifest
        .variants
        .iter()
        .find_map(|entry| entry.gates.iter().find(|gate| !gate.passed).map(|gate| (entry, gate)));
    if output.json {
        let mut document = serde_json::to_value(manifest).map_err(|e| Failure::internal("release", &e))?;
        document["output"] = dir.display().to_string().into();
        output.document(&document)?;
    } else {
        let mut table =
            Table::new(&["<file", "bytes", "bits/weight", "perplexity", "KLD", "same top", "<limits"]);
        for entry in &manifest.variants {
            let limits = entry.gates.iter().map(|gate| {
                let actual = gate.actual.map_or_else(|| "not measured".to_owned(), |v| format!("{v:.4}"));
                let sign = if gate.passed { "ok" } else { "EXCEEDED" };
                format!("{} {actual} of {} {sign}", gate.name, gate.limit)
            });
            table.row([
                entry.file.clone(),
                units::count(entry.bytes),
                format!("{:.3}", entry.bits),
                entry.ppl.map_or_else(String::new, |ppl| format!("{ppl:.3}")),
                units::with_error(entry.kld, entry.kld_stderr),
                format!("{:.1} %", 100.0 * entry.top1),
                limits.collect::<Vec<_>>().join(", "),
            ]);
        }
        output.data(&table.render())?;
    }
    let Some((entry, gate)) = failed else { return Ok(()) };
    let actual = gate.actual.map_or_else(|| "not measured".to_owned(), |value| format!("{value:.6}"));
    let message = format!("{}: {} is {actual}, the limit is {}", entry.file, gate.name, gate.limit);
    let failure = Failure::new(Exit::Check, "release.gate_failed", message);
    Err(failure.at(&entry.file).limit(gate.limit).actual(actual).shown(output.json))
}
