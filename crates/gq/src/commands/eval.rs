//! `gq eval`: how far a model's distribution is from a reference's.

use crate::adapters::Adapters;
use crate::cli::Global;
use crate::failure::{Exit, Failure};
use crate::guard::{self, Force, Out};
use crate::progress::{Progress, Stage, Unit};
use crate::signals::{self, Work};
use crate::source::{self, Found, Loaded};
use crate::table::Table;
use crate::{expected, seen, units};
use gq_checkpoint::{FileKind, SourceFile};
use gq_eval::{
    CachedReference, EvalReport, Gate, Identity, LogitCache, Names, OutputsReader, OutputsWriter,
    ReferenceLogits, TextOptions, Windows, evaluate_outputs, evaluate_text,
};
use gq_model::{SpecialText, Tokenizer};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Windows of a reference's own text.
const OWN_WINDOWS: usize = 8;

/// Measure perplexity and KL divergence of a model against a reference.
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
    own_text: bool,
    /// Tokens of a window.
    #[arg(long, default_value_t = 512, value_name = "N")]
    ctx: usize,
    /// Use the first N windows of the text [default: all].
    #[arg(long, value_name = "N", value_parser = units::parse_positive)]
    windows: Option<usize>,
    /// Arithmetic of MODEL's activations [default: int8 for a .gq file, f32 for a checkpoint].
    #[arg(long, value_name = "KIND")]
    activations: Option<super::Activations>,
    /// Storage of MODEL's keys and values: f16 halves their memory, q8 quarters it.
    #[arg(long, default_value = "f32", value_name = "KIND")]
    kv: super::Kv,
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
    let saved = args.save_outputs.as_deref().map(seen::candidate);
    let useless = saved.iter().flat_map(|path| [path.clone(), gq_files::partial_path(path)]);
    let outputs = [&args.save_outputs, &args.html].into_iter().flatten().cloned();
    let work = Work::begun_again(useless).making(outputs, "its figures were not shown");
    let work = match cache_dir(args.cache.as_deref(), args.cache_limit) {
        Some(cache) => work.with_cache(&cache),
        None => work,
    };
    let _work = signals::during(work);
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

