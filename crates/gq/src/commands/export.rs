//! `gq export`: a model in another format, for llama.cpp, Ollama or transformers.

use crate::export::cost::{self, CostArgs};
use crate::export::ranged::{self, Written};
use crate::export::{Weights, modelfile, rate, safetensors, tokens};
use crate::failure::Failure;
use crate::global::Global;
use crate::guard::{self, Force, Out};
use crate::progress::{Progress, Stage};
use crate::seen::{Checker, NoCheck, Seen};
use crate::signals::{self, Work};
use crate::source::{self, Found};
use crate::table::Table;
use crate::{texts, units};
use gq_checkpoint::gguf::{GgmlType, is_encodable};
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource, ExportTensor};
use gq_eval::EvalReport;
use gq_files::Existing;
use gq_text::{ModelTexts, Tokenizer};
use std::cell::RefCell;
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

/// `--type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nearest,
    Type(GgmlType),
}

fn wanted(name: &str) -> Result<Wanted, String> {
    if name.eq_ignore_ascii_case("nearest") {
        return Ok(Wanted::Nearest);
    }
    let writable =
        || GgmlType::all().filter(|kind| is_encodable(*kind)).map(GgmlType::name).collect::<Vec<_>>();
    let found = GgmlType::from_name(name).filter(|kind| is_encodable(*kind));
    found.map(Wanted::Type).ok_or_else(|| {
        let expected = format!("expected nearest, {}", writable().join(", "));
        match of_mix(name).filter(|kind| is_encodable(*kind)) {
            Some(kind) => format!(
                "it is one of llama-quantize's mixes of types, of which {} takes the most; {expected}",
                kind.name()
            ),
            None => expected,
        }
    })
}

/// The type that most of a mix of llama-quantize is in: `Q4_K` of `Q4_K_M`.
fn of_mix(name: &str) -> Option<GgmlType> {
    let name = name.to_ascii_uppercase();
    let stem = ["_S", "_M", "_L", "_XL"].into_iter().find_map(|end| name.strip_suffix(end))?;
    GgmlType::from_name(stem.strip_prefix("UD-").unwrap_or(stem))
}

pub fn run(args: &ExportArgs, global: &Global) -> Result<(), Failure> {
    let began = Instant::now();
    let mut outs = vec![match args.safetensors {
        true => Out::new_folder(&args.output),
        false => Out::file(&args.output, args.force),
    }];
    outs.extend(args.ollama.then(|| Out::file(&modelfile_path(&args.output), args.force)));
    let measured = [args.cost.reference.as_deref(), args.cost.text.as_deref()].into_iter().flatten();
    guard::check(&outs, &[&*args.source].into_iter().chain(measured).collect::<Vec<_>>())?;
    let candidate = guard::candidate(&args.output);
    let partial = gq_files::partial_path(&candidate);
    let mark = guard::candidate_mark(&args.output);
    let work = Work::begun_again([candidate, partial, mark]).leaving(&args.source);
    let outputs = [args.output.clone()].into_iter().chain(args.ollama.then(|| modelfile_path(&args.output)));
    let _work = signals::during(work.making(outputs, missing(args)));
    let found = source::find(&args.source, global)?;
    let weights = Weights::open(&found.path, global)?;
    if !args.no_check.no_check {
        texts::warn_of_templates(&texts::broken_templates(&weights.texts), global.output());
    }
    if args.safetensors {
        return source::with_threads(global, || checkpoint(args, found, &weights, (began, global)))?;
    }
    source::with_threads(global, || gguf(args, found, &weights, (began, global)))?
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

/// Where the Modelfile of a GGUF goes.
fn modelfile_path(output: &Path) -> PathBuf {
    output.with_extension("Modelfile")
}

/// What is to be done, said before it begins.
fn begin(
    weights: &Weights,
    (writing, cost): (Stage, &cost::Plan),
    global: &Global,
) -> Result<Progress, Failure> {
    let stages = [writing].into_iter().chain(cost.stage(weights, global)?).collect();
    Ok(Progress::staged(global, "export", stages))
}

/// Rows and columns of a matrix or of matrices one below the other; a vector is a row.
fn rows_of(shape: &[usize]) -> (usize, usize) {
    (shape.iter().rev().skip(1).product(), shape.last().copied().unwrap_or(1))
}

fn checkpoint(
    args: &ExportArgs,
    found: Found,
    weights: &Weights,
    (began, global): (Instant, &Global),
) -> Result<(), Failure> {
    tokens::own(weights)?;
    let total = weights.tensors.iter().map(|t| 2 * t.shape.iter().product::<usize>() as u64).sum();
    let plan = args.cost.plan(found, weights, total, global)?;
    guard::space(&args.output, total)?;
    let kind = GgmlType::BF16;
    let targets =
        weights.tensors.iter().map(|t| rate::Target { name: &t.name, shape: rows_of(&t.shape), kind });
    let writing = rate::writing(weights, &targets.collect::<Vec<_>>(), total)?;
    let mut progress = begin(weights, (writing, &plan), global)?;
    let checker = Checker::new(args.no_check, global);
    let named = (args.output.as_path(), Existing::Kept);
    let bytes = checker.through(named, &|| weights.check_unchanged(), |path| {
        safetensors::write(weights, path, args.max_shard_size, &mut |done| progress.set(done, ""))
    })?;
    let cost = cost::measure(plan, &args.output, &mut progress, global);
    progress.finish();
    let seconds = began.elapsed().as_secs_f64();
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "output": args.output.display().to_string(), "weight_bytes": bytes, "seconds": seconds,
            "cost": cost.as_ref().ok(), "not_measured": cost.as_ref().err(), "seen": checker.seen(),
        }));
    }
    output.data(&format!(
        "{}: {} in {}\n{}{}",
        args.output.display(),
        units::bytes(bytes),
        units::seconds(seconds),
        cost::line(&cost),
        checker.seen().line(),
    ))
}

