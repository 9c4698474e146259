//! `gq convert --format gguf`: a checkpoint becomes a GGUF whose block types a budget decides and whose codes are rounded
//! with their inputs in view.

mod types;
mod write;

use crate::export::{Weights, ranged, tokens};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::{self, Force, Out};
use crate::jobs::convert::{Job, Place, measurements_path};
use crate::jobs::{calibration_text, measure};
use crate::options::calibration::CalibrationArgs;
use crate::options::decision::{Calibrate, Why};
use crate::options::recipe::Recipe;
use crate::progress::{Progress, Stage, Unit};
use crate::seen::{Checker, Destination, NoCheck};
use crate::signals::{self, Work};
use crate::table::Table;
use crate::{source, typed, units};
use gq_calibrate::{FACTORS_AT_WORK, MeasurementsDir};
use gq_checkpoint::Checkpoint;
use gq_checkpoint::gguf::{GgmlType, Value};
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource};
use gq_convert::{BlockCoder, Resources, TypeError, sensitivities};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use types::Matrices;
use write::Mix;

/// What was asked for.
pub struct Asked<'a> {
    pub source: &'a Path,
    pub output: Option<&'a Path>,
    pub recipe: &'a Recipe,
    pub calibration: &'a CalibrationArgs,
    pub accepted: tokens::Accepted,
    pub force: Force,
    pub no_check: NoCheck,
    pub dry_run: bool,
    pub keep_measurements: bool,
    pub restart: bool,
}

/// Converts, or shows which types would be chosen.
pub fn run(asked: &Asked<'_>, global: &Global) -> Result<(), Failure> {
    let began = Instant::now();
    let budget = asked.recipe.gguf_budget()?;
    if let Some(output) = asked.output.filter(|_| !asked.dry_run) {
        guarded(asked, output, false)?;
    }
    calibration_text::check_names(asked.recipe, asked.calibration.calibration.as_deref())?;
    let found = source::find(asked.source, global)?;
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &asked.recipe.loras, global)?);
    source::refuse_quantized(&checkpoint, asked.recipe.allow_requantize)?;
    let output = global.output();
    let calibrate = Calibrate::resolve(asked.recipe, asked.calibration, &checkpoint)?;
    let path = match asked.output {
        Some(path) => path.to_owned(),
        None => asked.recipe.gguf_name(&found.name, &calibrate),
    };
    if !asked.dry_run {
        guarded(asked, &path, matches!(calibrate, Calibrate::Measure(_)))?;
    }
    let begun = [guard::candidate(&path), gq_files::partial_path(&guard::candidate(&path))];
    let work = Work::that_continues([]).removing(begun.into_iter().chain([guard::candidate_mark(&path)]));
    let work = work.making([path.clone()], "only its summary was not shown");
    let _work = signals::during(measure::keeping(work, &measurements_path(&path)));
    let checker = Checker::new(asked.no_check, global).within(asked.recipe.max_memory);
    checker.texts(&checkpoint)?;
    let weights = Weights::of(checkpoint.clone())?;
    let own = tokens::own(&weights)?;
    let tensors: Vec<_> = weights.tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: &weights.spec, texts: &weights.texts, tensors: &tensors };
    let mut mix = Mix {
        source,
        options: export_options(&weights, asked, &found.name),
        notes: Vec::new(),
        budget,
        errors: BTreeMap::new(),
        sensitivities: &sensitivities(&checkpoint, None),
    };
    let draft = mix.draft()?;
    tokens::compare(own.as_ref(), &weights, &draft, asked.accepted, output)?;
    // Refused before anything is measured.
    Matrices::of(&draft, &mix.options.overrides).limit(budget)?;
    refuse_memory(&checkpoint, asked.recipe.max_memory, global.threads())?;
    let resources = Resources { threads: global.threads(), max_memory: asked.recipe.max_memory };
    let mut job = Job::new(&checkpoint, asked.recipe, calibrate, resources)?;
    // What a .gq file would keep without loss is not what a GGUF does.
    job.draft = None;
    let place = Place { path: &path, restart: asked.restart, keep: asked.keep_measurements };
    let measures = match &job.calibrate {
        Calibrate::Measure(how) if !asked.dry_run => {
            calibration_text::refuse_short(&checkpoint, how)?;
            job.room(&place, global)?;
            true
        }
        _ => false,
    };
    if !asked.dry_run {
        guard::space(&path, draft.file_bytes().min(budget.bytes().unwrap_or(u64::MAX)))?;
    }
    let mut stages = if measures { job.stages(true, global)? } else { Vec::new() };
    stages.retain(|stage| stage.name != "grids" && stage.name != "coding");
    let types = Stage { name: "types", unit: Unit::Bytes, total: 1, seconds: None };
    stages.extend([types, Stage { name: "writing", unit: Unit::Bytes, total: 1, seconds: None }]);
    let mut progress = Progress::staged(global, "convert", stages);
    let uncalibrated = job.uncalibrated();
    if let Some(why) = uncalibrated {
        output.note(&sentence(why));
    }
    let measurements = match (asked.dry_run, &job.calibrate) {
        (true, Calibrate::Measure(_)) => None,
        _ => job.measurements(&place, &mut progress, global)?,
    };
    let value = measurements.as_ref().map(MeasurementsDir::value);
    mix.notes = notes(value);
    let costs = sensitivities(&checkpoint, value);
    let mut mix = Mix { sensitivities: &costs, ..mix };
    let coder = BlockCoder::new(&checkpoint, measurements.as_ref(), global.isa()?);
    let matrices = Matrices::of(&mix.draft()?, &mix.options.overrides);
    mix.errors = source::with_threads(global, || errors(&matrices, &coder, &mut progress))??;
    if asked.dry_run {
        progress.finish();
        let draft = if measurements.is_none() && matches!(job.calibrate, Calibrate::Measure(_)) {
            "a draft: `gq convert` measures first\n"
        } else {
            ""
        };
        let plan = mix.chosen(&BTreeMap::new())?;
        return show(asked, &plan, plan.file_bytes(), Shown::Planned(draft), global);
    }
    let destination = Destination { path: path.as_path(), existing: asked.force.existing() };
    let unchanged = || Ok(checkpoint.check_unchanged()?);
    let written = source::with_threads(global, || {
        let shared = RefCell::new(&mut progress);
        checker.through(destination, &unchanged, |path| mix.write(path, &weights, &coder, &shared))
    })??;
    progress.finish();
    let command = format!("gq convert {} --format gguf", asked.source.display());
    let kept = job.tidy(measurements.as_ref(), &place, &command)?;
    source::warn_incomplete(&checkpoint, output);
    let made = Made {
        path: &path,
        seconds: began.elapsed().as_secs_f64(),
        uncalibrated,
        widened: ranged::json(&written.widened),
        widened_lines: ranged::lines(&written.widened),
        not_carried: own.as_ref().filter(|own| own.composes()).map(|_| "NFC"),
        seen: checker.seen(),
        kept,
    };
    show(asked, &written.plan, written.bytes, Shown::Made(Box::new(made)), global)
}

