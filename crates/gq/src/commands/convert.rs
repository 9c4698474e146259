//! `gq convert`: a checkpoint becomes one file.

mod compressed;
mod gguf;
mod mix;

use crate::commands::plan;
use crate::export::tokens::Accepted;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::{Force, Out};
use crate::jobs::convert::{Job, Place, execute, measurements_path};
use crate::jobs::target_kld::Measured;
use crate::jobs::{calibration_text, measure, target_kld};
use crate::options::calibration::CalibrationArgs;
use crate::options::decision::{Calibrate, Why};
use crate::options::groups::GroupArgs;
use crate::options::recipe::Recipe;
use crate::outcome::Made;
use crate::progress::Progress;
use crate::search_folder::SearchFolder;
use crate::seen::{Checker, NoCheck};
use crate::signals::Work;
use crate::{encodings, guard, outcome, progress, signals, source, typed, units};
use gq_calibrate::MeasurementsDir;
use gq_convert::{Check, ExecuteOptions, Resources};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Quantize a checkpoint into one .gq file that holds everything needed to run it, into a GGUF, or into integers for vLLM.
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
  gq convert ./SmolLM2-135M-Instruct --format gguf --size 90MB    for llama.cpp and Ollama
  gq convert ./SmolLM2-135M-Instruct --format compressed-tensors --bpw 4.3    for vLLM
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
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// What to write: a .gq file, a GGUF in block types that llama.cpp and Ollama run, or a checkpoint directory of
    /// compressed-tensors, integers of 4 and 8 bits in groups, that vLLM and transformers run. A GGUF takes --size (of the
    /// whole file) or --bpw (mean bits of all its matrices, embedding and head among them; 5 unless told otherwise), which
    /// are spent over Q2_K to Q8_0; compressed-tensors --size (of all weights) or --bpw (mean bits of the layers'
    /// matrices; 4.5 unless told otherwise; embedding and head stay in bf16). Neither takes options about codes.
    #[arg(long, value_name = "FORMAT", default_value = "gq")]
    format: Format,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    groups: GroupArgs,
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
    /// Importance matrix of llama.cpp (`llama-imatrix`, `gq calibrate --imatrix`) to round a GGUF or compressed-tensors by, in
    /// the place of --calibration: columns count by it, without error feedback, and bytes go by what roles usually need.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["measurements", "calibration"])]
    imatrix: Option<PathBuf>,
    /// Types of a GGUF as llama-quantize gives them for this mix, such as Q4_K_M, in the place of a budget: its bytes, our
    /// rounding.
    #[arg(long, value_name = "MIX", value_parser = gguf::like::like, conflicts_with_all = ["size", "bpw", "fit", "target_kld"])]
    like: Option<gguf::like::Like>,
    /// Write a GGUF without the tokenizer's NFC, as `gq export --drop-nfc` does.
    #[arg(long)]
    drop_nfc: bool,
    /// Write a GGUF although text falls into other tokens in it, as `gq export --allow-other-tokens` does.
    #[arg(long)]
    allow_other_tokens: bool,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A .gq file.
    Gq,
    /// A GGUF.
    Gguf,
    /// A checkpoint directory in integer codes.
    CompressedTensors,
}

