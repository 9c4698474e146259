//! What conversions to formats of other programs have in common: a budget over types, chosen by what was measured.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::{self, Force, Out};
use crate::jobs::convert::{Job, Place, measurements_path};
use crate::jobs::{calibration_text, importance, measure};
use crate::options::calibration::CalibrationArgs;
use crate::options::decision::{Calibrate, Why};
use crate::options::recipe::{Foreign, Recipe};
use crate::progress::{Progress, Stage};
use crate::seen::NoCheck;
use crate::signals::Work;
use crate::{source, typed, units};
use gq_calibrate::{FACTORS_AT_WORK, Measurements, MeasurementsDir};
use gq_checkpoint::Checkpoint;
use gq_convert::{ChooseError, Importances, Resources};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// What was asked for.
pub struct Asked<'a> {
    pub source: &'a Path,
    pub output: Option<&'a Path>,
    pub recipe: &'a Recipe,
    pub calibration: &'a CalibrationArgs,
    pub force: Force,
    pub no_check: NoCheck,
    /// An importance matrix of llama.cpp in the place of measurements.
    pub imatrix: Option<&'a Path>,
    pub dry_run: bool,
    pub keep_measurements: bool,
    pub restart: bool,
}

/// A source that was opened, and where its conversion goes.
pub struct Opened {
    pub began: Instant,
    pub checkpoint: Arc<Checkpoint>,
    /// The source's name.
    pub name: String,
    pub calibrate: Calibrate,
    pub importances: Option<Importances>,
    /// Where the output goes.
    pub path: PathBuf,
}

/// A conversion for which everything was measured.
pub struct Measured<'a> {
    pub job: Job<'a>,
    pub progress: Progress,
    pub measurements: Option<MeasurementsDir>,
    /// Why nothing was measured.
    pub uncalibrated: Option<Why>,
    /// What is to be known of a plan that is made before anything is measured.
    pub draft: &'static str,
}

impl Asked<'_> {
    /// Opens the source; refuses an output that must not be written. `more` is what the output's name says of the format's
    /// own options.
    pub fn open(&self, format: Foreign, more: &str, global: &Global) -> Result<Opened, Failure> {
        let began = Instant::now();
        if let Some(output) = self.output.filter(|_| !self.dry_run) {
            self.guard(output, format, false)?;
        }
        self.refuse_swallowed(format)?;
        calibration_text::check_names(self.recipe, self.calibration.calibration.as_deref())?;
        let found = source::find(self.source, global)?;
        let checkpoint = Arc::new(source::checkpoint_with(&found.path, &self.recipe.loras, global)?);
        source::refuse_quantized(&checkpoint, self.recipe.allow_requantize)?;
        let calibrate = match self.imatrix {
            Some(_) => Calibrate::Without(Why::Importance),
            None => Calibrate::resolve(self.recipe, self.calibration, &checkpoint)?,
        };
        let importances =
            self.imatrix.map(|path| importance::read(&checkpoint, path, global.output())).transpose()?;
        let path = match self.output {
            Some(path) => path.to_owned(),
            None => self.recipe.mix_name(&found.name, format, more, &calibrate),
        };
        if !self.dry_run {
            self.guard(&path, format, matches!(calibrate, Calibrate::Measure(_)))?;
        }
        Ok(Opened { began, checkpoint, name: found.name, calibrate, importances, path })
    }

    /// Refuses options that would do nothing.
    fn refuse_swallowed(&self, format: Foreign) -> Result<(), Failure> {
        let measuring = [("--keep-measurements", self.keep_measurements), ("--restart", self.restart)];
        let measuring = measuring.into_iter().find(|(_, given)| *given).map(|(option, _)| option);
        if let (Some(_), Some(option)) = (self.imatrix, self.calibration.how_to_measure().or(measuring)) {
            let message = format!("{option} is of measuring, and with --imatrix nothing is measured");
            let failure = Failure::new(Exit::Usage, "calibration.option", message).at(option);
            return Err(failure.limit("a text to measure on").actual("none"));
        }
        if format == Foreign::CompressedTensors && self.force.force {
            let message = "--force replaces files, and --format compressed-tensors makes a folder: remove it, or choose \
                           another --output";
            let failure = Failure::new(Exit::Usage, "convert.format_option", message).at("--force");
            return Err(failure.limit("a folder that does not exist").actual("--force"));
        }
        Ok(())
    }

    /// Refuses an output that must not be written; one that `measures` has a folder next to it.
    fn guard(&self, output: &Path, format: Foreign, measures: bool) -> Result<(), Failure> {
        let loras = self.recipe.loras.paths();
        let measured =
            [self.recipe.measurements.as_deref(), self.calibration.calibration.as_deref(), self.imatrix];
        let measured = measured.into_iter().flatten();
        let reads: Vec<&Path> = [self.source].into_iter().chain(loras).chain(measured).collect();
        let measurements = measurements_path(output);
        let mut outs = vec![match format {
            Foreign::Gguf => Out::file(output, self.force),
            Foreign::CompressedTensors => Out::new_folder(output),
        }];
        outs.extend(measures.then(|| Out::companion(&measurements)));
        guard::check(&outs, &reads)?;
        if measures { measure::refuse_foreign(&measurements) } else { Ok(()) }
    }

    fn place<'a>(&self, opened: &'a Opened) -> Place<'a> {
        Place { path: &opened.path, restart: self.restart, keep: self.keep_measurements }
    }

    /// Measures, or reads what was measured; nothing is measured for a dry run. `bytes` are those of the output, `stages`
    /// what comes after measuring.
    pub fn measure<'a>(
        &'a self,
        opened: &'a Opened,
        bytes: u64,
        stages: impl IntoIterator<Item = Stage>,
        global: &Global,
    ) -> Result<Measured<'a>, Failure> {
        let checkpoint = &opened.checkpoint;
        refuse_memory(checkpoint, self.recipe.max_memory, global.threads())?;
        let resources = Resources { threads: global.threads(), max_memory: self.recipe.max_memory };
        let mut job = Job::new(checkpoint, self.recipe, opened.calibrate.clone(), resources)?;
        // What a .gq file would keep without loss is not what another format does.
        job.draft = None;
        let place = self.place(opened);
        let measures = match &job.calibrate {
            Calibrate::Measure(how) if !self.dry_run => {
                calibration_text::refuse_short(checkpoint, how)?;
                job.room_for(&place, bytes, global)?;
                true
            }
            _ => false,
        };
        if !self.dry_run && !measures {
            guard::space(&opened.path, bytes)?;
        }
        let mut all = if measures { job.stages(true, global)? } else { Vec::new() };
        all.retain(|stage| stage.name != "grids" && stage.name != "coding");
        all.extend(stages);
        let mut progress = Progress::staged(global, "convert", all);
        let uncalibrated = job.uncalibrated();
        if let Some(why) = uncalibrated {
            global.output().note(&sentence(why));
        }
        let (measurements, draft) = match (self.dry_run, &job.calibrate) {
            (true, Calibrate::Measure(_)) => (None, "a draft: `gq convert` measures first\n"),
            _ => (job.measurements(&place, &mut progress, global)?, ""),
        };
        Ok(Measured { job, progress, measurements, uncalibrated, draft })
    }

    /// What becomes of the measurements, in a line.
    pub fn tidy(
        &self,
        opened: &Opened,
        job: &Job<'_>,
        measurements: Option<&MeasurementsDir>,
        format: Foreign,
    ) -> Result<String, Failure> {
        let command = format!("gq convert {} {}", self.source.display(), format.option());
        job.tidy(measurements, &self.place(opened), &command)
    }
}

