//! `gq release`: several sizes of a model, measured and described, in one folder.

use crate::adapters::{Adapters, Lora};
use crate::cli::Global;
use crate::commands::recipe::calibration;
use crate::commands::{convert, eval, outcome};
use crate::failure::{Exit, Failure};
use crate::guard::{self, Out};
use crate::progress::{Progress, Stage, Unit, expectation};
use crate::release::manifest::{Entry, Manifest, Names, Original, source_files, tensors};
use crate::release::recipe::{Recipe, Variant};
use crate::release::verify::{is_release, report_of, verify};
use crate::release::work::{Work, differs};
use crate::release::{CARD, MANIFEST, PAGE, SUMS, card, sums};
use crate::seen::{Checker, NoCheck};
use crate::signals::{self, Work as Left};
use crate::source::{self, Found};
use crate::table::Table;
use crate::{expected, texts, units};
use gq_checkpoint::{Checkpoint, FileKind};
use gq_container::Container;
use gq_convert::{Check, Event, ExecuteOptions, Measurements, Report, Resources};
use gq_eval::html::{TensorErrors, render_with_tensors};
use gq_eval::{CachedReference, EvalReport, LogitCache, ReferenceLogits, TextOptions, checkpoint_sizes};
use gq_files::Existing;
use serde_json::{Value, json};
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

/// Everything that is known before anything is made.
struct Job<'a> {
    args: &'a ReleaseArgs,
    global: &'a Global,
    recipe: Recipe,
    found: Found,
    loras: Adapters,
    checkpoint: Checkpoint,
    measurements: Option<Measurements>,
    name: String,
    base_model: String,
    license: String,
    text: String,
    inputs: Value,
}

pub fn run(args: &ReleaseArgs, global: &Global) -> Result<(), Failure> {
    let dir = &args.output;
    guard::check(&[Out::folder(dir)], &[&args.source, &args.recipe])?;
    refuse_full(args)?;
    let left = signals::during(Left::that_continues([dir.join(crate::release::work::NAME)]));
    let job = prepare(args, global)?;
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
    if !dir.exists() || args.restart || Work::is_begun(dir) || is_release(dir) {
        return Ok(());
    }
    let Some(name) = sums::list(dir)?.into_iter().next() else { return Ok(()) };
    let message = format!("{}: not empty, and no release: it holds {name}", dir.display());
    let failure = Failure::new(Exit::Usage, "release.not_empty", message);
    Err(failure.at(dir.display()).limit("an empty folder").actual(name))
}

