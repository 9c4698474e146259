//! `gq eval`: how far a model's distribution is from a reference's.

use crate::adapters::Adapters;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::{Force, Out};
use crate::jobs::evaluate::{
    cache_dir, identity, on_text, on_windows, read_text, room, self_tokens, tokens_sha256,
};
use crate::progress::Progress;
use crate::signals::Work;
use crate::source::Found;
use crate::table::Table;
use crate::{expected, guard, signals, source, units};
use gq_eval::{
    CachedReference, EvalReport, Gate, LogitCache, Names, OutputsReader, ReferenceLogits, TextOptions,
    Windows, evaluate_outputs,
};
use std::path::{Path, PathBuf};

/// Measure perplexity and KL divergence of a model against a reference.
///
/// The reference is computed on the CPU, wherever MODEL runs.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq eval smol.gq --reference ./SmolLM2-135M --text wiki.test.txt --windows 40
  gq eval smol.gq --reference ./SmolLM2-135M --text wiki.test.txt --fail-above kld=0.05,ppl-ratio=1.02
  gq eval smol.gq --reference ./SmolLM2-135M --text wiki.test.txt --html report.html
  gq eval mine.gq --reference ./SmolLM2-135M --lora ./my-adapter --text wiki.test.txt
  gq eval ./SmolLM2-135M --reference outputs.safetensors --json")]
pub struct EvalArgs {
    /// A .gq file, a checkpoint directory or a GGUF, here or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The same, or a file of reference outputs (safetensors with input_ids and logits).
    #[arg(long, value_name = "REF")]
    reference: PathBuf,
    #[command(flatten)]
    loras: Adapters,
    /// Text to measure on; not needed against a file of reference outputs.
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Measure on what the reference writes when it is asked for prose, facts, code, mathematics and several
    /// languages under its chat template, which is told that it is 1 January 2025 whatever the day; 8 windows unless
    /// --windows says otherwise. Kept in --cache.
    #[arg(long = "self", conflicts_with = "text")]
    self_text: bool,
    /// Tokens of a window.
    #[arg(long, default_value_t = 512, value_name = "N", value_parser = units::parse_tokens)]
    ctx: usize,
    /// Use the first N windows of the text [default: all].
    #[arg(long, value_name = "N", value_parser = units::parse_positive)]
    windows: Option<usize>,
    /// Arithmetic of MODEL's activations [default: int8 for a .gq file, f32 for a checkpoint].
    #[arg(long, value_name = "KIND")]
    activations: Option<crate::options::kinds::Activations>,
    /// Storage of MODEL's keys and values: f16 halves their memory, q8 quarters it.
    #[arg(long, default_value = "f32", value_name = "KIND")]
    kv: crate::options::kinds::Kv,
    #[command(flatten)]
    device: crate::device::DeviceArgs,
    /// Write MODEL's logits as a file of reference outputs.
    #[arg(long, value_name = "FILE")]
    save_outputs: Option<PathBuf>,
    /// Write a page with the figures and their distributions, one self-contained HTML file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Directory where logits of references are kept for the next evaluation [default: gq/logits in the user's cache].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Most bytes to keep there, the least recently used go first; 0 keeps nothing.
    #[arg(long, value_name = "SIZE", default_value = "4GiB", value_parser = units::parse_bytes)]
    cache_limit: u64,
    /// Exit with 1 when a figure is above its limit: kld, kld-p99, ppl-ratio, …
    #[arg(long, value_name = "NAME=LIMIT,…", value_delimiter = ',')]
    fail_above: Vec<String>,
}

