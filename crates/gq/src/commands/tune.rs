//! `gq tune`: measures a checkpoint once, so that any size can be planned and made from it.

use crate::adapters::Adapters;
use crate::cli::Global;
use crate::failure::{Exit, Failure};
use crate::guard::{self, Force, Out};
use crate::progress::{Progress, Unit};
use crate::signals::{self, Work};
use crate::table::Table;
use crate::{source, units};
use gq_checkpoint::{Checkpoint, ModelSpec, Role};
use gq_convert::{
    CalibrationText, Corrections, ExpertMoments, MeasuringMemory, MeasuringSize, TrialOptions, Tune,
    TuneError, TuneEvent, TuneFileError, TuneOptions, TuneText,
};
use gq_model::{
    ActivationMode, ChatError, ChatTemplate, KvType, MOST_CONVERSATIONS, Model, ModelTexts, OwnTextOptions,
    RunOptions, SpecialText, Tokenizer, conversation_bytes, own_text, work_bytes,
};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The calibration text that the model writes.
const SELF: &str = "self";
/// The calibration text that comes with the program.
const BUILTIN: &str = "builtin";

/// Bytes for conversations that a model writes side by side, where there is room.
const CONVERSATIONS: u64 = 1 << 30;

/// Where calibration text comes from.
enum TextSource<'a> {
    Builtin,
    Own,
    Files(&'a Path),
}

impl TextSource<'_> {
    fn of(given: Option<&Path>) -> TextSource<'_> {
        match given {
            Some(path) if path.as_os_str() == SELF => TextSource::Own,
            Some(path) if path.as_os_str() != BUILTIN => TextSource::Files(path),
            _ => TextSource::Builtin,
        }
    }
}

/// Measure a checkpoint on calibration text: what every later conversion with --tune rounds and spends by.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq tune ./SmolLM2-135M -o smol.tune
  gq tune ./SmolLM2-135M -o smol.tune --calibration texts/
  gq convert ./SmolLM2-135M --tune smol.tune --size 80MB -o smol.gq
  gq plan ./SmolLM2-135M --tune smol.tune --bpw 3.5")]
pub struct TuneArgs {
    /// Checkpoint directory, a GGUF, or a repository on the Hub.
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// Directory for the measurements.
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    force: Force,
    #[command(flatten)]
    loras: Adapters,
    #[command(flatten)]
    calibration: CalibrationArgs,
    /// Most memory, such as 4GiB: hidden states that do not fit lie in a file in DIR meanwhile.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    max_memory: Option<u64>,
    /// Say what memory it would take, and stop.
    #[arg(long)]
    dry_run: bool,
}

/// What to measure on.
#[derive(clap::Args, Debug, Clone)]
pub struct CalibrationArgs {
    /// Calibration text: a file, a directory whose .txt and .md files count equally, `builtin`: prose, code,
    /// mathematics, 27 languages and conversations that come with gq, or `self`: what the model writes when it is asked
    /// for such things [default of `gq tune`: builtin].
    #[arg(long, value_name = "FILE|DIR|builtin|self")]
    pub calibration: Option<PathBuf>,
    /// Tokens to measure second moments on [default: 300 per input dimension, at most 131072].
    #[arg(long, value_name = "N")]
    pub calibration_tokens: Option<usize>,
    /// Tokens of a calibration sequence.
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = sequence_length)]
    pub calibration_ctx: usize,
    /// Tokens to measure gradients on; 0: what tensors cost is found by trials alone, or, without those too, is the error
    /// of their own outputs (relative to the outputs where a norm comes right after).
    #[arg(long, value_name = "N", default_value_t = 8192)]
    pub gradient_tokens: usize,
    /// Held-out tokens to try roundings on, each group of tensors alone: budgets go by the divergence that was found;
    /// 0: they go by what gradients predict.
    #[arg(long, value_name = "N", default_value_t = 3072)]
    pub trial_tokens: usize,
    /// What experts' gates are rounded by: moments of their own, each of which takes 8 n^2 bytes of memory and half of
    /// that on the disk in a layer of width n, or that of their layer, one for all.
    #[arg(long, value_name = "WHICH", default_value = "own")]
    pub expert_moments: Moments,
}