fn prepare<'a>(args: &'a ReleaseArgs, global: &'a Global) -> Result<Job<'a>, Failure> {
    let mut recipe = Recipe::read(&args.recipe)?;
    let found = source::find(&args.source, global)?;
    let loras = recipe.lora.iter().map(|lora| Lora::new(lora.path.clone(), lora.weight)).collect();
    let loras = Adapters::new(loras, recipe.tokenizer_from.clone());
    let checkpoint = source::checkpoint_with(&found.path, &loras, global)?;
    source::try_checkpoints_tokenizer(&checkpoint, global.output())?;
    source::refuse_quantized(&checkpoint, args.allow_requantize)?;
    Checker::new(args.no_check, global).within(args.max_memory).texts(&checkpoint)?;
    // A release is checked whole, its chat templates with names too.
    let broken = texts::broken_templates(&checkpoint.texts()?);
    if !broken.is_empty() {
        let place = checkpoint.dir().display().to_string();
        texts::or_refuse(Err(broken), Exit::Input, "text.broken", &place)?;
    }
    let measurements = recipe.measurements.as_deref().map(Measurements::open).transpose()?;
    if let Some(measurements) = &measurements {
        measurements.check_source(&gq_convert::source_files(&checkpoint))?;
        recipe.variants.iter_mut().for_each(|v| v.policy.calibration = Some(calibration(measurements)));
    }
    let texts = checkpoint.texts()?;
    let lacking = |field: &str, why: &str| {
        let message = format!("{}: {field} is missing, and {why}", args.recipe.display());
        Failure::new(Exit::Input, "recipe", message).at(field)
    };
    let base_model =
        recipe.base_model.clone().or_else(|| found.origin.as_ref().map(|origin| origin.repo.clone()));
    let base_model = base_model.ok_or_else(|| lacking("base_model", "the source is not a repository"))?;
    let license = recipe.card.license.clone().or_else(|| texts.licence_name.clone());
    let license =
        license.ok_or_else(|| lacking("card.license", "the source's README.md does not name one"))?;
    let name = recipe.name.clone().unwrap_or_else(|| found.name.clone());
    let path = &recipe.evaluation.text;
    let text = source::text_bytes(path)?;
    let text_sha256 = sums::sha256_of(&text);
    let text = String::from_utf8(text).map_err(|e| {
        let message = format!("{}: {}", path.display(), e.utf8_error());
        Failure::new(Exit::Input, "eval.text_not_utf8", message).at(path.display())
    })?;
    let total = checkpoint.files().iter().map(|file| file.bytes).sum();
    let mut progress = Progress::new(global.progress, global.output(), "digest", Unit::Bytes, total);
    let mut done = 0;
    let files = source_files(&checkpoint, |bytes| {
        done += bytes;
        progress.set(done, "");
    })?;
    progress.finish();
    let adapters = checkpoint.adapters().iter().map(|adapter| {
        let files = adapter.files().iter();
        let files = files.map(|f| json!({ "name": f.name, "bytes": f.bytes, "sha256": f.sha256 }));
        json!({ "name": adapter.name(), "weight": adapter.weight(), "files": files.collect::<Vec<_>>() })
    });
    let texts_from = checkpoint.taken_texts().map(|taken| {
        let files = taken.files.iter();
        let files = files.map(|f| json!({ "name": f.name, "bytes": f.bytes, "sha256": f.sha256 }));
        json!({ "from": taken.from, "files": files.collect::<Vec<_>>() })
    });
    let variants = recipe
        .variants
        .iter()
        .map(|variant| json!({ "name": variant.name, "policy": variant.policy, "gates": variant.gates }));
    let inputs = json!({
        "tool": concat!("gq ", env!("CARGO_PKG_VERSION")),
        "isa": global.isa()?.name(),
        "name": name,
        "base_model": base_model,
        "repo": recipe.repo,
        "license": license,
        "card": recipe.card,
        "origin": found.origin.as_ref().map(|o| json!({ "repo": o.repo, "revision": o.revision })),
        "source": files,
        "adapters": adapters.collect::<Vec<_>>(),
        "texts": texts_from,
        "text": {"name": file_name(path), "bytes": text.len(), "sha256": text_sha256},
        "ctx": recipe.evaluation.ctx,
        "windows": recipe.evaluation.windows,
        "variants": variants.collect::<Vec<_>>(),
    });
    // As it will be read from a file: numbers may change their form.
    let inputs = crate::release::verify::round_trip(&inputs)?;
    Ok(Job {
        args,
        global,
        recipe,
        found,
        loras,
        checkpoint,
        measurements,
        name,
        base_model,
        license,
        text,
        inputs,
    })
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
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

/// Converts the sizes that are not done yet, in one pass over the source or as few as the memory allows.
fn convert_missing(job: &Job<'_>, dir: &Path, work: &mut Work) -> Result<(), Failure> {
    let Job { args, global, recipe, found, checkpoint, measurements, .. } = job;
    let output = global.output();
    let resources = Resources { threads: global.threads(), max_memory: args.max_memory };
    let (mut plans, mut paths) = (Vec::new(), Vec::new());
    let named = recipe.variants.iter().map(|variant| (variant, Names::new(&job.name, &variant.name).file));
    let missing: Vec<(&Variant, String)> = named.filter(|(_, name)| !work.has(name)).collect();
    let begun = missing.iter().map(|(_, name)| {
        let partial = gq_files::partial_path(&dir.join(name));
        std::fs::symlink_metadata(partial).map_or(0, |found| found.len())
    });
    let begun = begun.fold(0, u64::saturating_add);
    let room = |bytes: &mut dyn Iterator<Item = u64>| {
        let needed = bytes.fold(0, u64::saturating_add).saturating_sub(begun);
        guard::space(&dir.join(MANIFEST), needed)
    };
    // Before grids are looked for, as far as it is known then.
    room(&mut missing.iter().filter_map(|(variant, _)| {
        let policy = &variant.policy;
        let draft = gq_convert::plan_measured(checkpoint, policy, resources, measurements.as_ref(), None);
        Some(draft.ok()?.payload_bytes)
    }))?;
    for (variant, name) in missing {
        let (policy, measurements) = (&variant.policy, measurements.as_ref());
        let grids = convert::grids_shown(checkpoint, policy, resources, global)?;
        plans.push(gq_convert::plan_measured(checkpoint, policy, resources, measurements, Some(&grids))?);
        paths.push(dir.join(name));
    }
    room(&mut plans.iter().map(|plan| plan.payload_bytes))?;
    let checker = Checker::new(args.no_check, global).within(args.max_memory);
    let look = |path: &Path| checker.look(path).map_err(Into::into);
    let options = ExecuteOptions {
        level: global.isa()?,
        restart: false,
        measurements: measurements.as_ref(),
        origin: found.origin.as_ref(),
        check: Some(Check(&look)),
        existing: Existing::Replaced,
    };
    let coding = plans.iter().map(|plan| expected::coding(plan, measurements.is_some(), global));
    let coding = coding.collect::<Result<Vec<Stage>, Failure>>()?;
    tell(job, work, &coding)?;
    for pass in gq_convert::passes(&plans, args.max_memory) {
        let seconds = coding[pass.clone()].iter().map(|stage| stage.seconds).sum();
        let (plans, paths) = (&plans[pass.clone()], &paths[pass]);
        let names: Vec<String> = paths.iter().map(|path| file_name(path)).collect();
        output.note(&format!("one pass over the source for {}", names.join(", ")));
        let outputs: Vec<_> = plans.iter().zip(paths.iter().map(PathBuf::as_path)).collect();
        let total = plans.first().map_or(0, |plan| plan.source_bytes);
        let stage = Stage { name: "", unit: Unit::Bytes, total, seconds };
        let mut progress = Progress::staged(global, "convert", vec![stage]);
        let mut noted = Ok(());
        gq_convert::execute_all(&outputs, checkpoint, options, &mut |event| match event {
            Event::Resumed { tensors } => {
                output.note(&format!("taking up an interrupted conversion: {tensors} tensors are done"));
            }
            Event::Advanced { bytes, tensor } => progress.set(bytes, tensor),
            Event::Finished { path } if noted.is_ok() => {
                noted = same_source(job, path).and_then(|()| work.note(&file_name(path)));
            }
            Event::Finished { .. } => {}
        })?;
        progress.finish();
        noted?;
        plans.iter().for_each(|plan| outcome::note_exceptions(plan, output));
    }
    Ok(())
}

/// Says first what the whole is expected to take: conversions, and evaluations of what has none.
fn tell(job: &Job<'_>, work: &Work, coding: &[Stage]) -> Result<(), Failure> {
    let Job { global, recipe, checkpoint, .. } = job;
    let missing = |variant: &&Variant| !work.has(&Names::new(&job.name, &variant.name).evaluation);
    let missing = recipe.variants.iter().filter(missing).count();
    // About four bytes a token.
    let all = job.text.len() / 4;
    let tokens = recipe.evaluation.windows.map_or(all, |windows| all.min(windows * recipe.evaluation.ctx));
    let evaluations = expected::evaluations(checkpoint, tokens, missing, global)?;
    let stages = [coding, &[Stage { name: "evaluations", ..evaluations }]].concat();
    if let Some(line) = expectation(&stages) {
        global.output().note(&format!("release takes {line}"));
    }
    Ok(())
}

/// Converts and measures what is not done yet.
fn make(job: &Job<'_>, dir: &Path, work: &mut Work) -> Result<(), Failure> {
    let Job { args, global, recipe, .. } = job;
    let output = global.output();
    convert_missing(job, dir, work)?;
    let missing = |variant: &&Variant| !work.has(&Names::new(&job.name, &variant.name).evaluation);
    let missing: Vec<&Variant> = recipe.variants.iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    source::with_threads(global, || {
        let reference = source::model_with(&job.found.path, &job.loras, None, global)?;
        let cache = eval::cache_dir(args.cache.as_deref(), args.cache_limit);
        let cache = cache.map(|dir| LogitCache::new(&dir, args.cache_limit));
        let identity = match &cache {
            Some(cache) => Some(eval::identity(&job.found.path, &job.loras, &reference, cache, global)?),
            None => None,
        };
        for variant in missing {
            let names = Names::new(&job.name, &variant.name);
            output.note(&format!("measuring {}", names.file));
            let loaded = source::model(&dir.join(&names.file), None, global)?;
            let cached = cache.as_ref().zip(identity.as_ref());
            let cache = cached.map(|(cache, identity)| CachedReference { cache, identity });
            let options = TextOptions { cache, ..TextOptions::default() };
            let windows = (recipe.evaluation.ctx, recipe.evaluation.windows);
            let mut report = eval::on_text(&loaded, &reference, &job.text, windows, options, global)?;
            report.names = gq_eval::Names {
                model: names.file.clone(),
                reference: job.found.name.clone(),
                text: file_name(&recipe.evaluation.text),
            };
            report.computed = loaded.computed();
            // Where the logits came from is no property of the release.
            report.reference_logits = ReferenceLogits::Computed;
            sums::write_whole(&dir.join(&names.evaluation), &pretty(&report)?)?;
            work.note(&names.evaluation)?;
        }
        Ok(())
    })?
}

/// A file that was converted from what the digests were taken of.
fn same_source(job: &Job<'_>, path: &Path) -> Result<(), Failure> {
    let provenance = Container::open(path)?.provenance()?;
    let read = provenance.map(|p| p.source.files).unwrap_or_default();
    let noted = job.inputs["source"].as_array().map_or(&[][..], Vec::as_slice);
    let same = |file: &gq_container::SourceFile| {
        noted
            .iter()
            .any(|n| n["name"] == file.name.as_str() && n["sha256"] == file.sha256.to_string().as_str())
    };
    match read.iter().find(|file| !same(file)) {
        None => Ok(()),
        Some(file) => {
            let message = format!("{}: changed while the release was made", file.name);
            Err(Failure::new(Exit::Input, "convert.source_changed", message).at(&file.name))
        }
    }
}

fn pretty(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::internal("json", &e))?;
    Ok(text + "\n")
}

