//! `gq improve`: brings a finished file closer to its original at the same size. First its layers are rounded again, then
//! its scales and norms are tuned.

mod rounds;
mod scales;

use crate::adapters::Adapters;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::{Force, Out};
use crate::jobs::calibration_text::{TextSequences, TextWriter};
use crate::jobs::{calibration_text, measuring_memory};
use crate::options::{amounts, calibration};
use crate::progress::Progress;
use crate::seen::{Checker, Destination, NoCheck};
use crate::signals::Work;
use crate::{guard, signals, source, units};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_convert::{Effort, RoundedAgainOutcome, TunedScales};
use gq_model::{ActivationMode, KvType, Model, RunOptions};
use gq_text::Tokenizer;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Improve a .gq file at the same size: round its layers again, then tune its scales and norms.
///
/// --rounds rounds the layers again, one after the other, each with the inputs that it gets from the layers already
/// rounded. --scales tunes the scale of every row and the weights of norms by gradient descent; codes stay. Without
/// either, both are done. Encodings and size stay as they are. A step that does not lower the divergence on held-out text
/// changes nothing.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq improve smol-3bit.gq --reference ./SmolLM2-135M --measurements smol.measurements --calibration texts/
  gq improve smol-3bit.gq --reference ./SmolLM2-135M --calibration self -o smol-3bit-improved.gq
  gq improve --scales smol-3bit.gq --reference ./SmolLM2-135M --steps 80 --batch 4

Time: --rounds about 5 forward passes over the text and one conversion; --scales about 10 forward passes over steps x batch x ctx tokens.")]
pub struct ImproveArgs {
    /// File to improve.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What it was made from: checkpoint directory, GGUF, or a repository on the Hub.
    #[arg(long, value_name = "REF")]
    reference: PathBuf,
    #[command(flatten)]
    loras: Adapters,
    /// Round the layers again; alone, without --scales.
    #[arg(long)]
    rounds: bool,
    /// Tune scales and norms; alone, without --rounds.
    #[arg(long)]
    scales: bool,
    /// Calibration text: a file, a directory whose .txt and .md files count equally, `self` (what the model writes), or
    /// `builtin` [default: builtin].
    #[arg(long, value_name = "builtin|self|FILE|DIR")]
    calibration: Option<PathBuf>,
    /// Tokens of a calibration sequence.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = calibration::sequence_length)]
    calibration_ctx: usize,
    /// --rounds: tokens to measure inputs on [default: 300 per input dimension, at most 131072].
    #[arg(long, value_name = "N")]
    calibration_tokens: Option<usize>,
    /// --rounds: measurements made by `gq calibrate` on the same checkpoint; their gradients weigh the rows of trellis
    /// codes [default: all rows weigh the same].
    #[arg(long, value_name = "DIR")]
    measurements: Option<PathBuf>,
    /// --rounds: most memory, such as 4GiB; hidden states that do not fit are kept in a temporary file next to the output.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    max_memory: Option<u64>,
    /// --scales: steps of the optimizer [default: 32].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    steps: Option<u16>,
    /// --scales: sequences per step [default: 2].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    batch: Option<u16>,
    /// --scales: largest relative change of a row's scale per step [default: 0.003].
    #[arg(long, value_name = "X")]
    rate: Option<f64>,
    /// Where to write [default: in place of FILE].
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    no_check: NoCheck,
}

impl ImproveArgs {
    fn does_rounds(&self) -> bool {
        self.rounds || !self.scales
    }

    fn does_scales(&self) -> bool {
        self.scales || !self.rounds
    }

    /// Refuses options of a step that is not asked for, and text that there is not.
    fn check(&self) -> Result<(), Failure> {
        let of_rounds = [
            ("--calibration-tokens", self.calibration_tokens.is_some()),
            ("--measurements", self.measurements.is_some()),
            ("--max-memory", self.max_memory.is_some()),
        ];
        let of_scales = [
            ("--steps", self.steps.is_some()),
            ("--batch", self.batch.is_some()),
            ("--rate", self.rate.is_some()),
        ];
        for (step, done, options) in
            [("--rounds", self.does_rounds(), of_rounds), ("--scales", self.does_scales(), of_scales)]
        {
            if let Some((option, _)) = options.into_iter().find(|(_, given)| *given && !done) {
                let message = format!("{option} is an option of {step}, which is not asked for");
                let failure = Failure::new(Exit::Usage, "improve.option", message).at(option);
                return Err(failure.limit(step).actual(if done { step } else { "not asked for" }));
            }
        }
        calibration::refuse_none(self.calibration.as_deref(), "gq improve")
    }
}

