//! `gq convert`: a checkpoint becomes one file.

use crate::cli::Global;
use crate::commands::calibration::{Calibrate, CalibrationArgs, Measuring, Why};
use crate::commands::outcome::{self, Made};
use crate::commands::recipe::Recipe;
use crate::commands::target_kld::{self, Measured};
use crate::commands::{calibrate, plan};
use crate::failure::{Exit, Failure};
use crate::grid_cache::GridCache;
use crate::guard::{self, Force, Out};
use crate::progress::{self, Progress, Stage, Unit};
use crate::search_folder::SearchFolder;
use crate::seen::{Checker, NoCheck};
use crate::signals::{self, Work};
use crate::{encodings, expected, source, units};
use gq_checkpoint::Checkpoint;
use gq_convert::{
    Check, Event, ExecuteOptions, Grids, Measurements, Plan, PlanError, Policy, Report, Resources,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Quantize a checkpoint into one .gq file that holds everything needed to run it.
///
/// By default the checkpoint is calibrated first: codes are rounded with error feedback by the second moments of their
/// inputs, and a budget of 4.25 bits per weight of the body and 6.5 of embedding and head, spent together, goes where
/// the output distribution is most sensitive, as measured on a text that comes with gq. How much is measured depends on
/// the model alone: the same command gives the same bytes on every machine.
/// Weights that are quantized already (on a grid of few bits) are found first and stored without loss.
///
/// An output that exists is refused; with --force it is replaced once the new file is complete.
/// The same command continues an interrupted conversion: gradients, layers and tensors that were done are kept.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{}{}", "\
Examples:
  gq convert ./SmolLM2-135M-Instruct                        calibrated: a good file, in minutes
  gq convert ./SmolLM2-135M-Instruct --size 91MB            the least divergence in so many bytes
  gq convert ./SmolLM2-135M-Instruct --target-kld 0.02      the smallest file within so much divergence
  gq convert ./SmolLM2-135M-Instruct --calibration texts/   on your own text
  gq convert ./SmolLM2-135M-Instruct --bits 4               in seconds, without calibration, at a higher divergence
  gq convert ./SmolLM2-135M-Instruct -o mine.gq --lora ./my-adapter --lora ./style=0.5

Several sizes, calibrated once and more thoroughly:
  gq calibrate ./SmolLM2-135M-Instruct -o smol.measurements
  gq convert ./SmolLM2-135M-Instruct --measurements smol.measurements --size 80MB

", encodings::list()))]
pub struct ConvertArgs {
    /// Checkpoint directory, a GGUF, or a repository (hf://ORG/NAME, hf://ORG/NAME@REV).
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// File to write [default: the source's name and what was asked for, such as SmolLM2-135M-4.25bpw.gq].
    #[arg(short, long, value_name = "OUT.gq")]
    output: Option<PathBuf>,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    calibration: CalibrationArgs,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    no_check: NoCheck,
    /// Show the plan and stop.
    #[arg(long)]
    dry_run: bool,
    /// Keep what was measured, in OUT.gq.measurements: further sizes can be made from it with --measurements.
    #[arg(long)]
    keep_measurements: bool,
    /// Discard an interrupted conversion to the same output instead of resuming it.
    #[arg(long)]
    restart: bool,
}

pub fn run(args: &ConvertArgs, global: &Global) -> Result<(), Failure> {
    if let Some(output) = args.output.as_deref().filter(|_| !args.dry_run) {
        guarded(args, output, false)?;
    }
    Calibrate::check_names(&args.recipe, &args.calibration)?;
    let found = source::find(&args.source, global)?;
    if args.dry_run {
        return plan::show(&found, (&args.recipe, &args.calibration), false, global);
    }
    let began = Instant::now();
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.recipe.loras, global)?);
    source::refuse_quantized(&checkpoint, args.recipe.allow_requantize)?;
    let output = global.output();
    let calibrate = Calibrate::resolve(&args.recipe, &args.calibration, &checkpoint)?;
    let output_path = args.output.clone().unwrap_or_else(|| args.recipe.file_name(&found.name, &calibrate));
    guarded(args, &output_path, matches!(calibrate, Calibrate::Measure(_)))?;
    let left = [".partial", ".journal", ".target-kld"].map(|end| gq_files::sibling(&output_path, end));
    let missing = format!("only its report was not shown: `gq inspect {}` shows it", output_path.display());
    let work = Work::that_continues(left).making([output_path.clone()], missing);
    let work = calibrate::keeping(work, &measurements_path(&output_path));
    let _work = signals::during(work);
    let checker = Checker::new(args.no_check, global).within(args.recipe.max_memory);
    let look = |path: &Path| checker.look(path).map_err(Into::into);
    if checker.may_tokenize(&checkpoint)? {
        source::try_checkpoints_tokenizer(&checkpoint, output)?;
    }
    checker.texts(&checkpoint)?;
    let command = format!("gq convert {}", args.source.display());
    let resources = Resources { threads: global.threads(), max_memory: args.recipe.max_memory };
    args.recipe.asked().check(&checkpoint, &args.recipe.policy(&checkpoint, None), resources)?;
    if let Calibrate::Measure(how) = &calibrate {
        calibrate::refuse_short(&checkpoint, how)?;
    }
    let mut job = Job::new(&checkpoint, &args.recipe, calibrate, resources)?;
    let place = Place { path: &output_path, restart: args.restart, keep: args.keep_measurements };
    job.room(&place, global)?;
    let mut progress = Progress::staged(global, "convert", job.stages(args.keep_measurements, global)?);
    job.find_grids(&mut progress, global)?;
    let uncalibrated = job.uncalibrated();
    if let Some(why) = uncalibrated {
        output.note(&why.sentence(&command));
        job.tell_calibrated(why, args, global)?;
    }
    // Grids may have decided what was open before.
    job.room(&place, global)?;
    let stages = job.stages(args.keep_measurements, global)?;
    if let Some(line) = progress.revise(&stages).then(|| progress::expectation(&stages)).flatten() {
        output.note(&format!("with what needs no measuring left out, convert takes {line}"));
    }
    let measurements = job.measurements(&place, &mut progress, global)?;
    let policy = args.recipe.policy(&checkpoint, measurements.as_ref());
    let how = ExecuteOptions {
        level: global.isa()?,
        restart: args.restart,
        measurements: measurements.as_ref(),
        origin: found.origin.as_ref(),
        check: Some(Check(&look)),
        existing: args.force.existing(),
    };
    let (report, plan, measured) = match (args.recipe.target_kld, &measurements) {
        (Some(limit), Some(measurements)) if keeps_text(measurements, global)? => {
            progress.finish();
            let job = target_kld::Job {
                checkpoint: &checkpoint,
                policy: &policy,
                measurements,
                limit,
                grids: &job.grids,
            };
            let (report, plan, measured) = target_kld::convert(job, resources, &output_path, how, global)?;
            (report, plan, Some(measured))
        }
        _ => {
            let grids = Some(&job.grids);
            let plan =
                gq_convert::plan_measured(&checkpoint, &policy, resources, measurements.as_ref(), grids)?;
            let report = execute(&checkpoint, &plan, &output_path, how, &mut progress, global)?;
            progress.finish();
            outcome::notes(&plan, &job.grids, output);
            (report, plan, None)
        }
    };
    let kept = job.tidy(measurements.as_ref(), &place, &command)?;
    source::warn_incomplete(&checkpoint, output);
    let seconds = began.elapsed().as_secs_f64();
    let file_bytes = std::fs::metadata(&output_path).map_err(|e| Failure::io(&output_path, &e))?.len();
    if output.json {
        return output.document(&serde_json::json!({
            "output": output_path.display().to_string(),
            "file_bytes": file_bytes,
            "seconds": seconds,
            "expected_divergence": plan.expected_divergence,
            "uncalibrated": uncalibrated.map(Why::name),
            "report": report,
            "measured": measured,
            "seen": checker.seen(),
        }));
    }
    let made = Made { report: &report, path: &output_path, bytes: file_bytes, seconds };
    let close = match measured {
        Some(measured) => kept_to(&measured),
        None => outcome::expectation(&plan).unwrap_or_default(),
    };
    output.data(&(outcome::summary(&made, output.quiet) + &close + &checker.seen().line() + &kept))
}

