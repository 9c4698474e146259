//! Measures a checkpoint, or takes up what was measured.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::jobs::calibration_text::{TextSequences, TextWriter, given_texts};
use crate::jobs::measuring_memory::{keep_buffers, memory, memory_line, room};
use crate::options::amounts::Measuring;
use crate::progress::Progress;
use crate::signals::Work;
use crate::{expected, source};
use gq_calibrate::{
    CalibrateError, CalibrateEvent, CalibrateOptions, CalibrationInput, MeasurementsDir, MeasurementsError,
    TrialOptions,
};
use gq_checkpoint::Checkpoint;
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_text::{ModelTexts, Tokenizer};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// The same work, with what is measured in `dir`.
pub fn keeping(work: Work, dir: &Path) -> Work {
    work.keeping_in(dir, MeasurementsDir::marks(dir), MeasurementsDir::scratch(dir))
}

/// Refuses a folder that holds something else than measurements.
pub fn refuse_foreign(dir: &Path) -> Result<(), Failure> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let Some(other) =
        entries.map(|entry| entry.file_name()).find(|name| !MeasurementsDir::is_file_name(name))
    else {
        return Ok(());
    };
    let other = other.to_string_lossy().into_owned();
    let message = format!("{}: holds something else than measurements: {other}", dir.display());
    let failure = Failure::new(Exit::Usage, "output.not_empty", message).at(dir.display());
    Err(failure.limit("an empty folder, or measurements").actual(other))
}

/// Measures `checkpoint` and saves the result in `dir`; of `found`, which lies there, only trials are missing.
pub fn measure(
    checkpoint: &Arc<Checkpoint>,
    how: &Measuring,
    dir: &Path,
    found: Option<MeasurementsDir>,
    max_memory: Option<u64>,
    progress: &mut Progress,
    global: &Global,
) -> Result<MeasurementsDir, Failure> {
    let level = global.isa()?;
    let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
    let model = Model::from_checkpoint_unheld(checkpoint.clone(), options)?;
    let tokenizer = Tokenizer::new(model.texts(), model.spec())?;
    // Refused before hours are spent; what is promised is known when the text is.
    let room = room(checkpoint, how, dir, max_memory, global)?;
    if found.is_none() {
        room.refuse(dir, 0)?;
    }
    let left = max_memory.map(|limit| limit.saturating_sub(checkpoint.held_bytes(global.threads())));
    let mut written = |done: u64, of: u64| progress.stage("text", done, of, "");
    let writer = TextWriter { model: &model, tokenizer: &tokenizer, max_memory: left, global };
    let TextSequences { texts, sequences } =
        writer.sequences(how.text.as_deref(), how.tokens, how.ctx, &mut written)?;
    let options = CalibrateOptions {
        level,
        gradient_sequences: how.gradient_tokens.div_ceil(how.ctx.max(1)),
        seed: 0,
        expert_moments: how.expert_moments(),
        asked: how.asked(checkpoint.spec()),
        max_memory,
    };
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let (memory, kept) = memory(checkpoint, how, sequences.len(), longest, max_memory, global)?;
    let _keeping = keep_buffers(kept);
    global.output().note(&memory_line(memory));
    // Moments that are there, on the same text, are not measured again.
    let found = found.filter(|found| found.value().text_sha256 == gq_calibrate::texts_digest(&texts));
    let output = global.output();
    let rounding = expected::rounding_share(checkpoint, how, global)?;
    let mut report = |event| {
        let (stage, done, of) = match event {
            CalibrateEvent::Resumed { layers, of } => {
                let what = match layers {
                    0 => "gradients are done".to_owned(),
                    _ => format!("{layers} of {of} layers are done and only run"),
                };
                return output.note(&format!("taking up an interrupted measurement: {what}"));
            }
            CalibrateEvent::Gradients { done, of } => ("gradients", done, of),
            CalibrateEvent::Moments { done, of } => ("layers", done, of),
            CalibrateEvent::Trials { rounded, passes } => {
                let share = rounding * rounded.share() + (1.0 - rounding) * passes.share();
                ("trials", (100.0 * share).round() as usize, 100)
            }
            CalibrateEvent::Logits => ("logits", 1, 1),
        };
        progress.stage(stage, done as u64, of as u64, "");
        if (stage, done) == ("trials", of) {
            progress.stage("logits", 0, 1, "");
        }
    };
    let wanted: BTreeSet<&str> = how.wanted(checkpoint).collect();
    let text = CalibrationInput { texts: &texts, sequences: &sequences };
    source::with_threads(global, || {
        let mut measurements = match found {
            Some(measurements) => measurements,
            None => {
                let wanted = |name: &str| wanted.contains(name);
                gq_calibrate::measure(checkpoint, &model, text, &wanted, &options, dir, &mut report)?
            }
        };
        if how.trial_tokens > 0 {
            let options = TrialOptions { tokens: how.trial_tokens, max_memory };
            let trials = &mut measurements;
            gq_convert::correct(checkpoint, &model, &sequences, &options, level, trials, &mut report)?;
        }
        Ok::<_, CalibrateError>(measurements)
    })?
    .map_err(Failure::from)
}