/// Which moment experts' gates are rounded by.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moments {
    /// One for each expert, of the tokens that chose it.
    Own,
    /// One for all experts of a layer.
    Layer,
}

/// Tokens to measure on unless given: 300 per dimension of the widest input, within limits.
pub fn default_tokens(checkpoint: &Checkpoint) -> usize {
    let products = checkpoint.tensors().iter().filter(|t| is_product(t.role));
    let widest = products.map(|t| t.cols()).max().unwrap_or(0);
    (300 * widest).min(131_072)
}

pub fn sequence_length(text: &str) -> Result<usize, String> {
    let length = text.parse().ok().filter(|length| (2..=1 << 20).contains(length));
    length.ok_or_else(|| "expected a number of tokens from 2 to 1048576".to_owned())
}

impl CalibrationArgs {
    fn source(&self) -> TextSource<'_> {
        TextSource::of(self.calibration.as_deref())
    }

    /// Tokens to measure on.
    fn tokens(&self, checkpoint: &Checkpoint) -> usize {
        self.calibration_tokens.unwrap_or_else(|| default_tokens(checkpoint))
    }

    fn memory(
        &self,
        checkpoint: &Checkpoint,
        (sequences, ctx): (usize, usize),
        limit: Option<u64>,
        global: &Global,
    ) -> Result<MeasuringMemory, Failure> {
        let (gradients, threads) = (self.gradient_tokens > 0, global.threads());
        let trial_tokens = self.trial_tokens;
        let held = checkpoint.held_bytes(threads);
        let size = MeasuringSize { sequences, ctx, gradients, trial_tokens, threads, held };
        let mut memory = MeasuringMemory::new(checkpoint.spec(), size, self.expert_moments(), limit)?;
        let left = limit.map(|limit| limit.saturating_sub(held));
        let writing = Writing::of(self.calibration.as_deref(), checkpoint.spec(), ctx, left, global)?;
        memory.peak = memory.peak.max(writing.peak + held);
        Ok(memory)
    }

    fn expert_moments(&self) -> ExpertMoments {
        match self.expert_moments {
            Moments::Layer => ExpertMoments::Layer,
            Moments::Own => ExpertMoments::Own,
        }
    }

    /// Whether trials were made, or not, as is asked for.
    fn has_trials(&self, tune: &Tune) -> bool {
        let made = tune.corrections.as_ref().map(|corrections| corrections.asked_tokens);
        self.trial_tokens == 0 || made == Some(self.trial_tokens)
    }

    /// What was asked for beside the text and the trials, in one line.
    fn asked(&self, spec: &ModelSpec) -> String {
        let text = match self.source() {
            TextSource::Own => SELF,
            TextSource::Builtin => BUILTIN,
            TextSource::Files(_) => "text",
        };
        let tokens = self.calibration_tokens.map_or_else(|| "default".to_owned(), |n| n.to_string());
        let experts = match self.expert_moments {
            Moments::Layer if spec.layers.iter().any(|layer| layer.moe.is_some()) => " layer",
            Moments::Layer | Moments::Own => "",
        };
        format!("{text} {tokens} {} {}{experts}", self.calibration_ctx, self.gradient_tokens)
    }
}

