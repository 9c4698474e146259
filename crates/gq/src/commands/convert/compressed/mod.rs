//! `gq convert --format compressed-tensors`: a checkpoint becomes one in integer codes that vLLM serves, codes of which a
//! budget decides and which are rounded with their inputs in view.

mod configuration;
mod units;

use super::mix;
use crate::export::{Weights, safetensors, tokens};
use crate::failure::Failure;
use crate::global::Global;
use crate::options::decision::{Calibrate, Why};
use crate::options::groups::GroupArgs;
use crate::options::recipe::Foreign;
use crate::progress::Progress;
use crate::seen::{Checker, Destination, Seen};
use crate::table::Table;
use crate::{expected, signals, source, units as shown};
use configuration::configuration;
use gq_calibrate::MeasurementsDir;
use gq_convert::{GroupCoder, Grouped, Pace, TypeError, sensitivities};
use gq_files::Existing;
use std::collections::BTreeMap;
use std::path::Path;
use units::{SHARD, Units, codes};

const FORMAT: Foreign = Foreign::CompressedTensors;

/// What was asked for.
pub struct Asked<'a> {
    pub mix: mix::Asked<'a>,
    pub groups: &'a GroupArgs,
}

/// Converts, or shows which codes would be chosen.
pub fn run(asked: &Asked<'_>, global: &Global) -> Result<(), Failure> {
    let of_mix = &asked.mix;
    let budget = of_mix.recipe.mix_budget(FORMAT)?;
    let opened = of_mix.open(FORMAT, &asked.groups.name(), global)?;
    let checkpoint = &opened.checkpoint;
    let _work = signals::during(opened.work());
    let checker = Checker::new(of_mix.no_check, global).within(of_mix.recipe.max_memory);
    checker.texts(checkpoint)?;
    let weights = Weights::of(checkpoint.clone())?;
    tokens::own(&weights)?;
    let units = Units::of(&weights, asked.groups)?;
    // Refused before anything is measured.
    let limit = units.limit(&weights, budget)?;
    let bytes = units.most(&weights, limit);
    let calibrated = !matches!(opened.calibrate, Calibrate::Without(_));
    let pace =
        source::with_threads(global, || Ok::<_, Failure>(Pace::of_groups(global.isa()?, &units.codes)))??;
    let stages = expected::types(checkpoint, pace, &units.shapes(), calibrated, true, bytes, global)?;
    let measured = of_mix.measure(&opened, bytes, stages, global)?;
    let value = measured.measurements.as_ref().map(MeasurementsDir::value);
    let mut coder = GroupCoder::new(checkpoint, measured.measurements.as_ref(), global.isa()?);
    if let Some(importances) = &opened.importances {
        coder = coder.with_importances(importances);
    }
    let mut progress = measured.progress;
    let errors = source::with_threads(global, || errors(&units, &coder, &mut progress))??;
    let forms = units.chosen(&weights, budget, &errors, &sensitivities(checkpoint, value))?;
    let coded = safetensors::Coded {
        codes: codes(&forms),
        configuration: configuration(&units.units, &forms, &units.whole),
        round: &|name, code, rows| Ok(coder.round(name, code, rows)?),
    };
    let bytes = safetensors::file_bytes(&weights, &coded.codes, SHARD);
    if of_mix.dry_run {
        progress.finish();
        return show(asked, &weights, &forms, bytes, None, measured.draft, global);
    }
    let destination = Destination { path: &opened.path, existing: Existing::Kept };
    let unchanged = || Ok(checkpoint.check_unchanged()?);
    source::with_threads(global, || {
        checker.through(destination, &unchanged, |path| {
            let mut done = |done| progress.stage("writing", done, bytes, "");
            safetensors::write(&weights, Some(&coded), path, SHARD, &mut done)
        })
    })??;
    progress.finish();
    let kept = of_mix.tidy(&opened, &measured.job, measured.measurements.as_ref(), FORMAT)?;
    source::warn_incomplete(checkpoint, global.output());
    let made = Made {
        path: &opened.path,
        seconds: opened.began.elapsed().as_secs_f64(),
        uncalibrated: measured.uncalibrated,
        rounding: mix::rounding(value, &opened),
        seen: checker.seen(),
        kept,
    };
    show(asked, &weights, &forms, bytes, Some(&made), "", global)
}