pub fn run(args: &EvalArgs, global: &Global) -> Result<(), Failure> {
    let outs: Vec<Out> = [&args.html, &args.save_outputs]
        .into_iter()
        .flatten()
        .map(|path| Out::file(path, args.force))
        .collect();
    let loras = args.loras.paths();
    let reads: Vec<&Path> =
        [&*args.model, &args.reference].into_iter().chain(loras).chain(args.text.as_deref()).collect();
    guard::check(&outs, &reads)?;
    let gates = args.fail_above.iter().map(|gate| gate.parse()).collect::<Result<Vec<Gate>, _>>()?;
    let model = source::find(&args.model, global)?;
    let reference = source::find(&args.reference, global)?;
    let saved = args.save_outputs.as_deref().map(guard::candidate);
    let useless = saved.iter().flat_map(|path| [path.clone(), gq_files::partial_path(path)]);
    let useless = useless.chain(args.save_outputs.as_deref().map(guard::candidate_mark));
    let outputs = [&args.save_outputs, &args.html].into_iter().flatten().cloned();
    let work = Work::begun_again(useless).making(outputs, "its figures were not shown");
    let work = match cache_dir(args.cache.as_deref(), args.cache_limit) {
        Some(cache) => work.with_cache(&cache),
        None => work,
    };
    let _work = signals::during(work);
    let _mark = args.save_outputs.as_deref().map(guard::take_candidate).transpose()?;
    let mut report = source::with_threads(global, || measure(args, &model, &reference, global))?
        .inspect_err(|_| saved.iter().for_each(|path| drop(gq_files::remove_begun(path))))?;
    report.names = names(args, model, reference);
    let output = global.output();
    // What was measured is shown whatever becomes of the files.
    let placed = saved.as_deref().zip(args.save_outputs.as_deref());
    let placed = placed.map(|(candidate, path)| guard::place(candidate, path, args.force.existing()));
    let written = args.html.as_ref().map(|path| {
        let page = gq_eval::html::render(std::slice::from_ref(&report));
        guard::write_whole(path, &page, args.force.existing())
    });
    let not_placed: Vec<Failure> = [placed, written].into_iter().flatten().filter_map(Result::err).collect();
    let failed: Vec<&Gate> = gates.iter().filter(|gate| !gate.passes(&report)).collect();
    if output.json {
        let mut document = serde_json::to_value(&report).map_err(|e| Failure::internal("report", &e))?;
        if let Some(fields) = document.as_object_mut() {
            fields.insert("failed".to_owned(), serde_json::json!(failed));
            if let Some(first) = not_placed.first() {
                fields.insert("error".to_owned(), serde_json::json!(first));
                fields.insert("errors".to_owned(), serde_json::json!(not_placed));
            }
        }
        output.document(&document)?;
    } else {
        output.data(&render(&report))?;
    }
    let failed = failed.into_iter().map(|gate| gate_failed(gate, &report));
    let failures: Vec<Failure> = not_placed.into_iter().chain(failed).collect();
    if !output.json {
        failures.iter().for_each(|failure| output.failure(failure));
    }
    failures.into_iter().next().map_or(Ok(()), |first| Err(first.shown(true)))
}

fn gate_failed(gate: &Gate, report: &EvalReport) -> Failure {
    let actual = gate.actual(report).map_or_else(|| "not measured".to_owned(), |v| format!("{v:.6}"));
    let message = format!("{} is {actual}, the limit is {}", gate.name, gate.limit);
    let failure = Failure::new(Exit::Check, "eval.gate_failed", message);
    failure.at(&gate.name).limit(gate.limit).actual(actual)
}

/// Names for the report: what was given, without directories.
fn names(args: &EvalArgs, model: Found, reference: Found) -> Names {
    let text = match args.self_text {
        true => Some("what the reference writes".to_owned()),
        false => {
            args.text.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
        }
    };
    Names { model: model.name, reference: reference.name, text: text.unwrap_or_default() }
}

fn render(report: &EvalReport) -> String {
    let mut table = Table::new(&["<figure", "value", "± std. error"]);
    let mut row = |name: &str, value: String, error: Option<String>| {
        table.row([name.to_owned(), value, error.unwrap_or_default()]);
    };
    let digits = |error: f64| Some(format!("{error:.5}"));
    if let Some(ppl) = report.ppl {
        row("perplexity, model", format!("{:.4}", ppl.model), digits(ppl.model_stderr));
        row("perplexity, reference", format!("{:.4}", ppl.reference), digits(ppl.reference_stderr));
    }
    if let Some(ratio) = report.ln_ratio {
        row("ln(ppl ratio)", format!("{:.5}", ratio.value), digits(ratio.stderr));
    }
    row("KL divergence, mean", format!("{:.6}", report.kld.mean), digits(report.kld.stderr));
    row("KL divergence, median", format!("{:.6}", report.kld.median), None);
    row("KL divergence, 99 %", format!("{:.5}", report.kld.p99), None);
    row("KL divergence, 99.9 %", format!("{:.5}", report.kld.p999), None);
    row("KL divergence, max", format!("{:.5}", report.kld.max), None);
    if let Some(floor) = report.noise_floor {
        row("KL divergence, noise floor", format!("{floor:.2e}"), None);
    }
    // Of the same unit and to as many digits as the value.
    let error = format!("{:.2} %", 100.0 * report.top1_stderr);
    row("same top token", format!("{:.2} %", 100.0 * report.top1), Some(error));
    row("RMS Δp", format!("{:.3} %", 100.0 * report.rms_delta_p), None);
    if let Some(logits) = report.logits {
        row("logit error, max", format!("{:.3e}", logits.max_abs_error), None);
        row("logit error, RMS", format!("{:.3e}", logits.rms_error), None);
    }
    row("file", format!("{} ({:.3} bits/weight)", units::bytes(report.bytes.file), report.bpw.file), None);
    row("body", format!("{} ({:.3} bits/weight)", units::bytes(report.bytes.body), report.bpw.body), None);
    let windows = if report.windows == 1 { "window" } else { "windows" };
    row("scored", format!("{} tokens in {} {windows}", report.tokens, report.windows), None);
    table.render()
}