pub fn run(args: &TuneArgs, global: &Global) -> Result<(), Failure> {
    if !args.dry_run {
        let loras = args.loras.paths();
        let text = args.calibration.calibration.as_deref();
        let reads: Vec<&Path> = [&*args.source].into_iter().chain(loras).chain(text).collect();
        guard::check(&[Out::folder(&args.output)], &reads)?;
        refuse_foreign(&args.output)?;
    }
    let found = source::find(&args.source, global)?;
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.loras, global)?);
    if args.dry_run {
        return promise(&checkpoint, args, global);
    }
    let lacking = lacks_trials(&checkpoint, &args.calibration, &args.output, global)?;
    if lacking.is_none() && !args.force.force && Tune::is_finished(&args.output) {
        let message = format!("{}: holds measurements already", args.output.display());
        let failure = Failure::new(Exit::Usage, "output.exists", message).at(args.output.display());
        return Err(failure.limit("a new name").actual("finished measurements"));
    }
    let place = (args.output.as_path(), lacking);
    let _work = signals::during(Work::that_continues([args.output.join("tune.json")]));
    let (tune, seconds) = measure(&checkpoint, &args.calibration, place, args.max_memory, global)?;
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "output": args.output.display().to_string(),
            "seconds": seconds,
            "tune": tune,
        }));
    }
    output.data(&summary(&tune, &checkpoint, &args.output, seconds))
}

/// Refuses a folder that holds something else than measurements.
fn refuse_foreign(dir: &Path) -> Result<(), Failure> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let Some(other) = entries.map(|entry| entry.file_name()).find(|name| !Tune::is_file_name(name)) else {
        return Ok(());
    };
    let other = other.to_string_lossy().into_owned();
    let message = format!("{}: holds something else than measurements: {other}", dir.display());
    let failure = Failure::new(Exit::Usage, "output.not_empty", message).at(dir.display());
    Err(failure.limit("an empty folder, or measurements").actual(other))
}

/// Measures `checkpoint` and saves the result in `dir`; of `found`, which lies there, only trials are missing.
/// Gives it and the seconds it took.
pub fn measure(
    checkpoint: &Arc<Checkpoint>,
    args: &CalibrationArgs,
    (dir, found): (&Path, Option<Tune>),
    max_memory: Option<u64>,
    global: &Global,
) -> Result<(Tune, f64), Failure> {
    let level = global.level()?;
    let options = RunOptions { level, activations: ActivationMode::F32, kv: KvType::F32 };
    let model = Model::from_checkpoint_unheld(checkpoint.clone(), options)?;
    let tokenizer = Tokenizer::new(model.texts(), model.spec())?;
    let (tokens, ctx) = (args.tokens(checkpoint), args.calibration_ctx);
    // Refused before hours are spent; what is promised is known when the text is.
    args.memory(checkpoint, (tokens.div_ceil(ctx), ctx), max_memory, global)?;
    let left = max_memory.map(|limit| limit.saturating_sub(checkpoint.held_bytes(global.threads())));
    let (texts, sequences) =
        sequences(args.calibration.as_deref(), (&model, &tokenizer), (tokens, ctx), left, global)?;
    let options = TuneOptions {
        level,
        gradient_sequences: args.gradient_tokens.div_ceil(args.calibration_ctx.max(1)),
        seed: 0,
        expert_moments: args.expert_moments(),
        asked: args.asked(checkpoint.spec()),
        max_memory,
    };
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let memory = args.memory(checkpoint, (sequences.len(), longest), max_memory, global)?;
    global.output().note(&memory_line(memory));
    let layers = checkpoint.spec().layers.len() + 1;
    let of = options.gradients_of(sequences.len());
    // Moments that are there, on the same text, are not measured again.
    let found = found.filter(|tune| tune.text_sha256 == gq_convert::texts_digest(&texts));
    let measuring = if found.is_some() { 0 } else { of + layers };
    let trials = if args.trial_tokens > 0 { layers } else { 0 };
    let steps = (measuring + trials) as u64;
    let mut progress = Progress::new(global.progress, global.output(), "tune", Unit::Items("steps"), steps);
    let mut report = |event| match event {
        TuneEvent::Gradients { done, .. } => progress.set(done as u64, "gradients"),
        TuneEvent::Moments { done, .. } => progress.set((of + done) as u64, "layers"),
        TuneEvent::Trials { done, .. } => progress.set((measuring + done) as u64, "trials"),
    };
    let wanted = |name: &str| checkpoint.tensor(name).is_some_and(|tensor| is_measured(tensor.role));
    let text = TuneText { texts: &texts, sequences: &sequences };
    let tune = source::with_threads(global, || {
        let mut tune = match found {
            Some(tune) => tune,
            None => gq_convert::measure(checkpoint, &model, text, &wanted, &options, dir, &mut report)?,
        };
        if args.trial_tokens > 0 {
            let options = TrialOptions { level, tokens: args.trial_tokens, max_memory };
            gq_convert::correct(checkpoint, &model, &sequences, &options, &mut tune, &mut report)?;
        }
        Ok::<_, TuneError>(tune)
    })??;
    Ok((tune, progress.finish()))
}