/// The finished measurement in `dir`, taken up, or made now: then it stays if it is to be `kept`, or goes with its file.
pub fn finished_or_measured(
    checkpoint: &Arc<Checkpoint>,
    how: &Measuring,
    dir: &Path,
    kept: bool,
    max_memory: Option<u64>,
    progress: &mut Progress,
    global: &Global,
) -> Result<MeasurementsDir, Failure> {
    let found = match finished(checkpoint, how, dir, global)? {
        Finished::AsAsked(measurements) if how.has_trials(measurements.value()) => {
            global.output().note(&format!("taking up the measurements in {}", dir.display()));
            // Trials that an earlier run made are not what this one asks for.
            return Ok(match how.trial_tokens {
                0 => measurements.without_corrections(),
                _ => *measurements,
            });
        }
        Finished::AsAsked(measurements) => Some(*measurements),
        Finished::Other(why) if MeasurementsDir::open(dir).is_ok_and(|found| !found.is_temporary()) => {
            let message = format!("{} holds measurements already, {why}", dir.display());
            let advice = "--measurements with that folder converts by them, --restart replaces them";
            return Err(Failure::new(Exit::Usage, "output.exists", message).at(dir.display()).advise(advice));
        }
        Finished::Other(why) => {
            global.output().note(&format!("{}: {why}: measuring again", dir.display()));
            None
        }
        Finished::None => None,
    };
    let made = found.is_none();
    let measurements = measure(checkpoint, how, dir, found, max_memory, progress, global)?;
    if made {
        measurements.set_temporary(!kept)?;
    }
    Ok(measurements)
}

/// What was finished in a folder.
pub enum Finished {
    /// Nothing.
    None,
    /// What is asked for, of this checkpoint and these texts.
    AsAsked(Box<MeasurementsDir>),
    /// Something else, and what.
    Other(String),
}

/// The finished measurement in `dir`.
pub fn finished(
    checkpoint: &Checkpoint,
    how: &Measuring,
    dir: &Path,
    global: &Global,
) -> Result<Finished, Failure> {
    let measurements = match MeasurementsDir::open(dir) {
        Ok(measurements) => measurements,
        // Nothing was finished there.
        Err(MeasurementsError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Finished::None);
        }
        Err(error) => return Ok(Finished::Other(format!("not usable here ({error})"))),
    };
    let other = |what: &str| Ok(Finished::Other(format!("measured {what}")));
    if measurements.value().asked != how.asked(checkpoint.spec()) {
        return other("with other options");
    }
    if measurements.check_source(&gq_calibrate::source_files(checkpoint)).is_err() {
        return other("on other weights");
    }
    let texts = given_texts(&how.source(), &ModelTexts::from_checkpoint(checkpoint)?, global)?;
    let same =
        texts.is_none_or(|texts| measurements.value().text_sha256 == gq_calibrate::texts_digest(&texts));
    if same { Ok(Finished::AsAsked(Box::new(measurements))) } else { other("on another text") }
}
