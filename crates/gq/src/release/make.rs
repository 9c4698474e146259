//! Makes the sizes of a release: converts and measures what is not done yet.

use crate::failure::{Exit, Failure};
use crate::jobs::convert;
use crate::jobs::evaluate;
use crate::progress::{Progress, Stage, Unit, expectation};
use crate::release::MANIFEST;
use crate::release::describe::pretty;
use crate::release::job::{Job, file_name};
use crate::release::manifest::Names;
use crate::release::recipe::Variant;
use crate::release::work::Work;
use crate::seen::Checker;
use crate::sums;
use crate::{expected, guard, outcome, source};
use gq_container::Container;
use gq_convert::{Check, Event, ExecuteOptions, Resources};
use gq_eval::{CachedReference, LogitCache, ReferenceLogits, TextOptions};
use gq_files::Existing;
use std::path::{Path, PathBuf};

/// Converts the sizes that are not done yet, in one pass over the source or as few as the memory allows.
fn convert_missing(job: &Job<'_>, dir: &Path, work: &mut Work) -> Result<(), Failure> {
    let Job { asked, global, recipe, found, checkpoint, measurements, .. } = job;
    let output = global.output();
    let measured = measurements.as_ref().map(gq_calibrate::MeasurementsDir::value);
    let resources = Resources { threads: global.threads(), max_memory: asked.max_memory };
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
        let draft = gq_convert::plan_measured(checkpoint, policy, resources, measured, None);
        Some(draft.ok()?.payload_bytes)
    }))?;
    for (variant, name) in missing {
        let policy = &variant.policy;
        let grids = convert::grids_shown(checkpoint, policy, resources, global)?;
        plans.push(gq_convert::plan_measured(checkpoint, policy, resources, measured, Some(&grids))?);
        paths.push(dir.join(name));
    }
    room(&mut plans.iter().map(|plan| plan.payload_bytes))?;
    if measurements.is_none() && plans.iter().any(|plan| !plan.is_lossless()) {
        output.note(
            "not calibrated: the recipe names no measurements, so codes are rounded to nearest; `gq calibrate` makes them",
        );
    }
    let checker = Checker::new(asked.no_check, global).within(asked.max_memory);
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
    for pass in gq_convert::passes(&plans, asked.max_memory) {
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
pub fn make(job: &Job<'_>, dir: &Path, work: &mut Work) -> Result<(), Failure> {
    let Job { asked, global, recipe, .. } = job;
    let output = global.output();
    convert_missing(job, dir, work)?;
    let missing = |variant: &&Variant| !work.has(&Names::new(&job.name, &variant.name).evaluation);
    let missing: Vec<&Variant> = recipe.variants.iter().filter(missing).collect();
    if missing.is_empty() {
        return Ok(());
    }
    source::with_threads(global, || {
        let reference = source::model_with(&job.found.path, &job.loras, None, global)?;
        let cache = evaluate::cache_dir(asked.cache, asked.cache_limit);
        let cache = cache.map(|dir| LogitCache::new(&dir, asked.cache_limit));
        let identity = match &cache {
            Some(cache) => Some(evaluate::identity(&job.found.path, &job.loras, &reference, cache, global)?),
            None => None,
        };
        for variant in missing {
            let names = Names::new(&job.name, &variant.name);
            output.note(&format!("measuring {}", names.file));
            let loaded = source::model(&dir.join(&names.file), None, global)?;
            let cached = cache.as_ref().zip(identity.as_ref());
            let cache = cached.map(|(cache, identity)| CachedReference { cache, identity });
            let options = TextOptions { cache, ..TextOptions::default() };
            let (ctx, windows) = (recipe.evaluation.ctx, recipe.evaluation.windows);
            let mut report =
                evaluate::on_text(&loaded, &reference, &job.text, ctx, windows, options, global)?;
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