/// What each code loses of every matrix.
fn errors(
    units: &Units,
    coder: &GroupCoder<'_>,
    progress: &mut Progress,
) -> Result<BTreeMap<String, Vec<TypeError<Grouped>>>, Failure> {
    let total: u64 = units.matrices().map(|(_, elements)| elements).sum();
    let (mut done, mut errors) = (0, BTreeMap::new());
    for (name, elements) in units.matrices() {
        errors.insert(name.to_owned(), coder.errors(name, &units.codes)?);
        done += elements;
        progress.stage("types", done, total, name);
    }
    Ok(errors)
}

/// A checkpoint that was made.
struct Made<'a> {
    path: &'a Path,
    seconds: f64,
    uncalibrated: Option<Why>,
    rounding: &'static str,
    seen: Seen,
    kept: String,
}

/// What a form is called: bits, group and whether there are zero points.
fn name(form: Option<&Grouped>) -> String {
    match form {
        Some(Grouped::Codes(code)) => {
            let zeros = if code.is_symmetric() { "" } else { " with zero points" };
            format!("int{} g{}{zeros}", code.bits(), code.group())
        }
        Some(Grouped::Whole) | None => "BF16".to_owned(),
    }
}

fn show(
    asked: &Asked<'_>,
    weights: &Weights,
    forms: &BTreeMap<String, Grouped>,
    bytes: u64,
    made: Option<&Made<'_>>,
    draft: &str,
    global: &Global,
) -> Result<(), Failure> {
    let mut kinds: BTreeMap<(String, String), (u64, u64)> = BTreeMap::new();
    for tensor in weights.tensors.iter().filter(|tensor| tensor.shape.len() > 1) {
        let role =
            weights.spec.declaration(&tensor.name).map_or_else(String::new, |(d, _)| d.role.to_string());
        let entry = kinds.entry((role, name(forms.get(&tensor.name)))).or_default();
        entry.0 += 1;
        entry.1 += tensor.shape.iter().map(|&n| n as u64).product::<u64>();
    }
    let output = global.output();
    if output.json {
        let types = kinds.iter().map(|((role, form), (tensors, weights))| {
            serde_json::json!({ "role": role, "type": form, "tensors": tensors, "weights": weights })
        });
        let mut document = serde_json::json!({
            "format": "compressed-tensors", "file_bytes": bytes, "types": types.collect::<Vec<_>>(),
        });
        if let Some(made) = made {
            document["output"] = made.path.display().to_string().into();
            document["seconds"] = made.seconds.into();
            document["rounding"] = made.rounding.into();
            document["uncalibrated"] = made.uncalibrated.map(Why::name).into();
            document["seen"] = serde_json::to_value(&made.seen).map_err(gq_convert::ConvertError::from)?;
        }
        return output.document(&document);
    }
    let mut table = Table::new(&["<role", "<type", "tensors", "weights"]);
    for ((role, form), (tensors, weights)) in kinds {
        table.row([role, form].into_iter().chain([tensors, weights].map(shown::count)));
    }
    let mut text = if output.quiet { String::new() } else { table.render() };
    match made {
        None => {
            let bytes = shown::count(bytes);
            text += &format!("{}: {bytes} bytes of weights\n{draft}", asked.mix.source.display());
        }
        Some(made) => {
            let (bytes, seconds) = (shown::bytes(bytes), shown::seconds(made.seconds));
            text += &format!("{}: {bytes} of weights in {seconds}\n", made.path.display());
            text += &(made.seen.line() + &made.kept);
        }
    }
    output.data(&text)
}
