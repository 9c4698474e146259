//! `--max-kld`: converts until what a finished file measures meets the limit.

use crate::cli::Global;
use crate::commands::convert;
use crate::failure::{Exit, Failure};
use crate::{source, units};
use gq_checkpoint::Checkpoint;
use gq_container::put_in_place;
use gq_convert::{Budget, Closeness, ClosenessError, ExecuteOptions, Policy, Report, Resources, Tune};
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use std::path::{Path, PathBuf};
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

/// The smallest file found whose divergence from the source, measured on what the calibration held out, is at most
/// `limit`; gives its report, the seconds of all conversions and what was measured. Files on the way lie beside `path`.
///
/// # Errors
/// When no file met the limit; `path` is then untouched.
pub fn convert(
    checkpoint: &Arc<Checkpoint>,
    (policy, limit): (&Policy, f64),
    resources: Resources,
    path: &Path,
    (options, tune): (ExecuteOptions<'_>, &Tune),
    global: &Global,
) -> Result<(Report, f64, Measured), Failure> {
    let (trial, best) = (beside(path, ".trial"), beside(path, ".best"));
    let found = search(checkpoint, (policy, limit), resources, (&trial, &best), (options, tune), global);
    let found = found.and_then(|found| {
        put_in_place(&best, path)?;
        Ok(found)
    });
    for stale in [&trial, &best] {
        let _ = std::fs::remove_file(stale);
    }
    found
}

fn search(
    checkpoint: &Arc<Checkpoint>,
    (policy, limit): (&Policy, f64),
    resources: Resources,
    (trial, best): (&Path, &Path),
    (options, tune): (ExecuteOptions<'_>, &Tune),
    global: &Global,
) -> Result<(Report, f64, Measured), Failure> {
    let run = RunOptions { level: options.level, activations: ActivationMode::F32, kv: KvType::F32 };
    let reference = Model::from_checkpoint(checkpoint.clone(), run)?;
    let output = global.output();
    let (mut closeness, mut seconds, mut files) = (Closeness::new(limit), 0.0, 0);
    let mut kept: Option<(u64, Report, f64, usize)> = None;
    let mut last = f64::NAN;
    loop {
        let policy = Policy { budget: Some(Budget::Divergence(closeness.allowed())), ..policy.clone() };
        let made = convert::convert(checkpoint, &policy, resources, trial, options, global);
        let (report, took) = match made {
            // Nothing is expected to come closer.
            Err(failure) if files > 0 && failure.code == "plan.divergence" => break,
            made => made?,
        };
        seconds += took;
        files += 1;
        let measured =
            source::with_threads(global, || gq_convert::held_out_divergence(tune, &reference, trial))??;
        let Some((kld, tokens)) = measured else {
            let message = "the measurements keep no held-out text: measure again with `gq tune`";
            return Err(Failure::new(Exit::Input, "max_kld.held_out", message).at("--tune"));
        };
        let bytes = std::fs::metadata(trial).map_err(|error| Failure::io(trial, &error))?.len();
        let verdict = if kld <= limit { "kept" } else { "too far" };
        output.note(&format!(
            "{}: divergence {kld:.4} on {} held-out tokens, {verdict}",
            units::bytes(bytes),
            units::count(tokens as u64)
        ));
        last = kld;
        if kld <= limit && kept.as_ref().is_none_or(|(least, ..)| bytes < *least) {
            put_in_place(trial, best)?;
            kept = Some((bytes, report, kld, tokens));
        }
        if !closeness.measured(kld) {
            break;
        }
    }
    let Some((_, report, kld, tokens)) = kept else {
        let message =
            format!("no file of {files} that were made meets {limit}: the last one measured {last:.4}");
        let failure = Failure::new(Exit::Usage, "max_kld.not_met", message);
        return Err(failure.at("--max-kld").limit(limit).actual(format!("{last:.4}")));
    };
    Ok((report, seconds, Measured { limit, kld, tokens, files }))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

impl From<ClosenessError> for Failure {
    fn from(error: ClosenessError) -> Failure {
        match error {
            ClosenessError::Container(error) => error.into(),
            ClosenessError::Load(error) => error.into(),
            ClosenessError::Model(error) => error.into(),
            ClosenessError::Tune(error) => error.into(),
        }
    }
}