/// What each type loses of every matrix.
fn errors(
    matrices: &Matrices,
    coder: &BlockCoder<'_>,
    progress: &mut Progress,
) -> Result<BTreeMap<String, Vec<TypeError>>, Failure> {
    let total: u64 = matrices.names().map(|name| matrices.elements(name)).sum();
    let (mut done, mut errors) = (0, BTreeMap::new());
    for name in matrices.names() {
        for part in matrices.parts(name) {
            errors.insert(part.to_owned(), coder.errors(part)?);
        }
        done += matrices.elements(name);
        progress.stage("types", done, total, name);
    }
    Ok(errors)
}

/// Refuses an output that must not be written; as `gq convert` does.
fn guarded(asked: &Asked<'_>, output: &Path, measures: bool) -> Result<(), Failure> {
    let loras = asked.recipe.loras.paths();
    let measured = [asked.recipe.measurements.as_deref(), asked.calibration.calibration.as_deref()]
        .into_iter()
        .flatten();
    let reads: Vec<&Path> = [asked.source].into_iter().chain(loras).chain(measured).collect();
    let measurements = measurements_path(output);
    let mut outs = vec![Out::file(output, asked.force)];
    outs.extend(measures.then(|| Out::companion(&measurements)));
    guard::check(&outs, &reads)?;
    if measures { measure::refuse_foreign(&measurements) } else { Ok(()) }
}

/// Every matrix in F16 until its type is chosen, but those that the source has in four bits already.
fn export_options(weights: &Weights, asked: &Asked<'_>, name: &str) -> ExportOptions {
    let folder = name.strip_suffix(".gguf").unwrap_or(name);
    let mut options = ExportOptions::new(GgmlType::F16, folder);
    options.allow_other_tokens = asked.accepted.allow_other_tokens;
    options.coded = true;
    let coded = weights.tensors.iter().filter(|tensor| tensor.mxfp4);
    options.overrides.extend(coded.map(|tensor| (tensor.name.clone(), GgmlType::MXFP4)));
    options
}