/// What both steps need: the original, and how to report.
struct Original<'a> {
    args: &'a ImproveArgs,
    global: &'a Global,
    checkpoint: Arc<Checkpoint>,
    model: Model,
    tokenizer: Tokenizer,
    options: RunOptions,
    measurements: Option<MeasurementsDir>,
}

impl Original<'_> {
    /// Bytes that `--max-memory` leaves in addition to what the checkpoint keeps decoded.
    fn memory_left(&self) -> Option<u64> {
        let kept = self.checkpoint.held_bytes(self.global.threads());
        self.args.max_memory.map(|limit| limit.saturating_sub(kept))
    }

    /// The file that the first step made.
    fn reopened(&self, path: &Path) -> Result<(Arc<Container>, Model), Failure> {
        let container = Arc::new(Container::open(path)?);
        let model = Model::from_container(container.clone(), self.options)?;
        Ok((container, model))
    }

    /// About `tokens` tokens of the text asked for.
    fn text(&self, tokens: usize) -> Result<TextSequences, Failure> {
        let ctx = self.args.calibration_ctx;
        let pass = || Effort::new(&self.checkpoint, &|_| false).pass;
        let own = amounts::is_self_text(self.args.calibration.as_deref());
        let progress = own.then(|| calibration_text::writing(self.global, tokens, pass()));
        let mut progress = progress.transpose()?;
        let mut seen = |done: u64, of: u64| {
            progress.iter_mut().for_each(|progress| progress.stage("", done, of, "own text"));
        };
        let asked = self.args.calibration.as_deref();
        let writer = TextWriter {
            model: &self.model,
            tokenizer: &self.tokenizer,
            max_memory: self.memory_left(),
            global: self.global,
        };
        let text = writer.sequences(asked, tokens, ctx, &mut seen)?;
        progress.map(Progress::finish);
        Ok(text)
    }

    /// Texts of the two steps. What the model writes is written once, as much as the longer one takes.
    fn texts(
        &self,
        rounds: Option<usize>,
        scales: Option<usize>,
    ) -> Result<(Option<TextSequences>, Option<TextSequences>), Failure> {
        let own = amounts::is_self_text(self.args.calibration.as_deref());
        if let (Some(rounds), Some(scales), true) = (rounds, scales, own) {
            let text = self.text(rounds.max(scales))?;
            return Ok((Some(text.clone()), Some(text)));
        }
        let text = |tokens: Option<usize>| tokens.map(|tokens| self.text(tokens)).transpose();
        Ok((text(rounds)?, text(scales)?))
    }
}

/// What came of the steps.
struct Improved {
    rounds: Option<RoundedAgainOutcome>,
    scales: Option<TunedScales>,
}

impl Improved {
    fn helps(&self) -> bool {
        self.rounds.as_ref().is_some_and(RoundedAgainOutcome::helps)
            || self.scales.as_ref().is_some_and(TunedScales::helps)
    }
}