/// Windows of a reference's own text.
const OWN_WINDOWS: usize = 8;

fn measure(
    args: &EvalArgs,
    model: &Found,
    reference: &Found,
    global: &Global,
) -> Result<EvalReport, Failure> {
    let reference_path = &reference.path;
    let mut loaded = source::model_how(&model.path, &Adapters::default(), args.activations, args.kv, global)?;
    // Saved under another name first: what was read may turn out to have changed.
    let saved = args.save_outputs.as_deref().map(guard::candidate);
    let options = TextOptions { save_outputs: saved.as_deref(), ..TextOptions::default() };
    let vocab = loaded.model.vocab_size();
    if is_outputs(reference_path)? {
        if !args.loras.is_empty() {
            let message = "--lora: adapters are merged into a checkpoint, not into reference outputs";
            return Err(Failure::new(Exit::Usage, "adapter.not_a_checkpoint", message).at("--lora"));
        }
        let reference = OutputsReader::open(reference_path)?;
        let rows = reference.input_ids().len() as u64;
        let positions = reference.input_ids().first().map_or(0, Vec::len);
        room(&options, reference.input_ids().len(), positions, vocab)?;
        args.device.place(&mut loaded, positions, global)?;
        let tokens = rows * positions as u64;
        let stage = expected::running(&loaded, rows, tokens, global)?;
        let mut progress = Progress::staged(global, "eval", vec![stage]);
        let mut step = |done: usize, _: usize| progress.set(done as u64, "");
        let report = evaluate_outputs(&loaded.model, &reference, loaded.sizes, options, &mut step);
        // What is wrong with a file that changed is no finding.
        reference.check_unchanged()?;
        let report = report?;
        progress.finish();
        loaded.check_unchanged()?;
        args.device.after(&loaded.model, global);
        let tokens_sha256 = tokens_sha256(reference.input_ids());
        return Ok(EvalReport { tokens_sha256, computed: loaded.computed(), ..report });
    }
    if args.text.is_none() && !args.self_text {
        let message = "--text or --self is needed unless --reference is a file of reference outputs";
        return Err(Failure::new(Exit::Usage, "eval.no_text", message)
            .at("--text")
            .limit("a file")
            .actual("none"));
    }
    let text = args.text.as_deref().map(read_text).transpose()?;
    let reference = source::model_with(reference_path, &args.loras, None, global)?;
    let cache =
        cache_dir(args.cache.as_deref(), args.cache_limit).map(|dir| LogitCache::new(&dir, args.cache_limit));
    let identity = cache
        .as_ref()
        .map(|cache| identity(reference_path, &args.loras, &reference, cache, global))
        .transpose()?;
    let cached = cache.as_ref().zip(identity.as_ref());
    let cached = cached.map(|(cache, identity)| CachedReference { cache, identity });
    let options = TextOptions { cache: cached, ..options };
    args.device.place(&mut loaded, args.ctx, global)?;
    let report = match &text {
        Some(text) => on_text(&loaded, &reference, text, args.ctx, args.windows, options, global)?,
        None => {
            let count = args.windows.unwrap_or(OWN_WINDOWS);
            room(&options, count, args.ctx, vocab)?;
            let kept = cache.as_ref().map(LogitCache::dir).zip(identity.as_ref());
            let tokens = self_tokens(&reference, args.ctx, count, kept, global)?;
            // Conversations begin with what they begin with: no window gets another BOS.
            let windows =
                Windows::new(&tokens, args.ctx, Some(count), None).map_err(gq_eval::EvalError::from)?;
            on_windows(&loaded, &reference, &windows, options, global)?
        }
    };
    if let (ReferenceLogits::Stored, Some(cache)) = (&report.reference_logits, &cache) {
        let kept = format!("{} of logits kept in {}", units::bytes(cache.bytes()), cache.dir().display());
        global.output().note(&kept);
    }
    args.device.after(&loaded.model, global);
    Ok(EvalReport { computed: loaded.computed(), ..report })
}

/// A file that is no `.gq` file is one of reference outputs.
fn is_outputs(path: &Path) -> Result<bool, Failure> {
    let found = std::fs::metadata(path).map_err(|e| Failure::io(path, &e))?;
    Ok(found.is_file() && path.extension().is_some_and(|extension| extension == "safetensors"))
}