/// Refuses a limit on memory that rounding does not keep; measuring has its own.
fn refuse_memory(checkpoint: &Checkpoint, limit: Option<u64>, threads: usize) -> Result<(), Failure> {
    let matrices = checkpoint.tensors().iter().filter(|tensor| tensor.role.is_used());
    let widest = matrices.filter(|t| t.shape.len() > 1).map(|t| t.cols() as u64).max().unwrap_or(0);
    let rows = (threads as u64 + 1) * 8 * 64 * 4 * widest + (48 << 20);
    let needed =
        FACTORS_AT_WORK * widest * widest + rows + checkpoint.text_bytes() + checkpoint.merge_bytes(threads);
    match limit {
        Some(limit) if limit < needed => {
            let message = format!(
                "rounding to block types takes up to {} of memory, --max-memory allows {}",
                units::bytes(needed),
                units::bytes(limit)
            );
            let failure = Failure::new(Exit::Usage, "plan.memory", message).at("--max-memory");
            Err(failure.limit(limit).actual(needed))
        }
        _ => Ok(()),
    }
}

/// What to know of a file that nothing was measured for.
fn sentence(why: Why) -> String {
    let calibrated = typed::calibrated_conversion();
    let what = "blocks are rounded to nearest and bytes go where such tensors usually need them";
    match why {
        Why::Large(weights) => format!(
            "not calibrated: with {} billion weights that takes long and is left to you: {what}; calibrated: \
             `{calibrated}`",
            units::billions(weights)
        ),
        Why::NoTokenizer => {
            format!("not calibrated: the checkpoint has no tokenizer to read a calibration text with; {what}")
        }
        Why::Asked | Why::Encoding => format!("not calibrated, as asked: {what}"),
    }
}

/// What the file says of how it was made.
fn notes(measured: Option<&gq_calibrate::Measurements>) -> Vec<(String, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let mut notes = vec![("general.gq.version".to_owned(), text(env!("CARGO_PKG_VERSION")))];
    let rounding = match measured {
        Some(measured) => {
            notes.push(("general.gq.calibration.text_sha256".to_owned(), text(&measured.text_sha256)));
            notes.push(("general.gq.calibration.tokens".to_owned(), Value::U64(measured.tokens as u64)));
            "error feedback by second moments of inputs"
        }
        None => "nearest",
    };
    notes.push(("general.gq.rounding".to_owned(), text(rounding)));
    notes
}

/// A file that was made.
struct Made<'a> {
    path: &'a Path,
    seconds: f64,
    uncalibrated: Option<Why>,
    widened: Vec<serde_json::Value>,
    widened_lines: String,
    not_carried: Option<&'static str>,
    seen: crate::seen::Seen,
    kept: String,
}

enum Shown<'a> {
    /// What is to be known of a plan.
    Planned(&'a str),
    Made(Box<Made<'a>>),
}

fn show(
    asked: &Asked<'_>,
    plan: &ExportPlan,
    bytes: u64,
    shown: Shown<'_>,
    global: &Global,
) -> Result<(), Failure> {
    let mut kinds: BTreeMap<(&str, &str), (u64, u64, u64)> = BTreeMap::new();
    let roles: Vec<String> = plan.tensors().iter().map(|tensor| tensor.role.to_string()).collect();
    for (tensor, role) in plan.tensors().iter().zip(&roles) {
        let entry = kinds.entry((role, tensor.new.kind.name())).or_default();
        entry.0 += 1;
        entry.1 += tensor.new.shape.iter().map(|&n| n as u64).product::<u64>();
        entry.2 += tensor.new.bytes().unwrap_or(0);
    }
    let output = global.output();
    if output.json {
        let types: Vec<_> = kinds
            .iter()
            .map(|((role, kind), (tensors, weights, bytes))| {
                serde_json::json!({
                    "role": role, "type": kind, "tensors": tensors, "weights": weights, "bytes": bytes,
                })
            })
            .collect();
        let mut document = serde_json::json!({ "format": "gguf", "file_bytes": bytes, "types": types });
        if let Shown::Made(made) = &shown {
            document["output"] = made.path.display().to_string().into();
            document["seconds"] = made.seconds.into();
            document["uncalibrated"] = made.uncalibrated.map(Why::name).into();
            document["widened"] = made.widened.clone().into();
            document["normalizer_not_carried"] = made.not_carried.into();
            document["seen"] = serde_json::to_value(&made.seen).map_err(gq_convert::ConvertError::from)?;
        }
        return output.document(&document);
    }
    let mut table = Table::new(&["<role", "<type", "tensors", "weights", "bytes"]);
    for ((role, kind), (tensors, weights, bytes)) in kinds {
        let counts = [tensors, weights, bytes].map(units::count);
        table.row([role.to_owned(), kind.to_owned()].into_iter().chain(counts));
    }
    let mut text = if output.quiet { String::new() } else { table.render() };
    match shown {
        Shown::Planned(draft) => {
            text += &format!("{}: {} bytes\n{draft}", asked.source.display(), units::count(bytes));
        }
        Shown::Made(made) => {
            text += &made.widened_lines;
            let (bytes, seconds) = (units::bytes(bytes), units::seconds(made.seconds));
            text += &format!("{}: {bytes} in {seconds}\n", made.path.display());
            text += &(made.seen.line() + &made.kept);
        }
    }
    output.data(&text)
}