/// What measuring is going to take, from what is asked for: the text may turn out to be shorter.
fn promise(checkpoint: &Checkpoint, args: &TuneArgs, global: &Global) -> Result<(), Failure> {
    let ctx = args.calibration.calibration_ctx;
    let tokens = args.calibration.tokens(checkpoint);
    let memory = args.calibration.memory(checkpoint, (tokens.div_ceil(ctx), ctx), args.max_memory, global)?;
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "tokens": tokens,
            "peak_memory_bytes": memory.peak,
            "spilled_bytes": memory.spilled,
            "saved_bytes": memory.saved,
        }));
    }
    output.data(&format!("{} tokens; {}\n", units::count(tokens as u64), memory_line(memory)))
}

pub fn memory_line(memory: MeasuringMemory) -> String {
    let mut line = format!("measuring takes at most {} of memory", units::bytes(memory.peak));
    if memory.spilled > 0 {
        line += &format!(" and {} on the disk meanwhile", units::bytes(memory.spilled));
    }
    if memory.saved > 0 {
        line += &format!("; its moments take {} on the disk", units::bytes(memory.saved));
    }
    line
}

/// What is measured in `dir` as it is asked for, but for the trials.
fn lacks_trials(
    checkpoint: &Checkpoint,
    args: &CalibrationArgs,
    dir: &Path,
    global: &Global,
) -> Result<Option<Tune>, Failure> {
    let found = finished(checkpoint, args, dir, global)?.filter(|tune| !args.has_trials(tune));
    if found.is_some() {
        global.output().note(&format!("adding trials to the measurements in {}", dir.display()));
    }
    Ok(found)
}

/// The finished measurement in `dir`, taken up, or made now.
pub fn finished_or_measured(
    checkpoint: &Arc<Checkpoint>,
    args: &CalibrationArgs,
    dir: &Path,
    max_memory: Option<u64>,
    global: &Global,
) -> Result<Tune, Failure> {
    match finished(checkpoint, args, dir, global)? {
        Some(tune) if args.has_trials(&tune) => {
            global.output().note(&format!("taking up the measurements in {}", dir.display()));
            // Trials that an earlier run made are not what this one asks for.
            Ok(if args.trial_tokens == 0 { tune.without_corrections() } else { tune })
        }
        found => Ok(measure(checkpoint, args, (dir, found), max_memory, global)?.0),
    }
}

/// The finished measurement in `dir`, when it is of this checkpoint and these texts.
fn finished(
    checkpoint: &Checkpoint,
    args: &CalibrationArgs,
    dir: &Path,
    global: &Global,
) -> Result<Option<Tune>, Failure> {
    let tune = match Tune::open(dir) {
        Ok(tune) => tune,
        // Nothing was finished there.
        Err(TuneFileError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            global.output().note(&format!("{error}: measuring anew"));
            return Ok(None);
        }
    };
    let anew = |what: &str| {
        global.output().note(&format!("{}: measured {what}: measuring anew", dir.display()));
        Ok(None)
    };
    if tune.asked != args.asked(checkpoint.spec()) {
        return anew("with other options");
    }
    if tune.check_source(&gq_convert::source_files(checkpoint)).is_err() {
        return anew("on other weights");
    }
    let texts = given_texts(&args.source(), &ModelTexts::from_checkpoint(checkpoint)?)?;
    let same = texts.is_none_or(|texts| tune.text_sha256 == gq_convert::texts_digest(&texts));
    if same { Ok(Some(tune)) } else { anew("on another text") }
}