/// Writes everything that follows from the files and evaluations; the checksums last.
fn describe(job: &Job<'_>, dir: &Path) -> Result<Manifest, Failure> {
    let (mut entries, mut reports, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for variant in &job.recipe.variants {
        let names = Names::new(&job.name, &variant.name);
        let path = dir.join(&names.evaluation);
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
        let measured: EvalReport =
            serde_json::from_str(&text).map_err(|e| Failure::internal("report", &e))?;
        let container = Container::open(&dir.join(&names.file))?;
        let report: Report = report_of(&container)?;
        sums::write_whole(&dir.join(&names.tensors), &pretty(&tensors(&container, &report))?)?;
        let (sha256, _) = sums::sha256(&dir.join(&names.file), |_| {})?;
        entries.push(Entry::new(
            &variant.name,
            &names,
            (&container, sha256),
            &report,
            &measured,
            &variant.gates,
        ));
        let relative_mse = report.tensors.iter().map(|tensor| tensor.relative_mse).collect();
        errors.push(TensorErrors { model: names.file, relative_mse });
        reports.push(measured);
    }
    let sizes = checkpoint_sizes(&job.checkpoint);
    let manifest = Manifest {
        format: "gq-release".to_owned(),
        version: 1,
        name: job.name.clone(),
        inputs: job.inputs.clone(),
        original: Original {
            bytes: sizes.file_bytes,
            bits: 8.0 * sizes.file_bytes as f64 / sizes.weights.max(1) as f64,
            ppl: reports.first().and_then(|report| report.ppl).map(|ppl| ppl.reference),
        },
        passed: entries.iter().flat_map(|entry| &entry.gates).all(|gate| gate.passed),
        variants: entries,
    };
    let licences = licences(job, dir)?;
    sums::write_whole(&dir.join(MANIFEST), &pretty(&manifest)?)?;
    sums::write_whole(&dir.join(PAGE), &render_with_tensors(&reports, &errors))?;
    sums::write_whole(&dir.join(CARD), &model_card(job, &manifest, &reports, &licences)?)?;
    let own: Vec<String> = job
        .recipe
        .variants
        .iter()
        .map(|v| Names::new(&job.name, &v.name))
        .flat_map(|names| [names.file, names.tensors, names.evaluation])
        .collect();
    let mut names = [&own[..], &licences, &[MANIFEST, PAGE, CARD].map(str::to_owned)].concat();
    names.sort();
    let mut lines = Vec::new();
    for name in names {
        let (sha256, _) = sums::sha256(&dir.join(&name), |_| {})?;
        lines.push((name, sha256));
    }
    sums::write_whole(&dir.join(SUMS), &sums::render(&lines))?;
    Ok(manifest)
}

/// Copies the licence files of the source; gives their names.
fn licences(job: &Job<'_>, dir: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for licence in job.checkpoint.texts()?.licences {
        sums::write_whole(&dir.join(&licence.name), &licence.text)?;
        names.push(licence.name);
    }
    Ok(names)
}

