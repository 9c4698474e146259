//! `gq export`: a model in another format, for llama.cpp, Ollama or transformers.

use crate::export::cost::{self, CostArgs};
use crate::export::types::{self, Wanted, wanted};
use crate::export::{Weights, checkpoint, gguf, ranged, tokens};
use crate::failure::Failure;
use crate::global::Global;
use crate::guard::{self, Force, Out};
use crate::seen::{Destination, NoCheck};
use crate::signals::{self, Work};
use crate::table::Table;
use crate::{source, texts, units};
use gq_files::Existing;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Write a model as a GGUF for llama.cpp and Ollama, or as a bf16 checkpoint for transformers.
///
/// The finished file is measured against SRC, in KL divergence: what the export costs. That runs both models on a few
/// windows of text, each as it is stored, but a GGUF with coded types in f32: 4 bytes per weight. So it is done for
/// models of up to a billion weights that fit into free memory, for others only when --windows, --text or --reference
/// asks for it.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq export ./SmolLM2-135M --gguf -o smol-f16.gguf
  gq export smol.gq --ollama -o smol.gguf && ollama create smol -f smol.Modelfile
  gq export smol.gq --safetensors -o ./smol-bf16
  gq export smol.gq --gguf -o smol.gguf --reference ./SmolLM2-135M --text wiki.txt --windows 40
  gq export big.gq --gguf -o big.gguf --no-measure")]
#[command(group = clap::ArgGroup::new("format").required(true).multiple(true))]
pub struct ExportArgs {
    /// A .gq file, a checkpoint directory or a GGUF, here or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Write a GGUF.
    #[arg(long, group = "format")]
    gguf: bool,
    /// Write a checkpoint directory in bf16.
    #[arg(long, group = "format", conflicts_with = "gguf")]
    safetensors: bool,
    /// Type of the matrices in a GGUF: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K, or `nearest`:
    /// for each tensor the one nearest in size [default: nearest from a .gq file, else F16].
    #[arg(long = "type", value_name = "TYPE", value_parser = wanted, conflicts_with = "safetensors")]
    kind: Option<Wanted>,
    /// Most bytes of weights in one file of a checkpoint; more go to several files with an index.
    #[arg(long, value_name = "SIZE", default_value = "5GB", value_parser = units::parse_bytes, conflicts_with_all = ["gguf", "ollama"])]
    max_shard_size: u64,
    /// File or directory to write.
    #[arg(short, long, value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    no_check: NoCheck,
    /// `general.name` of a GGUF [default: what the model card, the configuration or the source's name says].
    #[arg(long, value_name = "TEXT", conflicts_with = "safetensors")]
    name: Option<String>,
    /// Write a GGUF, and OUT's name with .Modelfile: template, stop strings and parameters for `ollama create`.
    #[arg(long, group = "format", conflicts_with = "safetensors")]
    ollama: bool,
    #[command(flatten)]
    accepted: tokens::Accepted,
    #[command(flatten)]
    cost: CostArgs,
}

pub fn run(args: &ExportArgs, global: &Global) -> Result<(), Failure> {
    let began = Instant::now();
    let mut outs = vec![match args.safetensors {
        true => Out::new_folder(&args.output),
        false => Out::file(&args.output, args.force),
    }];
    outs.extend(args.ollama.then(|| Out::file(&gguf::modelfile_path(&args.output), args.force)));
    let measured = [args.cost.reference.as_deref(), args.cost.text.as_deref()].into_iter().flatten();
    guard::check(&outs, &[&*args.source].into_iter().chain(measured).collect::<Vec<_>>())?;
    let candidate = guard::candidate(&args.output);
    let partial = gq_files::partial_path(&candidate);
    let mark = guard::candidate_mark(&args.output);
    let work = Work::begun_again([candidate, partial, mark]).leaving(&args.source);
    let outputs =
        [args.output.clone()].into_iter().chain(args.ollama.then(|| gguf::modelfile_path(&args.output)));
    let _work = signals::during(work.making(outputs, missing(args)));
    let found = source::find(&args.source, global)?;
    let weights = Weights::open(&found.path, global)?;
    if !args.no_check.no_check {
        texts::warn_of_templates(&texts::broken_templates(&weights.texts), global.output());
    }
    let (existing, output) = (args.force.existing(), args.output.as_path());
    if args.safetensors {
        let asked = checkpoint::Asked {
            destination: Destination { path: output, existing: Existing::Kept },
            max_shard_bytes: args.max_shard_size,
            no_check: args.no_check,
            cost: &args.cost,
        };
        let made = source::with_threads(global, || checkpoint::export(&asked, found, &weights, global))??;
        return show_checkpoint(output, &made, began, global);
    }
    let name = found.name.as_str();
    let name = name.strip_suffix(".gq").or(name.strip_suffix(".gguf")).unwrap_or(name);
    let mut options = types::options(args.kind, &weights, name);
    options.name = args.name.clone();
    options.threads = global.threads();
    options.allow_other_tokens = args.accepted.allow_other_tokens;
    let asked = gguf::Asked {
        destination: Destination { path: output, existing },
        options,
        accepted: args.accepted,
        ollama: args.ollama,
        no_check: args.no_check,
        cost: &args.cost,
    };
    let made = source::with_threads(global, || gguf::export(&asked, found, &weights, global))??;
    show_gguf(output, &made, began, global)
}

