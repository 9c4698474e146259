//! `gq improve --scales`: scales and norms are tuned toward the reference, with codes as they are.

use super::{ImproveArgs, Original};
use crate::expected;
use crate::failure::{Exit, Failure};
use crate::jobs::calibration_text::TextSequences;
use crate::progress::Progress;
use gq_container::Container;
use gq_convert::{Effort, ScalesEvent, ScalesOptions, ScalesTuned, TunedScales};
use gq_model::Model;
use std::path::Path;

/// How to tune.
///
/// # Errors
/// When the rate is out of range.
pub fn settings(args: &ImproveArgs) -> Result<ScalesOptions, Failure> {
    let usual = ScalesOptions::default();
    let options = ScalesOptions {
        steps: args.steps.map_or(usual.steps, usize::from),
        batch: args.batch.map_or(usual.batch, usize::from),
        rate: args.rate.unwrap_or(usual.rate),
    };
    match options.rate > 0.0 && options.rate <= 0.1 {
        true => Ok(options),
        false => {
            let message = format!("--rate {} is not above 0 and at most 0.1", options.rate);
            let failure = Failure::new(Exit::Usage, "improve.rate", message);
            Err(failure.at("--rate").limit(0.1).actual(options.rate))
        }
    }
}

/// Tokens that tuning takes, with those that are held out.
pub fn tokens(settings: &ScalesOptions, ctx: usize) -> usize {
    (settings.steps * settings.batch * 9).div_ceil(8).saturating_add(12) * ctx
}

/// Tunes. The file is at `path` when it got closer.
pub fn run(
    original: &Original<'_>,
    container: &Container,
    model: &Model,
    text: &TextSequences,
    settings: &ScalesOptions,
    path: &Path,
) -> Result<TunedScales, Failure> {
    let (global, ctx) = (original.global, original.args.calibration_ctx);
    let total = settings.steps * settings.batch;
    let effort = Effort::new(&original.checkpoint, &|_| false).tuning_scales(total * ctx);
    let stages = expected::single("sequences", total as u64, effort, global)?;
    let mut progress = Progress::staged(global, "improve", stages);
    let mut report = |event| {
        let ScalesEvent::Sequences { done, of } = event;
        progress.set_total(of as u64);
        progress.set(done as u64, "tuning");
    };
    let (reference, sequences) = (&original.model, &text.sequences);
    let outcome = gq_convert::tune_scales(reference, model, container, sequences, *settings, &mut report)?;
    progress.finish();
    original.checkpoint.check_unchanged()?;
    if outcome.helps() {
        let tuned = ScalesTuned {
            text_sha256: gq_calibrate::texts_digest(&text.texts).parse().map_err(|_| digest_failure())?,
            ctx: ctx as u64,
            batch: settings.batch as u64,
            steps: settings.steps as u64,
        };
        outcome.write(container, model, Some(tuned), path)?;
    }
    Ok(outcome)
}

/// What came of it, in JSON.
pub fn document(outcome: &TunedScales) -> serde_json::Value {
    serde_json::json!({
        "helped": outcome.helps(),
        "held_out": {"before": outcome.before, "after": outcome.after, "tokens": outcome.held_out_tokens},
        "tokens": outcome.tokens,
    })
}

fn digest_failure() -> Failure {
    Failure::new(Exit::Input, "improve.digest", "the text has no digest".to_owned())
}
