//! `gq improve --rounds`: rounds a finished file's layers again, each with the inputs that it gets behind the ones before it.

use crate::adapters::Adapters;
use crate::cli::Global;
use crate::commands::{calibration, calibrate};
use crate::failure::{Exit, Failure};
use crate::guard::{self, Force, Out};
use crate::progress::Progress;
use crate::seen::{self, Checker, NoCheck};
use crate::signals::{self, Work};
use crate::table::Table;
use crate::{expected, source, units};
use gq_container::Container;
use gq_convert::{
    Effort, MeasuringMemory, MeasuringSize, RoundAgain, RoundAgainError, RoundAgainEvent, RoundAgainOptions,
    RoundedAgainOutcome, Measurements,
};
use gq_model::{ActivationMode, KvType, Model, RunOptions, Tokenizer};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Round the layers of a .gq file again, one after the other, each with the inputs that it gets behind those already
/// rounded: the same encodings and size, closer.
///
/// Old and new codes of every tensor compete on held-out text, and so do the old and the new file: the file is kept as it
/// was when it does not get closer. Before `gq improve --scales`, where both are wanted.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq improve --rounds smol-3bit.gq --reference ./SmolLM2-135M --measurements smol.measurements --calibration texts/
  gq improve --rounds smol-3bit.gq --reference ./SmolLM2-135M --calibration self -o smol-3bit-again.gq

Time is about that of 5 forward passes over the text, and of rounding anew.")]
pub struct RoundsArgs {
    /// File to round again.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it was made from: checkpoint directory, GGUF, or a repository on the Hub.
    #[arg(long, value_name = "REF")]
    reference: PathBuf,
    #[command(flatten)]
    loras: Adapters,
    /// Measurements made by `gq calibrate` on the same checkpoint: their gradients weigh the rows of trellis codes.
    #[arg(long, value_name = "DIR")]
    measurements: Option<PathBuf>,
    /// Text to measure inputs on: a file, a directory whose .txt and .md files count equally, `self`, or what comes with
    /// gq.
    #[arg(long, value_name = "FILE|DIR|builtin|self")]
    calibration: Option<PathBuf>,
    /// Tokens to measure inputs on [default: 300 per input dimension, at most 131072].
    #[arg(long, value_name = "N")]
    calibration_tokens: Option<usize>,
    /// Tokens of a sequence.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = calibration::sequence_length)]
    calibration_ctx: usize,
    /// Most memory, such as 4GiB: hidden states that do not fit lie in a file beside the output meanwhile.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    max_memory: Option<u64>,
    /// Where to write [default: in place of FILE].
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    no_check: NoCheck,
}

pub fn run(args: &RoundsArgs, global: &Global) -> Result<(), Failure> {
    let loras = args.loras.paths();
    let texts = [args.measurements.as_deref(), args.calibration.as_deref()].into_iter().flatten();
    let reads: Vec<&Path> = [&*args.file, &args.reference].into_iter().chain(loras).chain(texts).collect();
    guard::check(&[Out::or_in_place(args.output.as_deref(), &args.file, args.force)], &reads)?;
    let path = args.output.as_ref().unwrap_or(&args.file);
    let useless = ["", ".partial", ".states.partial", ".codes.partial", ".trial", ".trial.partial"];
    let useless = useless.map(|end| gq_files::sibling(&seen::candidate(path), end));
    let work = Work::begun_again(useless).leaving(&args.file);
    let _work = signals::during(work.making([path.clone()], "only its summary was not shown"));
    let level = global.isa()?;
    let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
    let container = Arc::new(Container::open(&args.file)?);
    let model = Model::from_container(container.clone(), options)?;
    let found = source::find(&args.reference, global)?;
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.loras, global)?);
    let measured = args.measurements.as_deref().map(Measurements::open).transpose()?;
    if let Some(measured) = &measured {
        measured.check_source(&gq_convert::source_files(&checkpoint))?;
    }
    let reference = Model::from_checkpoint_unheld(checkpoint.clone(), options)?;
    let tokenizer = Tokenizer::new(reference.texts(), reference.spec())?;
    let tokens = args.calibration_tokens.unwrap_or_else(|| calibration::default_tokens(&checkpoint));
    let spec = checkpoint.spec();
    let calibration = args.calibration.as_deref();
    let held = checkpoint.held_bytes(global.threads());
    let left = args.max_memory.map(|limit| limit.saturating_sub(held));
    let writing = calibrate::Writing::of(calibration, spec, args.calibration_ctx, left, global)?;
    // Refused before anything is written or measured: how long the text is is known later.
    let expected_size = |sequences: usize, ctx: usize| MeasuringSize {
        sequences,
        ctx,
        gradients: false,
        trial_tokens: 0,
        threads: global.threads(),
        held,
    };
    let size = expected_size(tokens.div_ceil(args.calibration_ctx.max(1)), args.calibration_ctx);
    let spilled = MeasuringMemory::rounding_again(spec, size, args.max_memory)?.spilled;
    guard::space(path, container.file_bytes().saturating_mul(2).saturating_add(spilled))?;
    let mut progress = calibrate::writing(global);
    let mut seen = |done: u64, of: u64| progress.stage("", (done, of), "own text");
    let (texts, sequences) = calibrate::sequences(
        args.calibration.as_deref(),
        (&reference, &tokenizer),
        (tokens, args.calibration_ctx),
        left,
        global,
        &mut seen,
    )?;
    progress.finish();
    let size = expected_size(sequences.len(), sequences.iter().map(Vec::len).max().unwrap_or(0));
    let mut memory = MeasuringMemory::rounding_again(spec, size, args.max_memory)?;
    memory.peak = memory.peak.max(writing.peak + held);
    global.output().note(&calibrate::memory_line(memory));
    let options = RoundAgainOptions {
        level,
        measurements: measured.as_ref(),
        text_sha256: gq_convert::texts_digest(&texts),
        max_memory: args.max_memory,
    };
    let of = checkpoint.spec().layers.len() + 1;
    let output = global.output();
    let tokens = sequences.iter().map(Vec::len).sum();
    let effort = Effort::new(&checkpoint, &|_| true).rounding_again(tokens);
    let mut progress =
        Progress::staged(global, "reround", expected::single("layers", of as u64, effort, global)?);
    let what =
        RoundAgain { checkpoint: &checkpoint, reference: &reference, container: &container, model: &model };
    let checker = Checker::new(args.no_check, global).within(args.max_memory);
    let outcome = source::with_threads(global, || {
        let named = (path.as_path(), args.force.existing_or_in_place(args.output.as_deref()));
        let unchanged = || match args.output {
            Some(_) => Ok(container.check_unchanged()?),
            None => Ok(container.check_still_named()?),
        };
        checker.through(named, &unchanged, |path| {
            let outcome = what.run(&sequences, &options, path, &mut |event| {
                let RoundAgainEvent::Layers { done, .. } = event;
                progress.set(done as u64, "layers");
            })?;
            if !outcome.helps() && args.output.is_some() {
                container.copy_to(path)?;
            }
            Ok(outcome)
        })
    })??;
    let seconds = progress.finish();
    let bytes = std::fs::metadata(path).map_err(|error| Failure::io(path, &error))?.len();
    if output.json {
        let tensors = outcome.tensors.iter().map(|tensor| {
            serde_json::json!({
                "name": tensor.name,
                "strength": tensor.strength,
                "held_out": {"before": tensor.held_out.0, "after": tensor.held_out.1},
                "in_sample": tensor.in_sample,
                "taken": tensor.taken,
            })
        });
        return output.document(&serde_json::json!({
            "output": path.display().to_string(),
            "helped": outcome.helps(),
            "bytes": bytes,
            "held_out": {
                "before": outcome.before,
                "after": outcome.after,
                "tokens": outcome.compared_tokens,
            },
            "chosen_on_tokens": outcome.held_out_tokens,
            "tokens": outcome.tokens,
            "tensors": tensors.collect::<Vec<_>>(),
            "peak_memory_bytes": memory.peak,
            "seconds": seconds,
            "seen": checker.seen(),
        }));
    }
    let verdict = match outcome.helps() {
        true => format!("{:.1} % closer", 100.0 * (1.0 - outcome.after / outcome.before)),
        false => "no closer: left as it was".to_owned(),
    };
    output.data(&format!(
        "{}\n{}: {}, divergence on {} held-out tokens {:.4} -> {:.4}, {verdict}, in {}\n{}",
        summary(&outcome, &checkpoint).render(),
        path.display(),
        units::bytes(bytes),
        units::count(outcome.compared_tokens as u64),
        outcome.before,
        outcome.after,
        units::seconds(seconds),
        checker.seen().line(),
    ))
}

