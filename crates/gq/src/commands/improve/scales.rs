//! `gq improve --scales`: tunes the scales and norms of a finished file toward its reference, with codes as they are.

use crate::adapters::Adapters;
use crate::cli::Global;
use crate::commands::{calibration, calibrate};
use crate::failure::{Exit, Failure};
use crate::guard::{self, Force, Out};
use crate::progress::Progress;
use crate::seen::{self, Checker, NoCheck};
use crate::signals::{self, Work};
use crate::{expected, source, units};
use gq_container::Container;
use gq_convert::{Effort, ScalesError, ScalesEvent, ScalesOptions, ScalesTuned};
use gq_model::{ActivationMode, KvType, Model, RunOptions, Tokenizer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tune the scales and norms of a .gq file toward its original, with every code as it is: the same size, closer.
///
/// The file is kept as it was when text that the tuning never saw does not get closer.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq improve --scales smol-3bit.gq --reference ./SmolLM2-135M --calibration texts/
  gq improve --scales smol-3bit.gq --reference ./SmolLM2-135M --calibration self --steps 80 --batch 4 -o smol-3bit-tuned.gq

Time is about that of 10 forward passes over steps x batch x ctx tokens.")]
pub struct ScalesArgs {
    /// File to tune.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it was made from: checkpoint directory, GGUF, or a repository on the Hub.
    #[arg(long, value_name = "REF")]
    reference: PathBuf,
    #[command(flatten)]
    loras: Adapters,
    /// Text to tune on: a file, a directory whose .txt and .md files count equally, `self`, or what comes with gq.
    #[arg(long, value_name = "FILE|DIR|builtin|self")]
    calibration: Option<PathBuf>,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = calibration::sequence_length)]
    calibration_ctx: usize,
    /// Steps of the optimizer.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// Sequences per step.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Largest relative change of a row's scale per step.
    #[arg(long, value_name = "X", default_value_t = 0.003)]
    rate: f64,
    /// Where to write [default: in place of FILE].
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    no_check: NoCheck,
}