/// Refuses an output that must not be written, and folders next to it that are not what a conversion makes there; one that
/// `measures` has one more.
fn guarded(args: &ConvertArgs, output: &Path, measures: bool) -> Result<(), Failure> {
    let loras = args.recipe.loras.paths();
    let calibration = args.calibration.calibration.as_deref();
    let measured = [args.recipe.measurements.as_deref(), calibration];
    let reads: Vec<&Path> =
        [&*args.source].into_iter().chain(loras).chain(measured.into_iter().flatten()).collect();
    let measurements = measurements_path(output);
    let search = SearchFolder::path(output);
    let mut outs = vec![Out::file(output, args.force)];
    outs.extend(measures.then(|| Out::beside(&measurements)));
    outs.extend(args.recipe.target_kld.map(|_| Out::beside(&search)));
    guard::check(&outs, &reads)?;
    if measures {
        calibrate::refuse_foreign(&measurements)?;
    }
    match args.recipe.target_kld {
        Some(_) => SearchFolder::refuse_foreign(&search),
        None => Ok(()),
    }
}

/// Where a file goes, and what becomes of what is there.
struct Place<'a> {
    path: &'a Path,
    restart: bool,
    keep: bool,
}

/// A conversion of which everything is known but what is to be measured.
struct Job<'a> {
    checkpoint: &'a Arc<Checkpoint>,
    recipe: &'a Recipe,
    calibrate: Calibrate,
    resources: Resources,
    grids: Grids,
    /// What it would be without measurements; `None` where nothing can be planned without.
    draft: Option<Plan>,
}