/// About `tokens` tokens of the text asked for, in sequences of `ctx`, and the texts that they are known by.
pub fn sequences(
    calibration: Option<&Path>,
    (model, tokenizer): (&Model, &Tokenizer),
    (tokens, ctx): (usize, usize),
    max_memory: Option<u64>,
    global: &Global,
) -> Result<(Vec<CalibrationText>, Vec<Vec<u32>>), Failure> {
    match given_texts(&TextSource::of(calibration), model.texts())? {
        None => own_sequences(model, tokenizer, (tokens, ctx), max_memory, global),
        Some(texts) => {
            let sequences = gq_convert::sequences(tokenizer, &texts, tokens, ctx)?;
            Ok((texts, sequences))
        }
    }
}

/// Texts that are there before the model has written any; `None`: it is to write them.
fn given_texts(source: &TextSource<'_>, model: &ModelTexts) -> Result<Option<Vec<CalibrationText>>, Failure> {
    match source {
        TextSource::Own => Ok(None),
        TextSource::Files(path) => texts(path).map(Some),
        TextSource::Builtin => Ok(Some(gq_convert::builtin(template(model)?.as_ref())?)),
    }
}

/// The model's chat template, where it has one.
pub fn template(texts: &ModelTexts) -> Result<Option<ChatTemplate>, Failure> {
    match ChatTemplate::new(texts) {
        Ok(chat) => Ok(Some(chat.with_clock(crate::clock::standing()))),
        Err(ChatError::Missing) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the model writes, as sequences, and as the text that they are known by.
fn own_sequences(
    model: &Model,
    tokenizer: &Tokenizer,
    (tokens, ctx): (usize, usize),
    max_memory: Option<u64>,
    global: &Global,
) -> Result<(Vec<CalibrationText>, Vec<Vec<u32>>), Failure> {
    let write = || own_tokens(model, tokenizer, (tokens, ctx), max_memory, global);
    let written = source::with_threads(global, write)??;
    let text = written.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let mut sequences: Vec<Vec<u32>> = written.chunks_exact(ctx).map(<[u32]>::to_vec).collect();
    if let Some(bos) = tokenizer.bos() {
        sequences.iter_mut().filter_map(|sequence| sequence.first_mut()).for_each(|first| *first = bos);
    }
    Ok((vec![CalibrationText { name: SELF.to_owned(), text, special: SpecialText::Plain }], sequences))
}

/// What the model writes, in the threads at hand.
pub fn own_tokens(
    model: &Model,
    tokenizer: &Tokenizer,
    (tokens, answer): (usize, usize),
    max_memory: Option<u64>,
    global: &Global,
) -> Result<Vec<u32>, Failure> {
    let chat = template(model.texts())?;
    let memory = Writing::new(model.spec(), answer, max_memory, global)?.conversations;
    let options = OwnTextOptions { tokens, answer, seed: 0, memory };
    let output = global.output();
    let mut progress = Progress::new(global.progress, output, "write", Unit::Items("tokens"), tokens as u64);
    let written =
        own_text(model, tokenizer, chat.as_ref(), options, &mut |done| progress.set(done as u64, "own text"));
    let written = written.map_err(|e| Failure::new(Exit::Input, "calibration.self", e.to_string()))?;
    progress.finish();
    Ok(written)
}

/// Memory of a model that writes its own text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Writing {
    /// Bytes for conversations side by side.
    conversations: u64,
    /// With everything else; 0 where nothing is written.
    pub peak: u64,
}

impl Writing {
    /// What writing `calibration` takes, with answers of `answer` tokens; nothing for text that is there.
    ///
    /// # Errors
    /// When one conversation at a time is above the limit.
    pub fn of(
        calibration: Option<&Path>,
        spec: &ModelSpec,
        answer: usize,
        limit: Option<u64>,
        global: &Global,
    ) -> Result<Writing, Failure> {
        match TextSource::of(calibration) {
            TextSource::Own => Writing::new(spec, answer, limit, global),
            TextSource::Builtin | TextSource::Files(_) => Ok(Writing::default()),
        }
    }

    fn new(spec: &ModelSpec, answer: usize, limit: Option<u64>, global: &Global) -> Result<Writing, Failure> {
        // A prompt is short beside the answer.
        let tokens = 2 * answer;
        let (work, one) =
            (work_bytes(spec, tokens, KvType::F32, global.threads()), conversation_bytes(spec, tokens));
        if let Some(limit) = limit.filter(|limit| work + one > *limit) {
            return Err(TuneError::Memory { limit, actual: work + one }.into());
        }
        let most = CONVERSATIONS.min(MOST_CONVERSATIONS as u64 * one);
        let conversations = limit.map_or(most, |limit| most.min(limit - work)).max(one);
        Ok(Writing { conversations, peak: work + conversations })
    }
}

fn is_product(role: Role) -> bool {
    is_measured(role) && !matches!(role, Role::Embedding | Role::PerLayerTable)
}

/// Roles whose tensors may be coded.
fn is_measured(role: Role) -> bool {
    use Role::{
        Down, Embedding, ExpertDown, ExpertGateUp, Gate, Head, Key, Output, PerLayerGate, PerLayerProjection,
        PerLayerTable, Query, Up, Value,
    };
    matches!(
        role,
        Embedding
            | Head
            | Query
            | Key
            | Value
            | Output
            | Gate
            | Up
            | Down
            | ExpertGateUp
            | ExpertDown
            | PerLayerTable
            | PerLayerProjection
            | PerLayerGate
    )
}

/// The texts of a file, or of the .txt and .md files of a directory in the order of their names.
fn texts(path: &Path) -> Result<Vec<CalibrationText>, Failure> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| Failure::io(&path, &error)
    };
    let mut files = Vec::new();
    if std::fs::metadata(path).map_err(io(path))?.is_dir() {
        for entry in std::fs::read_dir(path).map_err(io(path))? {
            let file = entry.map_err(io(path))?.path();
            if file.extension().is_some_and(|end| end == "txt" || end == "md") {
                files.push(file);
            }
        }
        files.sort();
    } else {
        files.push(path.to_owned());
    }
    if files.is_empty() {
        let message = format!("{}: no .txt or .md file in this directory", path.display());
        return Err(Failure::new(Exit::Input, "calibration.empty", message).at(path.display()));
    }
    let read = |file: PathBuf| {
        let bytes = source::text_bytes(&file)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let message = format!("{}: byte {at} is not UTF-8", file.display());
            Failure::new(Exit::Input, "calibration.utf8", message)
                .at(file.display())
                .actual(format!("byte {at}"))
        })?;
        let name = file.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        Ok(CalibrationText { name, text, special: SpecialText::Plain })
    };
    files.into_iter().map(read).collect()
}