pub fn run(args: &ScalesArgs, global: &Global) -> Result<(), Failure> {
    let loras = args.loras.paths();
    let reads: Vec<&Path> =
        [&*args.file, &args.reference].into_iter().chain(loras).chain(args.calibration.as_deref()).collect();
    guard::check(&[Out::or_in_place(args.output.as_deref(), &args.file, args.force)], &reads)?;
    let path = args.output.as_ref().unwrap_or(&args.file);
    let candidate = seen::candidate(path);
    let partial = gq_files::partial_path(&candidate);
    let work = Work::begun_again([candidate, partial]).leaving(&args.file);
    let _work = signals::during(work.making([path.clone()], "only its summary was not shown"));
    if !(args.rate > 0.0 && args.rate <= 0.1) {
        let message = format!("--rate {} is not above 0 and at most 0.1", args.rate);
        return Err(Failure::new(Exit::Usage, "improve.rate", message)
            .at("--rate")
            .limit(0.1)
            .actual(args.rate));
    }
    let level = global.isa()?;
    let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
    let container = Arc::new(Container::open(&args.file)?);
    let model = Model::from_container(container.clone(), options)?;
    let found = source::find(&args.reference, global)?;
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.loras, global)?);
    let effort = Effort::new(&checkpoint, &|_| false);
    let reference = Model::from_checkpoint_unheld(checkpoint.clone(), options)?;
    let tokenizer = Tokenizer::new(reference.texts(), reference.spec())?;
    guard::space(path, container.file_bytes())?;
    let (steps, batch) = (usize::from(args.steps), usize::from(args.batch));
    // What is held out comes on top.
    let tokens = (steps * batch * 9).div_ceil(8).saturating_add(12) * args.calibration_ctx;
    let mut progress = calibrate::writing(global);
    let mut seen = |done: u64, of: u64| progress.stage("", (done, of), "own text");
    let (texts, sequences) = calibrate::sequences(
        args.calibration.as_deref(),
        (&reference, &tokenizer),
        (tokens, args.calibration_ctx),
        None,
        global,
        &mut seen,
    )?;
    progress.finish();
    let options = ScalesOptions { steps, batch, rate: args.rate };
    let effort = effort.tuning_scales(steps * batch * args.calibration_ctx);
    let total = (steps * batch) as u64;
    let mut progress =
        Progress::staged(global, "refine", expected::single("sequences", total, effort, global)?);
    let outcome = source::with_threads(global, || {
        let both = (&model, container.as_ref());
        gq_convert::refine(&reference, both, &sequences, options, &mut |event| {
            let ScalesEvent::Sequences { done, of } = event;
            progress.set_total(of as u64);
            progress.set(done as u64, "tuning");
        })
    })??;
    let seconds = progress.finish();
    let in_place = args.output.is_none();
    checkpoint.check_unchanged()?;
    container.check_unchanged()?;
    let checker = Checker::new(args.no_check, global);
    if outcome.helps() || !in_place {
        let scales_tuned = ScalesTuned {
            text_sha256: gq_convert::texts_digest(&texts).parse().map_err(|_| digest_failure())?,
            ctx: args.calibration_ctx as u64,
            batch: batch as u64,
            steps: steps as u64,
        };
        let named = (path.as_path(), args.force.existing_or_in_place(args.output.as_deref()));
        let unchanged = || match args.output {
            Some(_) => Ok(container.check_unchanged()?),
            None => Ok(container.check_still_named()?),
        };
        source::with_threads(global, || {
            checker.through(named, &unchanged, |path| match outcome.helps() {
                true => Ok(outcome.write(&container, &model, Some(scales_tuned), path)?),
                false => Ok(outcome.clone().unchanged().write(&container, &model, None, path)?),
            })
        })??;
    }
    let output = global.output();
    let bytes = std::fs::metadata(path).map_err(|error| Failure::io(path, &error))?.len();
    if output.json {
        return output.document(&serde_json::json!({
            "output": path.display().to_string(),
            "helped": outcome.helps(),
            "bytes": bytes,
            "held_out": {"before": outcome.before, "after": outcome.after, "tokens": outcome.held_out_tokens},
            "tokens": outcome.tokens,
            "seconds": seconds,
            "seen": checker.seen(),
        }));
    }
    let verdict = match outcome.helps() {
        true => format!("{:.1} % closer", 100.0 * (1.0 - outcome.after / outcome.before)),
        false => "no closer: left as it was".to_owned(),
    };
    output.data(&format!(
        "{}: {}, divergence on {} held-out tokens {:.4} -> {:.4}, {verdict}, in {}\n{}",
        path.display(),
        units::bytes(bytes),
        units::count(outcome.held_out_tokens as u64),
        outcome.before,
        outcome.after,
        units::seconds(seconds),
        checker.seen().line(),
    ))
}

fn digest_failure() -> Failure {
    Failure::new(Exit::Input, "improve.digest", "the text has no digest".to_owned())
}

impl From<ScalesError> for Failure {
    fn from(error: ScalesError) -> Failure {
        use ScalesError as E;
        let message = error.to_string();
        match error {
            E::NotFinite(error) => error.into(),
            E::Model(error) => error.into(),
            E::Container(error) => error.into(),
            E::Text(error) => error.into(),
            E::Write(error) => error.into(),
            E::Vocabulary { limit, actual } => Failure::new(Exit::Input, "improve.vocabulary", message)
                .at("--reference")
                .limit(limit)
                .actual(actual),
            E::TooShort { limit, actual } => Failure::new(Exit::Input, "improve.text", message)
                .at("--calibration")
                .limit(limit)
                .actual(actual),
            E::Nothing => Failure::new(Exit::Input, "improve.nothing", message),
            E::Rule(_) | E::Provenance(_) | E::Payload { .. } => {
                Failure::new(Exit::Input, "improve.file", message)
            }
        }
    }
}