/// Sums over the tensors of one role.
#[derive(Default)]
struct OfRole {
    role: String,
    count: usize,
    taken: usize,
    strength: f64,
    before: f64,
    after: f64,
}

/// What came of the tensors, by role.
fn summary(outcome: &RoundedAgainOutcome, checkpoint: &gq_checkpoint::Checkpoint) -> Table {
    let mut roles: Vec<OfRole> = Vec::new();
    for tensor in &outcome.tensors {
        let Some(source) = checkpoint.tensor(&tensor.name) else { continue };
        let role = source.role.to_string();
        let index = roles.iter().position(|other| other.role == role).unwrap_or_else(|| {
            roles.push(OfRole { role, ..OfRole::default() });
            roles.len() - 1
        });
        let Some(sums) = roles.get_mut(index) else { continue };
        sums.count += 1;
        sums.taken += usize::from(tensor.taken);
        sums.strength += tensor.strength;
        sums.before += tensor.held_out.0;
        sums.after += if tensor.taken { tensor.held_out.1 } else { tensor.held_out.0 };
    }
    let mut table =
        Table::new(&["<tensors of", "count", "new codes", "mean strength", "held-out error", "now"]);
    for OfRole { role, count, taken, strength, before, after } in roles {
        let each = count as f64;
        table.row([
            role,
            units::count(count as u64),
            units::count(taken as u64),
            format!("{:.2}", strength / each),
            format!("{:.4}", before / each),
            format!("{:.4}", after / each),
        ]);
    }
    table
}

impl From<RoundAgainError> for Failure {
    fn from(error: RoundAgainError) -> Failure {
        use RoundAgainError as E;
        let message = error.to_string();
        let input = |code| Failure::new(Exit::Input, code, message);
        match error {
            E::Measure(error) => error.into(),
            E::NotFinite(error) => error.into(),
            E::Model(error) => error.into(),
            E::Load(error) => error.into(),
            E::Measurements(error) => error.into(),
            E::Container(error) => error.into(),
            E::Text(error) => error.into(),
            E::Write(error) => error.into(),
            E::Io { path, source } => Failure::io(&path, &source),
            E::OtherSource { limit, actual, .. } => {
                input("improve.source").at("--reference").limit(limit).actual(actual)
            }
            E::Nothing => input("improve.nothing"),
            E::Moment { tensor, .. } | E::Overflow { tensor } | E::Payload { tensor } => {
                input("improve.tensor").at(tensor)
            }
            E::Read(_) | E::Coder(_) | E::Rule(_) | E::Provenance(_) | E::Json { .. } => {
                input("improve.file")
            }
        }
    }
}
