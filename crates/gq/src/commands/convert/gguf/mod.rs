//! `gq convert --format gguf`: a checkpoint becomes a GGUF whose block types a budget decides and whose codes are rounded
//! with their inputs in view.

pub mod like;
mod types;
mod write;

use super::mix;
use crate::export::{Weights, ranged, rows_of, tokens};
use crate::failure::Failure;
use crate::global::Global;
use crate::options::decision::{Calibrate, Why};
use crate::options::recipe::Foreign;
use crate::progress::Progress;
use crate::seen::{Checker, Destination};
use crate::table::Table;
use crate::{expected, signals, source, units};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::gguf::{GgmlType, Value};
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource, ExportTensor};
use gq_convert::{BlockCoder, Pace, TypeError, sensitivities};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use types::Matrices;
use write::Mix;

/// What was asked for.
pub struct Asked<'a> {
    pub mix: mix::Asked<'a>,
    pub accepted: tokens::Accepted,
    /// A mix of llama-quantize whose types are taken.
    pub like: Option<like::Like>,
}

/// Converts, or shows which types would be chosen.
pub fn run(asked: &Asked<'_>, global: &Global) -> Result<(), Failure> {
    let of_mix = &asked.mix;
    let budget = of_mix.recipe.mix_budget(Foreign::Gguf)?;
    let mut opened = of_mix.open(Foreign::Gguf, asked.like.map_or("", |like| like.name), global)?;
    if asked.like.is_some() && !of_mix.keep_measurements {
        opened.without_sensitivities(of_mix.calibration);
    }
    let (checkpoint, path, output) = (&opened.checkpoint, &opened.path, global.output());
    let _work = signals::during(opened.work());
    let checker = Checker::new(of_mix.no_check, global).within(of_mix.recipe.max_memory);
    checker.texts(checkpoint)?;
    let weights = Weights::of(checkpoint.clone())?;
    let own = tokens::own(&weights)?;
    let tensors: Vec<_> = weights.tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: &weights.spec, texts: &weights.texts, tensors: &tensors };
    let mut mix = Mix {
        source,
        options: export_options(&weights, asked, &opened.name),
        notes: Vec::new(),
        budget,
        errors: BTreeMap::new(),
        sensitivities: &sensitivities(checkpoint, None),
    };
    let draft = mix.draft()?;
    tokens::compare(own.as_ref(), &weights, &draft, asked.accepted, output)?;
    if let Some(like) = asked.like {
        let free = |tensor: &&ExportTensor| tensor.new.kind == GgmlType::F16;
        let tensors: Vec<_> = draft.tensors().iter().filter(free).collect();
        let importance = opened.importances.is_some() || !matches!(opened.calibrate, Calibrate::Without(_));
        let kinds = like.kinds(&weights.spec, &tensors, importance);
        mix.options.overrides.extend(kinds);
    }
    // Refused before anything is measured.
    let draft = mix.draft()?;
    let matrices = Matrices::of(&draft, &mix.options.overrides);
    let bytes = draft.file_bytes().min(matrices.around().saturating_add(matrices.limit(budget)?));
    let rounded =
        draft.tensors().iter().filter(|tensor| tensor.source.is_some() && tensor.new.shape.len() > 1);
    let shapes: Vec<_> = rounded.map(|tensor| rows_of(&tensor.new.shape)).collect();
    let calibrated = !matches!(opened.calibrate, Calibrate::Without(_));
    let pace = source::with_threads(global, || Ok::<_, Failure>(Pace::of_blocks(global.isa()?)))??;
    let stages = expected::types(checkpoint, pace, &shapes, calibrated, asked.like.is_none(), bytes, global)?;
    let measured = of_mix.measure(&opened, bytes, stages, global)?;
    let value = measured.measurements.as_ref().map(MeasurementsDir::value);
    mix.notes = notes(value, asked.like, &opened);
    let costs = sensitivities(checkpoint, value);
    let mut mix = Mix { sensitivities: &costs, ..mix };
    let mut coder = BlockCoder::new(checkpoint, measured.measurements.as_ref(), global.isa()?);
    if let Some(importances) = &opened.importances {
        coder = coder.with_importances(importances);
    }
    let matrices = Matrices::of(&mix.draft()?, &mix.options.overrides);
    let mut progress = measured.progress;
    mix.errors = source::with_threads(global, || errors(&matrices, &coder, &mut progress))??;
    if of_mix.dry_run {
        progress.finish();
        let plan = mix.chosen(&BTreeMap::new())?;
        return show(asked, &plan, plan.file_bytes(), Shown::Planned(measured.draft), global);
    }
    let destination = Destination { path, existing: of_mix.force.existing() };
    let unchanged = || Ok(checkpoint.check_unchanged()?);
    let written = source::with_threads(global, || {
        let shared = RefCell::new(&mut progress);
        checker.through(destination, &unchanged, |path| mix.write(path, &weights, &coder, &shared))
    })??;
    progress.finish();
    let kept = of_mix.tidy(&opened, &measured.job, measured.measurements.as_ref(), Foreign::Gguf)?;
    source::warn_incomplete(checkpoint, output);
    let made = Made {
        path,
        seconds: opened.began.elapsed().as_secs_f64(),
        uncalibrated: measured.uncalibrated,
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

/// What the file says of how it was made.
fn notes(
    measured: Option<&gq_calibrate::Measurements>,
    like: Option<like::Like>,
    opened: &mix::Opened,
) -> Vec<(String, Value)> {
    let text = |text: &str| Value::String(text.to_owned());
    let mut notes = vec![("general.gq.version".to_owned(), text(env!("CARGO_PKG_VERSION")))];
    if let Some(measured) = measured {
        notes.push(("general.gq.calibration.text_sha256".to_owned(), text(&measured.text_sha256)));
        notes.push(("general.gq.calibration.tokens".to_owned(), Value::U64(measured.tokens as u64)));
    }
    notes.push(("general.gq.rounding".to_owned(), text(mix::rounding(measured, opened))));
    if let Some(like) = like {
        notes.push(("general.file_type".to_owned(), Value::U32(like.file_type)));
        notes.push(("general.gq.like".to_owned(), text(like.name)));
    }
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
            text += &format!("{}: {} bytes\n{draft}", asked.mix.source.display(), units::count(bytes));
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