/// Where the damage lies, by role.
fn summary(tune: &Tune, checkpoint: &Checkpoint, dir: &Path, seconds: f64) -> String {
    let mut roles: Vec<(Role, usize, f64, f64)> = Vec::new();
    let mut total = 0.0;
    for (name, measured) in &tune.tensors {
        let Some(tensor) = checkpoint.tensor(name) else { continue };
        total += measured.sensitivity;
        let gain = measured.nearest_sensitivity / measured.sensitivity;
        match roles.iter_mut().find(|(role, ..)| *role == tensor.role) {
            Some((_, count, sum, gains)) => {
                *count += 1;
                *sum += measured.sensitivity;
                *gains += gain;
            }
            None => roles.push((tensor.role, 1, measured.sensitivity, gain)),
        }
    }
    roles.sort_by(|a, b| b.2.total_cmp(&a.2));
    let mut table = Table::new(&["<tensors of", "count", "share of damage", "gain of feedback"]);
    for (role, count, sum, gains) in roles {
        table.row([
            role.to_string(),
            units::count(count as u64),
            format!("{:.1} %", 100.0 * sum / total),
            format!("{:.2}x", gains / count as f64),
        ]);
    }
    format!(
        "{}\n{}{}: {} tokens, {} held out, gradients on {}, in {}\n",
        table.render(),
        tune.corrections.as_ref().map_or_else(String::new, |found| trials(found, tune.gradient_tokens > 0)),
        dir.display(),
        units::count(tune.tokens as u64),
        units::count(tune.held_out_tokens as u64),
        units::count(tune.gradient_tokens as u64),
        units::seconds(seconds),
    )
}