impl Opened {
    /// Measures nothing that types are chosen by, unless it is asked for: they are given.
    pub fn without_sensitivities(&mut self, given: &CalibrationArgs) {
        if let Calibrate::Measure(how) = &mut self.calibrate {
            how.gradient_tokens = given.gradient_tokens.unwrap_or(0);
            how.trial_tokens = given.trial_tokens.unwrap_or(0);
        }
    }

    /// What an interruption leaves and removes.
    pub fn work(&self) -> Work {
        let begun = [guard::candidate(&self.path), gq_files::partial_path(&guard::candidate(&self.path))];
        let work = Work::that_continues([]);
        let work = work.removing(begun.into_iter().chain([guard::candidate_mark(&self.path)]));
        let work = work.making([self.path.clone()], "only its summary was not shown");
        measure::keeping(work, &measurements_path(&self.path))
    }
}

/// What is said of how codes were rounded.
pub fn rounding(measured: Option<&Measurements>, opened: &Opened) -> &'static str {
    match (measured, &opened.importances) {
        (Some(_), _) => "error feedback by second moments of inputs",
        (None, Some(_)) => "nearest by an importance matrix",
        (None, None) => "nearest",
    }
}

/// The failure of a budget that cannot be spent.
pub fn not_spent(error: ChooseError) -> Failure {
    match error {
        ChooseError::TooSmall { limit, actual } => {
            Failure::new(Exit::Usage, "plan.budget", error).limit(limit).actual(actual)
        }
        ChooseError::NotFinite { .. } => {
            Failure::new(Exit::Input, "plan.errors", error).limit("finite errors").actual("none")
        }
    }
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
                "rounding takes up to {} of memory, --max-memory allows {}",
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
    let what = "weights are rounded to nearest and bytes go where such tensors usually need them";
    if why == Why::Importance {
        return format!(
            "not calibrated: an importance matrix says what columns count, and nothing of feedback: {what}; closer: the \
             same with --calibration in its place"
        );
    }
    match why {
        Why::Large(weights) => format!(
            "not calibrated: with {} billion weights that takes long and is left to you: {what}; calibrated: \
             `{calibrated}`",
            units::billions(weights)
        ),
        Why::NoTokenizer => {
            format!("not calibrated: the checkpoint has no tokenizer to read a calibration text with; {what}")
        }
        Why::Asked | Why::Encoding | Why::Importance => format!("not calibrated, as asked: {what}"),
    }
}