fn gguf(
    args: &ExportArgs,
    found: Found,
    weights: &Weights,
    (began, global): (Instant, &Global),
) -> Result<(), Failure> {
    let default = if weights.is_container() { Wanted::Nearest } else { Wanted::Type(GgmlType::F16) };
    let wanted = args.kind.unwrap_or(default);
    let folder = found.name.as_str();
    let folder = folder.strip_suffix(".gq").or(folder.strip_suffix(".gguf")).unwrap_or(folder);
    let mut options = ExportOptions::new(GgmlType::F16, folder);
    options.name = args.name.clone();
    options.threads = global.threads();
    options.allow_other_tokens = args.accepted.allow_other_tokens;
    match wanted {
        Wanted::Type(kind) => options.kind = kind,
        Wanted::Nearest => {
            let matrices = weights.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
            let kinds =
                matrices.map(|t| (t.name.clone(), nearest(t.bits, t.shape.last().copied().unwrap_or(1))));
            options.overrides = kinds.collect();
            options.kind = most(weights, &options.overrides).unwrap_or(GgmlType::F16);
        }
    }
    if args.kind.is_none() {
        // As they are, without loss.
        let coded = weights.tensors.iter().filter(|tensor| tensor.mxfp4);
        options.overrides.extend(coded.map(|tensor| (tensor.name.clone(), GgmlType::MXFP4)));
    }
    let tensors: Vec<_> = weights.tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: &weights.spec, texts: &weights.texts, tensors: &tensors };
    let own = tokens::own(weights)?;
    let plan = ExportPlan::new(source, &options)?;
    tokens::compare(own.as_ref(), weights, &plan, args.accepted, global.output())?;
    let coded = plan.tensors().iter().any(|tensor| tensor.new.kind.is_quantized());
    let count = |tensor: &ExportTensor| tensor.new.shape.iter().map(|&n| n as u64).product::<u64>();
    let held = if coded { 4 * plan.tensors().iter().map(count).sum::<u64>() } else { plan.file_bytes() };
    let measured = args.cost.plan(found, weights, held, global)?;
    guard::space(&args.output, plan.file_bytes())?;
    let made = args.ollama.then(|| ollama(&args.output, weights)).transpose()?;
    let targets = plan.tensors().iter().filter_map(|tensor| {
        let (shape, kind) = (rows_of(&tensor.new.shape), tensor.new.kind);
        Some(rate::Target { name: tensor.source.as_deref()?, shape, kind })
    });
    let writing = rate::writing(weights, &targets.collect::<Vec<_>>(), plan.file_bytes())?;
    let progress = RefCell::new(begin(weights, (writing, &measured), global)?);
    let checker = Checker::new(args.no_check, global);
    let named = (args.output.as_path(), args.force.existing());
    let written = checker.through(named, &|| weights.check_unchanged(), |path| {
        ranged::write(source, options, path, weights, &|done| progress.borrow_mut().set(done, ""))
    })?;
    let mut progress = progress.into_inner();
    if let Some((path, modelfile)) = &made {
        guard::write_whole(path, &modelfile.text, args.force.existing())?;
        modelfile.warnings.iter().for_each(|warning| global.output().warn(warning));
    }
    let cost = cost::measure(measured, &args.output, &mut progress, global);
    progress.finish();
    let seconds = began.elapsed().as_secs_f64();
    let modelfile = made.as_ref().map(|(path, _)| path);
    let not_carried = own.as_ref().filter(|own| own.composes()).map(|_| "NFC");
    show(args, (&written, not_carried), modelfile, (seconds, &cost, &checker.seen()), global)
}