pub fn run(args: &ConvertArgs, global: &Global) -> Result<(), Failure> {
    refuse_others_options(args)?;
    match args.format {
        Format::Gq => {}
        Format::Gguf => {
            let accepted = Accepted { drop_nfc: args.drop_nfc, allow_other_tokens: args.allow_other_tokens };
            return gguf::run(&gguf::Asked { mix: as_mix(args), accepted, like: args.like }, global);
        }
        Format::CompressedTensors => {
            return compressed::run(&compressed::Asked { mix: as_mix(args), groups: &args.groups }, global);
        }
    }
    let began = Instant::now();
    if let Some(output) = args.output.as_deref().filter(|_| !args.dry_run) {
        guarded(args, output, false)?;
    }
    calibration_text::check_names(&args.recipe, args.calibration.calibration.as_deref())?;
    let found = source::find(&args.source, global)?;
    if args.dry_run {
        return plan::show(&found, &args.recipe, &args.calibration, plan::Shown::default(), global);
    }
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.recipe.loras, global)?);
    source::refuse_quantized(&checkpoint, args.recipe.allow_requantize)?;
    let output = global.output();
    let calibrate = Calibrate::resolve(&args.recipe, &args.calibration, &checkpoint)?;
    let output_path = args.output.clone().unwrap_or_else(|| args.recipe.file_name(&found.name, &calibrate));
    guarded(args, &output_path, matches!(calibrate, Calibrate::Measure(_)))?;
    let left = [".partial", ".journal", ".target-kld"].map(|end| gq_files::sibling(&output_path, end));
    let missing = format!("only its report was not shown: `gq inspect {}` shows it", output_path.display());
    let work = Work::that_continues(left).making([output_path.clone()], missing);
    let work = measure::keeping(work, &measurements_path(&output_path));
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
        calibration_text::refuse_short(&checkpoint, how)?;
    }
    let mut job = Job::new(&checkpoint, &args.recipe, calibrate, resources)?;
    let place = Place { path: &output_path, restart: args.restart, keep: args.keep_measurements };
    job.room(&place, global)?;
    let mut progress = Progress::staged(global, "convert", job.stages(args.keep_measurements, global)?);
    if let Some(line) = target_kld::expectation(&checkpoint, &args.recipe, &job.calibrate, resources, global)?
    {
        output.note(&line);
    }
    job.find_grids(&mut progress, global)?;
    let uncalibrated = job.uncalibrated();
    if let Some(why) = uncalibrated {
        output.note(&why.sentence(&command, &typed::calibrated_conversion()));
        job.tell_calibrated(why, args.calibration.quick(&checkpoint), global)?;
    }
    // Grids may have decided what was open before.
    job.room(&place, global)?;
    let stages = job.stages(args.keep_measurements, global)?;
    if let Some(line) = progress.revise(&stages).then(|| progress::expectation(&stages)).flatten() {
        output.note(&format!("with what needs no measuring left out, convert takes {line}"));
    }
    let measurements = job.measurements(&place, &mut progress, global)?;
    let value = measurements.as_ref().map(MeasurementsDir::value);
    let policy = args.recipe.policy(&checkpoint, value);
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
            let plan = gq_convert::plan_measured(&checkpoint, &policy, resources, value, grids)?;
            source::refuse_rounding(&checkpoint, &plan, args.recipe.allow_requantize)?;
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

/// Refuses options of a format that is not written.
fn refuse_others_options(args: &ConvertArgs) -> Result<(), Failure> {
    let gguf = [(args.drop_nfc, "--drop-nfc"), (args.allow_other_tokens, "--allow-other-tokens")];
    let gguf = gguf.into_iter().find(|(given, _)| *given).map(|(_, option)| option);
    let like = args.like.map(|_| "--like");
    if args.imatrix.is_some() && args.format == Format::Gq {
        let message = "--imatrix is for --format gguf and compressed-tensors: .gq files are rotated before they are rounded, and \
                       squares of single inputs say nothing there; --calibration measures";
        let failure = Failure::new(Exit::Usage, "convert.format_option", message).at("--imatrix");
        return Err(failure.limit("--format gguf or compressed-tensors").actual("gq"));
    }
    let others = [
        (like, Format::Gguf, "gguf: it takes a mix of llama-quantize"),
        (gguf, Format::Gguf, "gguf: other files carry the source's tokenizer as it is"),
        (
            args.groups.given(),
            Format::CompressedTensors,
            "compressed-tensors: other codes have groups of their own",
        ),
    ];
    for (option, format, why) in others {
        if let Some(option) = option.filter(|_| args.format != format) {
            let message = format!("{option} is for --format {why}");
            let failure = Failure::new(Exit::Usage, "convert.format_option", message).at(option);
            return Err(failure.limit(format!("--format {}", why.split(':').next().unwrap_or_default())));
        }
    }
    Ok(())
}

fn as_mix(args: &ConvertArgs) -> mix::Asked<'_> {
    mix::Asked {
        source: &args.source,
        output: args.output.as_deref(),
        recipe: &args.recipe,
        calibration: &args.calibration,
        force: args.force,
        no_check: args.no_check,
        imatrix: args.imatrix.as_deref(),
        dry_run: args.dry_run,
        keep_measurements: args.keep_measurements,
        restart: args.restart,
    }
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
    outs.extend(measures.then(|| Out::companion(&measurements)));
    outs.extend(args.recipe.target_kld.map(|_| Out::companion(&search)));
    guard::check(&outs, &reads)?;
    if measures {
        measure::refuse_foreign(&measurements)?;
    }
    match args.recipe.target_kld {
        Some(_) => SearchFolder::refuse_foreign(&search),
        None => Ok(()),
    }
}

/// Whether the text that a finished file is measured on was kept.
fn keeps_text(measurements: &MeasurementsDir, global: &Global) -> Result<bool, Failure> {
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