/// What trials found, group by group: roles by name, parts of the model from the first layer on.
///
/// Without gradients nothing was predicted, and what was measured is the cost itself.
fn trials(corrections: &Corrections, gradients: bool) -> String {
    let order = |name: &str| {
        let (role, part) = name.rsplit_once(' ').unwrap_or((name, ""));
        let number = part.split('/').next().and_then(|part| part.parse::<usize>().ok());
        (role.to_owned(), number)
    };
    let mut groups: Vec<_> = corrections.groups.iter().collect();
    groups.sort_by_key(|group| order(&group.name));
    let measured = ["<rounded alone", "measured", "error"];
    let compared = ["<rounded alone", "predicted", "measured", "error", "factor"];
    let mut table = Table::new(if gradients { &compared } else { &measured });
    for group in groups {
        let name = group.name.clone();
        let (found, error) = (format!("{:.2e}", group.measured), format!("{:.0e}", group.standard_error));
        if gradients {
            let predicted = format!("{:.2e}", group.predicted);
            table.row([name, predicted, found, error, format!("{:.2}", group.factor)]);
        } else {
            table.row([name, found, error]);
        }
    }
    let mut text = table.render();
    for whole in &corrections.whole {
        text += &format!(
            "everything with {:.0} % of its rounding error: expected {:.2e}, measured {:.2e}\n",
            100.0 * whole.share,
            whole.predicted,
            whole.measured,
        );
    }
    format!(
        "{text}tried with {} on {} held-out tokens\n\n",
        corrections.encoding,
        units::count(corrections.tokens as u64)
    )
}

impl From<TuneError> for Failure {
    fn from(error: TuneError) -> Failure {
        match error {
            TuneError::File(error) => error.into(),
            TuneError::Memory { limit, actual } => {
                let message = format!(
                    "measuring needs {} of memory, --max-memory allows {}",
                    units::bytes(actual),
                    units::bytes(limit)
                );
                let failure = Failure::new(Exit::Environment, "tune.memory", message);
                failure.at("--max-memory").limit(limit).actual(actual)
            }
            other => Failure::new(Exit::Input, "tune", other.to_string()),
        }
    }
}

impl From<TuneFileError> for Failure {
    fn from(error: TuneFileError) -> Failure {
        use TuneFileError as E;
        let message = error.to_string();
        match error {
            E::Io { path, source } => Failure::io(&path, &source),
            E::Malformed { path, actual } => {
                Failure::new(Exit::Input, "tune.malformed", message).at(path.display()).actual(actual)
            }
            E::Differs { path, limit, actual, .. } => Failure::new(Exit::Input, "tune.other", message)
                .at(path.display())
                .limit(limit)
                .actual(actual),
        }
    }
}

impl From<gq_convert::BuiltinError> for Failure {
    fn from(error: gq_convert::BuiltinError) -> Failure {
        match error {
            gq_convert::BuiltinError::Chat(error) => error.into(),
            damaged => Failure::internal("builtin text", &damaged),
        }
    }
}

impl From<gq_convert::SequenceError> for Failure {
    fn from(error: gq_convert::SequenceError) -> Failure {
        Failure::new(Exit::Input, "calibration.text", error.to_string())
    }
}