impl<'a> Job<'a> {
    /// Before anything was looked at: what is wrong already is said alone.
    fn new(
        checkpoint: &'a Arc<Checkpoint>,
        recipe: &'a Recipe,
        calibrate: Calibrate,
        resources: Resources,
    ) -> Result<Job<'a>, Failure> {
        let (policy, grids) = (recipe.policy(checkpoint, None), Grids::default());
        let draft = match gq_convert::plan_measured(checkpoint, &policy, resources, None, None) {
            Ok(plan) => Some(plan),
            // Grids may say otherwise, and of a divergence nothing is known yet.
            Err(PlanError::OffGrid { .. } | PlanError::Budget { .. } | PlanError::NotMeasured) => None,
            Err(error) => return Err(error.into()),
        };
        Ok(Job { checkpoint, recipe, calibrate, resources, grids, draft })
    }

    /// Looks for grids, and says what cannot be done before anything is measured.
    fn find_grids(&mut self, progress: &mut Progress, global: &Global) -> Result<(), Failure> {
        let policy = self.recipe.policy(self.checkpoint, None);
        self.grids = grids(self.checkpoint, &policy, self.resources, progress)?;
        let plan =
            || gq_convert::plan_measured(self.checkpoint, &policy, self.resources, None, Some(&self.grids));
        self.draft = if self.recipe.target_kld.is_none() { Some(plan()?) } else { None };
        let left_out = self.measuring(false).map_or(0, |how| how.without.len());
        let exact = self.checkpoint.tensors().iter().filter(|tensor| tensor.shape.len() < 2).count();
        if left_out > exact {
            let matrices = left_out - exact;
            global
                .output()
                .note(&format!("{matrices} matrices are stored without loss: they are not measured"));
        }
        Ok(())
    }

    /// Refuses to begin what would not fit on the disk, as far as it is known yet.
    fn room(&self, place: &Place<'_>, global: &Global) -> Result<(), Failure> {
        let payload = self.draft.as_ref().map_or(0, |plan| plan.payload_bytes);
        let max_memory = self.resources.max_memory;
        let measuring = self.measuring(place.keep).map(|how| {
            calibrate::room(self.checkpoint, &how, &measurements_path(place.path), max_memory, global)
        });
        let measuring = measuring.transpose()?.unwrap_or_default();
        guard::space(place.path, measuring.needed(payload))
    }

    /// Why nothing is measured where that costs something: what is stored without loss could not be closer.
    fn uncalibrated(&self) -> Option<Why> {
        match self.calibrate {
            Calibrate::Without(why) if !self.draft.as_ref().is_some_and(Plan::is_lossless) => Some(why),
            _ => None,
        }
    }

    /// What is measured, less what is stored without loss whatever is measured; `None`: there is nothing to measure.
    fn measuring(&self, all: bool) -> Option<Measuring> {
        let Calibrate::Measure(how) = &self.calibrate else { return None };
        let certain = self.draft.as_ref().filter(|_| !all).map(Plan::certain).unwrap_or_default();
        let how = how.clone().leaving_out(certain, self.checkpoint);
        how.wants_some(self.checkpoint).then_some(how)
    }

    /// The stages from here on.
    fn stages(&self, all: bool, global: &Global) -> Result<Vec<Stage>, Failure> {
        let mut stages = vec![expected::grids(self.checkpoint, global)?];
        if let Some(how) = self.measuring(all) {
            stages.extend(expected::measuring(self.checkpoint, &how, global)?);
        }
        let calibrated = !matches!(self.calibrate, Calibrate::Without(_));
        match (&self.draft, self.recipe.target_kld) {
            (Some(plan), _) => stages.push(expected::coding(plan, calibrated, global)?),
            // How many files it takes is not known; each has a bar of its own.
            (None, Some(_)) => {}
            (None, None) => stages.push(Stage { name: "coding", unit: Unit::Bytes, total: 1, seconds: None }),
        }
        Ok(stages)
    }

    /// The measurements that codes are rounded by, read, taken up or made.
    fn measurements(
        &self,
        place: &Place<'_>,
        progress: &mut Progress,
        global: &Global,
    ) -> Result<Option<Measurements>, Failure> {
        let max_memory = self.resources.max_memory;
        let dir = measurements_path(place.path);
        let measured = match (&self.calibrate, self.measuring(place.keep)) {
            (Calibrate::Measured | Calibrate::Without(_), _) => None,
            (Calibrate::Measure(_), None) => {
                global.output().note("every weight is stored without loss: nothing is measured");
                None
            }
            (Calibrate::Measure(_), Some(how)) => {
                if place.restart {
                    Measurements::discard(&dir)?;
                }
                let (source, dir) = (self.checkpoint, &dir);
                Some(calibrate::finished_or_measured(source, &how, dir, max_memory, progress, global)?)
            }
        };
        self.recipe.measurements(self.checkpoint, measured)
    }

    /// What becomes of the measurements, in a line.
    fn tidy(
        &self,
        measurements: Option<&Measurements>,
        place: &Place<'_>,
        command: &str,
    ) -> Result<String, Failure> {
        let (Calibrate::Measure(_), Some(measurements)) = (&self.calibrate, measurements) else {
            return Ok(String::new());
        };
        let dir = measurements_path(place.path);
        if place.keep {
            let dir = dir.display();
            return Ok(format!(
                "measurements kept: another size takes seconds with `{command} --measurements {dir} --size …`\n"
            ));
        }
        measurements.remove()?;
        Ok("measurements removed; --keep-measurements, or `gq calibrate`, leaves them for further sizes\n"
            .to_owned())
    }

    /// What the calibrated command would take here, where a large model was not calibrated.
    fn tell_calibrated(&self, why: Why, args: &ConvertArgs, global: &Global) -> Result<(), Failure> {
        if let Why::Large(_) = why {
            let how = args.calibration.quick(self.checkpoint);
            if let Some(line) = progress::expectation(&expected::measuring(self.checkpoint, &how, global)?) {
                global.output().note(&format!("measuring for that takes {line}"));
            }
        }
        Ok(())
    }
}