/// What is not done when the output has its name.
fn missing(args: &ExportArgs) -> String {
    let reference = args.cost.reference.as_deref().unwrap_or(&args.source);
    match args.cost.is_left_out() {
        true => "only its summary was not shown".to_owned(),
        false => format!(
            "only what it costs was not measured: `gq eval {} --reference {} --text FILE` does that",
            args.output.display(),
            reference.display()
        ),
    }
}

fn show_checkpoint(
    path: &Path,
    made: &checkpoint::Exported,
    began: Instant,
    global: &Global,
) -> Result<(), Failure> {
    let (seconds, output, cost) = (began.elapsed().as_secs_f64(), global.output(), &made.cost);
    if output.json {
        return output.document(&serde_json::json!({
            "output": path.display().to_string(), "weight_bytes": made.weight_bytes, "seconds": seconds,
            "cost": cost.as_ref().ok(), "not_measured": cost.as_ref().err(), "seen": made.seen,
        }));
    }
    output.data(&format!(
        "{}: {} in {}\n{}{}",
        path.display(),
        units::bytes(made.weight_bytes),
        units::seconds(seconds),
        cost::line(cost),
        made.seen.line(),
    ))
}

fn show_gguf(path: &Path, made: &gguf::Exported, began: Instant, global: &Global) -> Result<(), Failure> {
    let (seconds, written, cost) = (began.elapsed().as_secs_f64(), &made.written, &made.cost);
    let modelfile = made.modelfile.as_deref();
    let mut kinds: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    for tensor in written.plan.tensors() {
        let entry = kinds.entry(tensor.new.kind.name()).or_default();
        entry.0 += 1;
        entry.1 += tensor.new.shape.iter().map(|&n| n as u64).product::<u64>();
        entry.2 += tensor.new.bytes().unwrap_or(0);
    }
    let output = global.output();
    if output.json {
        let kinds = kinds.iter().map(|(kind, (tensors, weights, bytes))| {
            serde_json::json!({"type": kind, "tensors": tensors, "weights": weights, "bytes": bytes})
        });
        return output.document(&serde_json::json!({
            "output": path.display().to_string(), "file_bytes": written.bytes, "seconds": seconds,
            "types": kinds.collect::<Vec<_>>(), "modelfile": modelfile.map(|path| path.display().to_string()),
            "widened": ranged::json(&written.widened), "normalizer_not_carried": made.normalizer_not_carried,
            "cost": cost.as_ref().ok(), "not_measured": cost.as_ref().err(), "seen": made.seen,
        }));
    }
    let mut table = Table::new(&["<type", "tensors", "weights", "bytes"]);
    for (kind, (tensors, weights, bytes)) in kinds {
        table.row([kind.to_owned(), units::count(tensors), units::count(weights), units::count(bytes)]);
    }
    let mut text = table.render();
    text += &ranged::lines(&written.widened);
    let (bytes, seconds) = (units::bytes(written.bytes), units::seconds(seconds));
    text += &format!("{}: {bytes} in {seconds}\n", path.display());
    if let Some(path) = modelfile {
        text += &format!("{}\n", path.display());
    }
    output.data(&(text + &cost::line(cost) + &made.seen.line()))
}