pub fn run(args: &ImproveArgs, global: &Global) -> Result<(), Failure> {
    args.check()?;
    let started = std::time::Instant::now();
    let loras = args.loras.paths();
    let texts = [args.measurements.as_deref(), args.calibration.as_deref()].into_iter().flatten();
    let reads: Vec<&Path> = [&*args.file, &args.reference].into_iter().chain(loras).chain(texts).collect();
    guard::check(&[Out::or_in_place(args.output.as_deref(), &args.file, args.force)], &reads)?;
    let path = args.output.as_ref().unwrap_or(&args.file);
    let useless = ["", ".mark", ".partial", ".states.partial", ".codes.partial", ".trial", ".trial.partial"];
    let useless = useless.map(|end| gq_files::sibling(&guard::candidate(path), end));
    let work = Work::begun_again(useless).leaving(&args.file);
    let _work = signals::during(work.making([path.clone()], "only its summary was not shown"));
    let settings = scales::settings(args)?;
    let options = RunOptions { level: global.isa()?, activations: ActivationMode::F32, kv: KvType::F32 };
    let container = Arc::new(Container::open(&args.file)?);
    let model = Model::from_container(container.clone(), options)?;
    let found = source::find(&args.reference, global)?;
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.loras, global)?);
    let measurements = args.measurements.as_deref().map(MeasurementsDir::open).transpose()?;
    if let Some(measurements) = &measurements {
        measurements.check_source(&gq_calibrate::source_files(&checkpoint))?;
    }
    if args.does_rounds() {
        // Before a text is written for it, or anything said of the time.
        gq_convert::check_source(&container, &checkpoint)?;
    }
    let reference = Model::from_checkpoint_unheld(checkpoint.clone(), options)?;
    let tokenizer = Tokenizer::new(reference.texts(), reference.spec())?;
    let original = Original { args, global, checkpoint, model: reference, tokenizer, options, measurements };
    // Refused before anything is written or measured.
    let rounds = args.does_rounds().then(|| rounds::tokens(&original));
    let spilled = rounds.map(|tokens| rounds::spilled(&original, tokens)).transpose()?.unwrap_or(0);
    let files = if args.does_rounds() { 2 } else { 1 };
    guard::space(path, container.file_bytes().saturating_mul(files).saturating_add(spilled))?;
    let scales = args.does_scales().then(|| scales::tokens(&settings, args.calibration_ctx));
    let (rounds, scales) = original.texts(rounds, scales)?;
    let memory = rounds.as_ref().map(|text| rounds::memory(&original, text)).transpose()?;
    let (memory, kept) = memory.unzip();
    if let Some(memory) = memory {
        global.output().note(&measuring_memory::memory_line(memory));
    }
    let checker = Checker::new(args.no_check, global).within(args.max_memory);
    let unchanged = || match args.output {
        Some(_) => Ok(container.check_unchanged()?),
        None => Ok(container.check_still_named()?),
    };
    let improved = source::with_threads(global, || {
        let existing = args.force.existing_or_in_place(args.output.as_deref());
        checker.through(Destination { path: path.as_path(), existing }, &unchanged, |path| {
            let mut improved = Improved { rounds: None, scales: None };
            if let Some(text) = &rounds {
                let _keeping = measuring_memory::keep_buffers(kept.unwrap_or(0));
                improved.rounds = Some(rounds::run(&original, &container, &model, text, path)?);
            }
            if let Some(text) = &scales {
                let again = improved.helps().then(|| original.reopened(path)).transpose()?;
                let (file, model) =
                    again.as_ref().map_or((&container, &model), |(file, model)| (file, model));
                let scales = scales::run(&original, file, model, text, &settings, path);
                container.check_unchanged()?;
                improved.scales = Some(scales?);
            }
            if !improved.helps() && args.output.is_some() {
                container.copy_to(path)?;
            }
            Ok(improved)
        })
    })??;
    let bytes = std::fs::metadata(path).map_err(|error| Failure::io(path, &error))?.len();
    let seconds = started.elapsed().as_secs_f64();
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "output": path.display().to_string(),
            "helped": improved.helps(),
            "bytes": bytes,
            "rounds": improved.rounds.as_ref().map(|outcome| rounds::document(outcome, memory.map(|m| m.peak))),
            "scales": improved.scales.as_ref().map(scales::document),
            "seconds": seconds,
            "seen": checker.seen(),
        }));
    }
    let mut said = String::new();
    if let Some(outcome) = &improved.rounds {
        said += &format!("{}\n", rounds::summary(outcome, &original.checkpoint).render());
        said += &line("rounded again", outcome.before, outcome.after, outcome.compared_tokens);
    }
    if let Some(outcome) = &improved.scales {
        said += &line("scales tuned", outcome.before, outcome.after, outcome.held_out_tokens);
    }
    let verdict = if improved.helps() { "" } else { ": left as it was" };
    let (bytes, seconds) = (units::bytes(bytes), units::seconds(seconds));
    output.data(&format!(
        "{said}{}: {bytes}, in {seconds}{verdict}\n{}",
        path.display(),
        checker.seen().line()
    ))
}

/// What a step did to the divergence.
fn line(step: &str, before: f64, after: f64, tokens: usize) -> String {
    let verdict = match after < before {
        true => format!("{:.1} % closer", 100.0 * (1.0 - after / before)),
        false => "no closer, not used".to_owned(),
    };
    let tokens = units::count(tokens as u64);
    format!("{step}: divergence on {tokens} held-out tokens {before:.4} -> {after:.4}, {verdict}\n")
}