/// Whether the text that a finished file is measured on was kept.
fn keeps_text(measurements: &Measurements, global: &Global) -> Result<bool, Failure> {
    let kept = !measurements.held_out()?.is_empty();
    if !kept {
        global.output().note(
            "these measurements keep no held-out text: --target-kld holds for what is expected; `gq calibrate` again for what is measured",
        );
    }
    Ok(kept)
}

fn kept_to(measured: &Measured) -> String {
    format!(
        "divergence {:.4} of at most {} nats per token, measured on {} held-out tokens; files made: {}\n",
        measured.kld,
        measured.limit,
        units::count(measured.tokens as u64),
        measured.files,
    )
}

/// Plans without measurements and executes, with progress.
pub fn convert(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    path: &Path,
    options: ExecuteOptions<'_>,
    global: &Global,
) -> Result<Report, Failure> {
    let grids = grids_shown(checkpoint, policy, resources, global)?;
    let plan = gq_convert::plan_measured(checkpoint, policy, resources, options.measurements, Some(&grids))?;
    guard::space(path, plan.payload_bytes)?;
    let output = global.output();
    let mut progress = Progress::new(global.progress, output, "convert", Unit::Bytes, plan.source_bytes);
    let report = execute(checkpoint, &plan, path, options, &mut progress, global)?;
    progress.finish();
    outcome::notes(&plan, &grids, output);
    Ok(report)
}