fn measure(
    args: &EvalArgs,
    model: &Found,
    reference: &Found,
    global: &Global,
) -> Result<EvalReport, Failure> {
    let reference_path = &reference.path;
    let loaded = source::model_how(&model.path, &Adapters::default(), (args.activations, args.kv), global)?;
    // Saved under another name first: what was read may turn out to have changed.
    let saved = args.save_outputs.as_deref().map(seen::candidate);
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
        room(&options, (reference.input_ids().len(), positions), vocab)?;
        let mut progress = Progress::new(global.progress, global.output(), "eval", Unit::Items("rows"), rows);
        let mut step = |done: usize, _: usize| progress.set(done as u64, "");
        let report = evaluate_outputs(&loaded.model, &reference, loaded.sizes, options, &mut step);
        // What is wrong with a file that changed is no finding.
        reference.check_unchanged()?;
        let report = report?;
        progress.finish();
        loaded.check_unchanged()?;
        let tokens_sha256 = tokens_sha256(reference.input_ids());
        return Ok(EvalReport { tokens_sha256, computed: loaded.computed(), ..report });
    }
    if args.text.is_none() && !args.own_text {
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
    let report = match &text {
        Some(text) => on_text(&loaded, &reference, text, (args.ctx, args.windows), options, global)?,
        None => {
            let count = args.windows.unwrap_or(OWN_WINDOWS);
            room(&options, (count, args.ctx), vocab)?;
            let kept = cache.as_ref().map(LogitCache::dir).zip(identity.as_ref());
            let tokens = own_tokens(&reference, (args.ctx, count), kept, global)?;
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
    Ok(EvalReport { computed: loaded.computed(), ..report })
}

/// Refuses outputs that do not fit on the disk, before anything is run for them.
fn room(options: &TextOptions<'_>, (rows, positions): (usize, usize), vocab: usize) -> Result<(), Failure> {
    let Some(path) = options.save_outputs else { return Ok(()) };
    guard::space(path, OutputsWriter::file_bytes(rows, positions, vocab))
}

/// A text to measure on.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = source::text_bytes(path)?;
    let place = path.display();
    String::from_utf8(bytes).map_err(|e| {
        Failure::new(Exit::Input, "eval.text_not_utf8", format!("{place}: {}", e.utf8_error())).at(&place)
    })
}

/// Names for the report: what was given, without directories.
fn names(args: &EvalArgs, model: Found, reference: Found) -> Names {
    let text = match args.own_text {
        true => Some("what the reference writes".to_owned()),
        false => {
            args.text.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
        }
    };
    Names { model: model.name, reference: reference.name, text: text.unwrap_or_default() }
}

/// Where logits are kept; nowhere when nothing may be kept or the user has no cache.
pub fn cache_dir(chosen: Option<&Path>, limit: u64) -> Option<PathBuf> {
    let dir = chosen.map(Path::to_owned).or_else(|| Some(super::user_cache()?.join("logits")));
    dir.filter(|_| limit > 0)
}

/// What stands for the reference in the cache: digests of its files, its arithmetic, this program.
pub fn identity(
    path: &Path,
    loras: &Adapters,
    reference: &Loaded,
    cache: &LogitCache,
    global: &Global,
) -> Result<Identity, Failure> {
    let files = match source::is_checkpoint(path)? {
        true => {
            let checkpoint = source::checkpoint(path, global)?;
            let decisive = |file: &&SourceFile| file.kind == FileKind::Weights || file.name == "config.json";
            checkpoint.files().iter().filter(decisive).map(|file| file.path.clone()).collect()
        }
        false => vec![path.to_owned()],
    };
    let mut progress = Progress::new(global.progress, global.output(), "digest", Unit::Bytes, 0);
    let mut step = |done, total| {
        progress.set_total(total);
        progress.set(done, "");
    };
    let mut build = concat!("gq ", env!("CARGO_PKG_VERSION")).to_owned();
    if !loras.is_empty() {
        for adapter in source::checkpoint_with(path, loras, global)?.adapters() {
            let digests: Vec<&str> = adapter.files().iter().map(|file| file.sha256.as_str()).collect();
            build += &format!(" + {} x {}", adapter.weight(), digests.join(" "));
        }
    }
    let identity = Identity::of_files(&files, reference.model.options(), &build, cache.dir(), &mut step);
    progress.finish();
    identity.map_err(|e| Failure::io(path, &e))
}

/// What the reference writes, `count` windows of it; taken from the cache when it wrote it before.
fn own_tokens(
    reference: &Loaded,
    (ctx, count): (usize, usize),
    kept: Option<(&Path, &Identity)>,
    global: &Global,
) -> Result<Vec<u32>, Failure> {
    let wanted = ctx.saturating_mul(count);
    let texts = reference.model.texts();
    let said = [&texts.chat_template, &texts.tokenizer, &texts.tokenizer_config];
    let file = kept.map(|(dir, identity)| {
        let key = Sha256::digest(format!("side by side {identity:?} {ctx} {count} {said:?}"));
        let name: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        dir.join(format!("self-{name}.json"))
    });
    let written = file.as_ref().and_then(|file| serde_json::from_slice(&std::fs::read(file).ok()?).ok());
    if let Some(tokens) = written {
        return Ok(tokens);
    }
    let model = &reference.model;
    let tokenizer = Tokenizer::new(model.texts(), model.spec())?;
    let mut progress = super::calibrate::writing(global);
    let mut seen = |done: u64, of: u64| progress.stage("", (done, of), "own text");
    let tokens = super::calibrate::own_tokens(model, &tokenizer, (wanted, ctx), None, global, &mut seen)?;
    progress.finish();
    if let Some(file) = file {
        let kept = serde_json::to_vec(&tokens).map_err(|e| Failure::internal("tokens", &e))?;
        if let Err(error) = gq_files::write_whole(&file, &kept) {
            global.output().note(&format!("{}: {error}; the text is not kept", file.display()));
        }
    }
    Ok(tokens)
}

/// Compares two models on text.
pub fn on_text(
    model: &Loaded,
    reference: &Loaded,
    text: &str,
    (ctx, count): (usize, Option<usize>),
    options: TextOptions<'_>,
    global: &Global,
) -> Result<EvalReport, Failure> {
    let tokenizer = Tokenizer::new(reference.model.texts(), reference.model.spec())?;
    let tokens = tokenizer.encode(text, SpecialText::Plain)?;
    let windows = Windows::new(&tokens, ctx, count, tokenizer.bos()).map_err(gq_eval::EvalError::from)?;
    on_windows(model, reference, &windows, options, global)
}

fn on_windows(
    model: &Loaded,
    reference: &Loaded,
    windows: &Windows,
    options: TextOptions<'_>,
    global: &Global,
) -> Result<EvalReport, Failure> {
    let (total, ctx) = (windows.windows().len(), windows.windows().first().map_or(0, Vec::len));
    room(&options, (total, ctx), model.model.vocab_size())?;
    let seconds = expected::evaluation(model, reference, (ctx, total), global)?;
    let stage = Stage { name: "", unit: Unit::Items("windows"), total: total as u64, seconds: Some(seconds) };
    let mut progress = Progress::staged(global, "eval", vec![stage]);
    let mut step = |done: usize, _: usize| progress.set(done as u64, "");
    let report = evaluate_text(&model.model, &reference.model, windows, model.sizes, options, &mut step)?;
    progress.finish();
    reference.check_unchanged()?;
    model.check_unchanged()?;
    Ok(EvalReport { tokens_sha256: tokens_sha256(windows.windows()), ..report })
}

fn tokens_sha256(rows: &[Vec<u32>]) -> String {
    let mut hash = Sha256::new();
    rows.iter().flatten().for_each(|token| hash.update(token.to_le_bytes()));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that is no `.gq` file is one of reference outputs.
fn is_outputs(path: &Path) -> Result<bool, Failure> {
    let found = std::fs::metadata(path).map_err(|e| Failure::io(path, &e))?;
    Ok(found.is_file() && path.extension().is_some_and(|extension| extension == "safetensors"))
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