fn model_card(
    job: &Job<'_>,
    manifest: &Manifest,
    reports: &[EvalReport],
    licences: &[String],
) -> Result<String, Failure> {
    let weights = job.checkpoint.files().iter().filter(|file| file.kind == FileKind::Weights);
    let sha256 = |name: &str| {
        let files = job.inputs["source"].as_array().into_iter().flatten();
        files.filter(|file| file["name"] == name).find_map(|file| file["sha256"].as_str()).unwrap_or_default()
    };
    let source: Vec<_> = weights.map(|file| (file.name.clone(), sha256(&file.name).to_owned())).collect();
    let adapters = job.checkpoint.adapters().iter();
    let adapters: Vec<_> = adapters.map(|adapter| (adapter.name().to_owned(), adapter.weight())).collect();
    let facts = card::Facts {
        base_model: &job.base_model,
        repo: job.recipe.repo.as_deref(),
        fields: &job.recipe.card,
        license: &job.license,
        text: &file_name(&job.recipe.evaluation.text),
        text_sha256: job.inputs["text"]["sha256"].as_str().unwrap_or_default(),
        chat: job.checkpoint.texts()?.chat_template.is_some(),
        adapters: &adapters,
        source: &source,
        licences,
        tool: concat!("gq ", env!("CARGO_PKG_VERSION")),
    };
    Ok(card::render(manifest, reports, &facts))
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