/// Executes a plan, with progress in the stage of coding.
pub fn execute(
    checkpoint: &Checkpoint,
    plan: &Plan,
    path: &Path,
    options: ExecuteOptions<'_>,
    progress: &mut Progress,
    global: &Global,
) -> Result<Report, Failure> {
    let output = global.output();
    let report = gq_convert::execute(plan, checkpoint, path, options, &mut |event| match event {
        Event::Resumed { tensors } => {
            output.note(&format!("taking up an interrupted conversion: {tensors} tensors are done"));
        }
        Event::Advanced { bytes, tensor } => progress.stage("coding", (bytes, plan.source_bytes), tensor),
        Event::Finished { .. } => {}
    })?;
    Ok(report)
}

/// Looks for grids that the weights already sit on, with progress in a stage of its own; what was found before is taken
/// from the cache.
pub fn grids(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    progress: &mut Progress,
) -> Result<Grids, Failure> {
    let cache = GridCache::of(checkpoint, policy);
    if let Some(found) = cache.as_ref().and_then(GridCache::get) {
        return Ok(found);
    }
    let total = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(resources.threads).build();
    let pool = pool.map_err(gq_convert::ConvertError::from)?;
    let mut seen = |bytes: u64, tensor: &str| progress.stage("grids", (bytes, total), tensor);
    let found = pool.install(|| Grids::find(checkpoint, policy, &mut seen))?;
    if let Some(cache) = cache {
        cache.keep(&found);
    }
    Ok(found)
}

/// The same with a bar of its own.
pub fn grids_shown(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    global: &Global,
) -> Result<Grids, Failure> {
    let (unit, output) = (Unit::Bytes, global.output());
    let mut progress = Progress::new(global.progress, output, "look for grids", unit, 1);
    let found = grids(checkpoint, policy, resources, &mut progress);
    progress.finish();
    found
}

/// `path.measurements`: measurements made for one conversion, kept until it is done.
fn measurements_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".measurements");
    PathBuf::from(name)
}

impl From<gq_convert::PolicyError> for Failure {
    fn from(error: gq_convert::PolicyError) -> Failure {
        use gq_convert::PolicyError as E;
        let message = error.to_string();
        match error {
            E::Pattern { pattern, actual } => {
                Failure::new(Exit::Usage, "override.pattern", message).at(pattern).actual(actual)
            }
            E::Unmatched { pattern, tensors } => Failure::new(Exit::Usage, "override.unmatched", message)
                .at(pattern)
                .limit("at least 1 match")
                .actual(format!("0 of {tensors} tensors")),
        }
    }
}