fn show(
    args: &ExportArgs,
    (written, not_carried): (&Written, Option<&str>),
    modelfile: Option<&PathBuf>,
    (seconds, cost, seen): (f64, &Result<EvalReport, String>, &Seen),
    global: &Global,
) -> Result<(), Failure> {
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
            "output": args.output.display().to_string(), "file_bytes": written.bytes, "seconds": seconds,
            "types": kinds.collect::<Vec<_>>(), "modelfile": modelfile.map(|path| path.display().to_string()),
            "widened": ranged::json(&written.widened), "normalizer_not_carried": not_carried,
            "cost": cost.as_ref().ok(), "not_measured": cost.as_ref().err(), "seen": seen,
        }));
    }
    let mut table = Table::new(&["<type", "tensors", "weights", "bytes"]);
    for (kind, (tensors, weights, bytes)) in kinds {
        table.row([kind.to_owned(), units::count(tensors), units::count(weights), units::count(bytes)]);
    }
    let mut text = table.render();
    text += &ranged::lines(&written.widened);
    let (bytes, seconds) = (units::bytes(written.bytes), units::seconds(seconds));
    text += &format!("{}: {bytes} in {seconds}\n", args.output.display());
    if let Some(path) = modelfile {
        text += &format!("{}\n", path.display());
    }
    output.data(&(text + &cost::line(cost) + &seen.line()))
}

/// The standard type nearest in size; of equal ones that of larger blocks.
fn nearest(bits: f64, cols: usize) -> GgmlType {
    let fits = |kind: &GgmlType| is_encodable(*kind) && cols.is_multiple_of(kind.block_len());
    let distance = |kind: &GgmlType| (kind.bits() - bits).abs();
    let mut best = GgmlType::F16;
    for kind in GgmlType::all().filter(fits) {
        let (new, old) = (distance(&kind), distance(&best));
        if new < old || new == old && kind.block_len() > best.block_len() {
            best = kind;
        }
    }
    best
}

/// The type of most weights.
fn most(weights: &Weights, kinds: &BTreeMap<String, GgmlType>) -> Option<GgmlType> {
    let mut sums: BTreeMap<u32, usize> = BTreeMap::new();
    for tensor in &weights.tensors {
        if let Some(kind) = kinds.get(&tensor.name) {
            *sums.entry(kind.code()).or_default() += tensor.shape.iter().product::<usize>();
        }
    }
    sums.into_iter().max_by_key(|&(_, weights)| weights).and_then(|(code, _)| GgmlType::from_code(code))
}

/// The Modelfile next to `output`.
fn ollama(output: &Path, weights: &Weights) -> Result<(PathBuf, modelfile::Modelfile), Failure> {
    let texts = &weights.texts;
    let texts = ModelTexts {
        config: Some(texts.config.clone()),
        tokenizer: texts.tokenizer.clone(),
        tokenizer_config: texts.tokenizer_config.clone(),
        chat_template: texts.chat_template.clone(),
        generation_config: texts.generation_config.clone(),
        special_tokens_map: texts.special_tokens_map.clone(),
    };
    let tokenizer = texts.tokenizer.is_some().then(|| Tokenizer::new(&texts, &weights.spec)).transpose()?;
    let file = output.file_name().unwrap_or_default().to_string_lossy();
    let made = modelfile::modelfile(&file, &texts, tokenizer.as_ref());
    Ok((modelfile_path(output), made))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_lead_to_their_types() {
        for (mix, kind) in [("Q4_K_M", "Q4_K"), ("q5_k_s", "Q5_K"), ("UD-Q4_K_XL", "Q4_K")] {
            let told = wanted(mix).unwrap_err();
            assert!(told.contains(&format!("of which {kind} takes the most")), "{mix}: {told}");
        }
        assert!(!wanted("nonsense").unwrap_err().contains("llama-quantize"));
        assert!(wanted("q4_k").is_ok());
    }

    #[test]
    fn nearest_types() {
        assert_eq!(nearest(4.02, 512), GgmlType::Q4_K);
        assert_eq!(nearest(4.02, 576), GgmlType::Q4_0);
        assert_eq!(nearest(6.5, 256), GgmlType::Q6_K);
        assert_eq!(nearest(8.03, 576), GgmlType::Q8_0);
        assert_eq!(nearest(16.0, 576), GgmlType::F16);
        assert_eq!(nearest(16.0, 7), GgmlType::F16);
    }
}
