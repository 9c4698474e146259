//! `--target-kld`: converts until what a finished file measures meets the limit.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::jobs::convert;
use crate::options::decision::Calibrate;
use crate::options::recipe::Recipe;
use crate::progress::Progress;
use crate::search_folder::{Round, SearchFolder};
use crate::{expected, guard, outcome, progress, source, units};
use gq_calibrate::{MeasurementsDir, MeasuringMemory};
use gq_checkpoint::Checkpoint;
use gq_container::{Container, TextKind};
use gq_convert::{Budget, ExecuteOptions, Grids, Plan, PlanError, Policy, Report, Resources, TargetKld};
use gq_files::Existing;
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_tensor::{Encoding, Isa};
use std::path::Path;
use std::sync::Arc;

/// What was measured of the file that was kept.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Measured {
    /// Most nats per token that were asked for.
    pub limit: f64,
    /// Mean divergence on the held-out tokens.
    pub kld: f64,
    /// Those tokens.
    pub tokens: usize,
    /// Files that were made to find it.
    pub files: usize,
}

/// A source and what is to become of it.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// The source.
    pub checkpoint: &'a Arc<Checkpoint>,
    /// The recipe; its budget is the search's own.
    pub policy: &'a Policy,
    /// Measurements that keep held-out text.
    pub measurements: &'a MeasurementsDir,
    /// Most nats per token.
    pub limit: f64,
    /// Grids that its weights sit on.
    pub grids: &'a Grids,
}

/// What looking for a file within `--target-kld` takes at the most, in addition to what the conversion says of itself; `None`: it
/// is not asked for.
pub fn expectation(
    checkpoint: &Checkpoint,
    recipe: &Recipe,
    calibrate: &Calibrate,
    resources: Resources,
    global: &Global,
) -> Result<Option<String>, Failure> {
    if recipe.target_kld.is_none() {
        return Ok(None);
    }
    let (sequences, ctx) = match calibrate {
        Calibrate::Measure(how) => (how.sequences(), how.ctx),
        _ => recipe.measurements(checkpoint, None)?.map_or((0, 0), |found| {
            let found = found.value();
            ((found.tokens + found.held_out_tokens).div_ceil(found.ctx.max(1)), found.ctx)
        }),
    };
    let tokens = gq_calibrate::compared_tokens(sequences, ctx);
    // Of the usual size: which files are made is known when they are.
    let policy = Policy { budget: Some(Budget::DEFAULT), ..recipe.policy(checkpoint, None) };
    let plan = gq_convert::plan_measured(checkpoint, &policy, resources, None, None).ok();
    let each = plan.map(|plan| expected::trial_file(checkpoint, &plan, tokens, global)).transpose()?;
    Ok(at_most(each.flatten()))
}

/// In words, of the seconds of one file; nobody waits for a second.
fn at_most(each: Option<f64>) -> Option<String> {
    let most = TargetKld::MOST_FILES;
    let all = each.map(|each| most as f64 * each);
    let takes = match each.zip(all) {
        None => "how long each takes is said when it begins".to_owned(),
        Some((_, all)) if all < 1.0 => return None,
        Some((each, all)) => format!(
            "{} each, at most {} in all on this machine at its present load",
            progress::about(each),
            units::rough_seconds(all)
        ),
    };
    Some(format!("--target-kld then makes and measures at most {most} files: {takes}"))
}

/// The smallest file found whose divergence from the source, measured on what the calibration held out, is at most the
/// limit; gives its report, its plan and what was measured.
///
/// Files on the way lie in a folder next to `path`, from which the search goes on when it was interrupted.
///
/// # Errors
/// When no file met the limit; `path` is then untouched.
pub fn convert(
    job: Job<'_>,
    resources: Resources,
    path: &Path,
    options: ExecuteOptions<'_>,
    global: &Global,
) -> Result<(Report, Plan, Measured), Failure> {
    let spec = job.checkpoint.spec();
    let held = job.checkpoint.held_bytes(resources.threads);
    MeasuringMemory::comparing(
        spec,
        job.measurements.value().ctx,
        resources.threads,
        held,
        resources.max_memory,
    )?;
    let asked = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "limit": job.limit,
        "policy": job.policy,
        "files": gq_calibrate::source_files(job.checkpoint),
    });
    let mut folder = SearchFolder::open(path, &asked.to_string(), options.restart)?;
    let found = search(job, resources, &mut folder, options, global);
    match &found {
        Ok(_) => match guard::place(&folder.best(), path, options.existing) {
            // Finished, under another name.
            Err(taken) if taken.code == "output.taken" => {
                folder.remove();
                return Err(taken);
            }
            placed => placed?,
        },
        // Nothing in it is of any use.
        Err(failure) if failure.exit == Exit::Usage => {}
        Err(_) => return found,
    }
    folder.remove();
    found
}

fn search(
    job: Job<'_>,
    resources: Resources,
    folder: &mut SearchFolder,
    options: ExecuteOptions<'_>,
    global: &Global,
) -> Result<(Report, Plan, Measured), Failure> {
    let Job { checkpoint, policy, measurements, limit, grids } = job;
    let (mut target, mut files) = (TargetKld::new(limit), 0);
    let mut made: Vec<(Vec<Encoding>, f64)> = Vec::new();
    let mut kept: Option<(Round, Plan)> = None;
    let (mut closest, mut last) = (false, f64::NAN);
    loop {
        let allowed = target.allowed();
        let policy = Policy { budget: Some(Budget::Divergence(allowed)), ..policy.clone() };
        let plan = match gq_convert::plan_measured(
            checkpoint,
            &policy,
            resources,
            Some(measurements.value()),
            Some(grids),
        ) {
            // No closer file is expected than this one: what it measures decides.
            Err(PlanError::Divergence { actual, .. }) if !closest && actual.is_finite() => {
                closest = true;
                target.plan_for(actual * (1.0 + 1e-6));
                continue;
            }
            Err(PlanError::Divergence { .. }) if files > 0 => break,
            plan => plan?,
        };
        let encodings: Vec<Encoding> = plan.steps.iter().map(|step| step.encoding).collect();
        let known = made.iter().find(|(others, _)| *others == encodings).map(|(_, kld)| *kld);
        let kld = match (known, folder.known(allowed)) {
            (Some(kld), _) => kld,
            (None, found) => {
                let round = match found {
                    Some(round) => round,
                    None => {
                        let trial = folder.trial();
                        let existing = Existing::Replaced;
                        let options = ExecuteOptions { restart: false, existing, ..options };
                        guard::space(&trial, plan.payload_bytes)?;
                        let stages = vec![expected::coding(&plan, true, global)?];
                        let mut progress = Progress::staged(global, "convert", stages);
                        convert::execute(checkpoint, &plan, &trial, options, &mut progress, global)?;
                        progress.finish();
                        let (kld, tokens) = measure(job, options.level, &trial, global)?;
                        let bytes =
                            std::fs::metadata(&trial).map_err(|error| Failure::io(&trial, &error))?.len();
                        let least = kept.as_ref().is_none_or(|(kept, _)| bytes < kept.bytes);
                        let round = Round { allowed, kld, tokens, bytes, kept: kld <= limit && least };
                        folder.add(round)?;
                        round
                    }
                };
                files += 1;
                tell(&round, limit, global);
                if round.kept {
                    kept = Some((round, plan));
                }
                made.push((encodings, round.kld));
                round.kld
            }
        };
        last = kld;
        if !target.measured(kld) {
            break;
        }
    }
    let Some((round, plan)) = kept else {
        let message =
            format!("no file of {files} that were made meets {limit}: the last one measured {last:.4}");
        let failure = Failure::new(Exit::Usage, "target_kld.not_met", message);
        return Err(failure.at("--target-kld").limit(limit).actual(format!("{last:.4}")));
    };
    outcome::notes(&plan, grids, global.output());
    let text = Container::open(&folder.best())?.text(TextKind::Report)?.unwrap_or_default();
    let report: Report = serde_json::from_str(&text).map_err(gq_convert::ConvertError::from)?;
    let measured = Measured { limit, kld: round.kld, tokens: round.tokens, files };
    Ok((report, plan, measured))
}

/// Divergence of a finished file on the held-out text, and its tokens. The original is loaded for this alone.
fn measure(job: Job<'_>, level: Isa, file: &Path, global: &Global) -> Result<(f64, usize), Failure> {
    let run = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
    let reference = Model::from_checkpoint_unheld(job.checkpoint.clone(), run)?;
    let measured = source::with_threads(global, || {
        gq_convert::held_out_divergence(job.measurements, &reference, file)
    })??;
    measured.ok_or_else(|| {
        let message = "the measurements keep no held-out text: measure again with `gq calibrate`";
        Failure::new(Exit::Input, "target_kld.held_out", message).at("--measurements")
    })
}

fn tell(round: &Round, limit: f64, global: &Global) {
    let verdict = match round.kld <= limit {
        true if round.kept => "kept",
        true => "no smaller",
        false => "too far",
    };
    let (bytes, tokens) = (units::bytes(round.bytes), units::count(round.tokens as u64));
    global
        .output()
        .note(&format!("{bytes}: divergence {:.4} on {tokens} held-out tokens, {verdict}", round.kld));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_on_the_way_have_a_bound() {
        let said = at_most(Some(20.0)).unwrap();
        assert!(said.contains("at most 6 files: about 20 s each, at most 2 min"), "{said}");
        assert!(at_most(Some(0.5)).unwrap().contains("under a second each, at most 3 s"));
        assert!(at_most(None).is_some() && at_most(Some(0.1)).is_none());
    }
}
