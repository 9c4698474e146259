//! `gq calibrate`: measures a checkpoint once, so that any size can be planned and made from it.

use crate::adapters::Adapters;
use crate::cli::Global;
use crate::commands::calibration::{CalibrationArgs, Measuring, TextSource};
use crate::failure::{Exit, Failure};
use crate::guard::{self, Force, Out};
use crate::progress::{Progress, Unit, expectation};
use crate::signals::{self, Work};
use crate::table::Table;
use crate::{expected, source, units};
use gq_checkpoint::{Checkpoint, ModelSpec, Role};
use gq_convert::{
    CalibrateError, CalibrateEvent, CalibrateOptions, CalibrationInput, CalibrationText, Corrections,
    Measurements, MeasurementsError, MeasuringMemory, MeasuringSize, TrialOptions,
};
use gq_model::{
    ActivationMode, ChatError, ChatTemplate, KvType, MOST_CONVERSATIONS, Model, ModelTexts, OwnTextOptions,
    RunOptions, SpecialText, Tokenizer, conversation_bytes, own_text, work_bytes,
};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes for conversations that a model writes side by side, where there is room.
const CONVERSATIONS: u64 = 1 << 30;

/// Bytes of a token, where many follow one another, at the most.
const LONG_TOKEN: usize = 64;

/// Measure a checkpoint on calibration text, once for any number of conversions.
///
/// Writes measurements to a directory: second moments of inputs, gradients, and the divergence that trial roundings cause.
/// `gq convert --measurements DIR` rounds by them and spends a budget by them.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq calibrate ./SmolLM2-135M -o smol.measurements
  gq calibrate ./SmolLM2-135M -o smol.measurements --calibration texts/
  gq convert ./SmolLM2-135M --measurements smol.measurements --size 80MB -o smol.gq
  gq plan ./SmolLM2-135M --measurements smol.measurements --bpw 3.5")]
pub struct CalibrateArgs {
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
    /// Most memory, such as 4GiB; hidden states that do not fit are kept in a temporary file in DIR.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    max_memory: Option<u64>,
    /// Print the memory, disk and time that it would take, and stop.
    #[arg(long)]
    dry_run: bool,
}

pub fn run(args: &CalibrateArgs, global: &Global) -> Result<(), Failure> {
    if !args.dry_run {
        let loras = args.loras.paths();
        let text = args.calibration.calibration.as_deref();
        let reads: Vec<&Path> = [&*args.source].into_iter().chain(loras).chain(text).collect();
        guard::check(&[Out::folder(&args.output)], &reads)?;
        refuse_foreign(&args.output)?;
    }
    args.calibration.check()?;
    let found = source::find(&args.source, global)?;
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.loras, global)?);
    let how = args.calibration.thorough(&checkpoint)?;
    refuse_short(&checkpoint, &how)?;
    if args.dry_run {
        return promise(&checkpoint, &how, args, global);
    }
    let lacking = lacks_trials(&checkpoint, &how, args, global)?;
    if lacking.is_none() {
        room(&checkpoint, &how, &args.output, args.max_memory, global)?.refuse(&args.output, 0)?;
    }
    let place = (args.output.as_path(), lacking);
    let [saved, _] = Measurements::marks(&args.output);
    let work = keeping(Work::that_continues([]), &args.output);
    let work = work.making([saved.clone()], "only its summary was not shown");
    let _work = signals::during(work);
    let mut progress = Progress::staged(global, "calibrate", expected::measuring(&checkpoint, &how, global)?);
    let measurements = measure(&checkpoint, &how, place, args.max_memory, &mut progress, global)?;
    signals::whole(&saved);
    let seconds = progress.finish();
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "output": args.output.display().to_string(),
            "seconds": seconds,
            "measurements": measurements,
        }));
    }
    output.data(&summary(&measurements, &checkpoint, &args.output, seconds))
}

/// The same work, with what is measured in `dir`.
pub fn keeping(work: Work, dir: &Path) -> Work {
    work.keeping_in(dir, Measurements::marks(dir), Measurements::scratch(dir))
}

/// Refuses a folder that holds something else than measurements.
pub fn refuse_foreign(dir: &Path) -> Result<(), Failure> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let Some(other) = entries.map(|entry| entry.file_name()).find(|name| !Measurements::is_file_name(name))
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
    (dir, found): (&Path, Option<Measurements>),
    max_memory: Option<u64>,
    progress: &mut Progress,
    global: &Global,
) -> Result<Measurements, Failure> {
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
    let mut written = |done: u64, of: u64| progress.stage("text", (done, of), "");
    let what = (&model, &tokenizer);
    let (texts, sequences) =
        sequences(how.text.as_deref(), what, (how.tokens, how.ctx), left, global, &mut written)?;
    let options = CalibrateOptions {
        level,
        gradient_sequences: how.gradient_tokens.div_ceil(how.ctx.max(1)),
        seed: 0,
        expert_moments: how.expert_moments(),
        asked: how.asked(checkpoint.spec()),
        max_memory,
    };
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let memory = memory(checkpoint, how, (sequences.len(), longest), max_memory, global)?;
    global.output().note(&memory_line(memory));
    // Moments that are there, on the same text, are not measured again.
    let found = found.filter(|measurements| measurements.text_sha256 == gq_convert::texts_digest(&texts));
    let output = global.output();
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
            CalibrateEvent::Trials { done, of } if done < of => ("trials", done, of - 1),
            // Every trial has logits of its own: a step unlike the others.
            CalibrateEvent::Trials { .. } => ("logits", 1, 1),
        };
        progress.stage(stage, (done as u64, of as u64), "");
        if (stage, done) == ("trials", of) {
            progress.stage("logits", (0, 1), "");
        }
    };
    let wanted: BTreeSet<&str> = how.wanted(checkpoint).collect();
    let text = CalibrationInput { texts: &texts, sequences: &sequences };
    source::with_threads(global, || {
        let mut measurements = match found {
            Some(measurements) => measurements,
            None => {
                let wanted = |name: &str| wanted.contains(name);
                gq_convert::measure(checkpoint, &model, text, &wanted, &options, dir, &mut report)?
            }
        };
        if how.trial_tokens > 0 {
            let options = TrialOptions { level, tokens: how.trial_tokens, max_memory };
            gq_convert::correct(checkpoint, &model, &sequences, &options, &mut measurements, &mut report)?;
        }
        Ok::<_, CalibrateError>(measurements)
    })?
    .map_err(Failure::from)
}

/// What measuring writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// Bytes that stay, less those that are there already.
    saved: u64,
    /// Bytes that are gone when it is done.
    spilled: u64,
}

impl Room {
    /// Refuses what does not fit on the disk of `path`, with `after` bytes that are written when it is done.
    pub fn refuse(self, path: &Path, after: u64) -> Result<(), Failure> {
        guard::space(&path.join("measurements.json"), self.needed(after))
    }

    /// Bytes at most, with `after` bytes that are written when it is done.
    pub fn needed(self, after: u64) -> u64 {
        self.saved.saturating_add(self.spilled.max(after))
    }
}

/// What measuring in `dir` is going to write. Refuses what needs more memory than is allowed.
pub fn room(
    checkpoint: &Checkpoint,
    how: &Measuring,
    dir: &Path,
    max_memory: Option<u64>,
    global: &Global,
) -> Result<Room, Failure> {
    let memory = promised(checkpoint, how, max_memory, global)?;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let there: u64 = entries.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum();
    Ok(Room { saved: memory.saved.saturating_sub(there), spilled: memory.spilled })
}

fn memory(
    checkpoint: &Checkpoint,
    how: &Measuring,
    (sequences, ctx): (usize, usize),
    limit: Option<u64>,
    global: &Global,
) -> Result<MeasuringMemory, Failure> {
    let (gradients, threads) = (how.gradient_tokens > 0, global.threads());
    let trial_tokens = how.trial_tokens;
    let held = checkpoint.held_bytes(threads);
    let size = MeasuringSize { sequences, ctx, gradients, trial_tokens, threads, held };
    let mut memory = MeasuringMemory::new(checkpoint.spec(), size, how.expert_moments(), limit)?;
    let left = limit.map(|limit| limit.saturating_sub(held));
    let writing = Writing::of(how.text.as_deref(), checkpoint.spec(), ctx, left, global)?;
    memory.peak = memory.peak.max(writing.peak + held);
    Ok(memory)
}

/// What measuring is going to take, from what is asked for: the text may turn out to be shorter.
fn promise(
    checkpoint: &Checkpoint,
    how: &Measuring,
    args: &CalibrateArgs,
    global: &Global,
) -> Result<(), Failure> {
    let memory = promised(checkpoint, how, args.max_memory, global)?;
    let stages = expected::measuring(checkpoint, how, global)?;
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "tokens": how.tokens,
            "peak_memory_bytes": memory.peak,
            "spilled_bytes": memory.spilled,
            "saved_bytes": memory.saved,
            "seconds": stages.iter().map(|stage| stage.seconds).sum::<Option<f64>>(),
        }));
    }
    let time = expectation(&stages).map_or_else(String::new, |time| format!("measuring takes {time}\n"));
    output.data(&format!("{} tokens; {}\n{time}", units::count(how.tokens as u64), memory_line(memory)))
}

pub fn memory_line(memory: MeasuringMemory) -> String {
    format!("measuring takes {}", memory_words(memory))
}

/// What measuring takes, from what is asked for.
///
/// # Errors
/// When that is more memory than is allowed.
pub fn promised(
    checkpoint: &Checkpoint,
    how: &Measuring,
    limit: Option<u64>,
    global: &Global,
) -> Result<MeasuringMemory, Failure> {
    memory(checkpoint, how, (how.sequences(), how.ctx), limit, global)
}

/// Memory and disk, in words.
pub fn memory_words(memory: MeasuringMemory) -> String {
    let mut line = format!("at most {} of memory", units::bytes(memory.peak));
    if memory.spilled > 0 {
        line += &format!(" and {} on the disk meanwhile", units::bytes(memory.spilled));
    }
    if memory.saved > 0 {
        line += &format!("; its moments take {} on the disk", units::bytes(memory.saved));
    }
    line
}

/// What is measured in the output as it is asked for, but for the trials. Refuses to measure over others without --force.
fn lacks_trials(
    checkpoint: &Checkpoint,
    how: &Measuring,
    args: &CalibrateArgs,
    global: &Global,
) -> Result<Option<Measurements>, Failure> {
    let dir = &args.output;
    let of = match finished(checkpoint, how, dir, global)? {
        Finished::None => return Ok(None),
        Finished::AsAsked(measurements) if !how.has_trials(&measurements) => {
            global.output().note(&format!("adding trials to the measurements in {}", dir.display()));
            return Ok(Some(*measurements));
        }
        Finished::AsAsked(_) => "as they are asked for".to_owned(),
        Finished::Other(why) => why,
    };
    if args.force.force {
        return Ok(None);
    }
    let message = format!("{}: holds measurements already, {of}", dir.display());
    let failure = Failure::new(Exit::Usage, "output.exists", message).at(dir.display());
    Err(failure.limit("a new name").actual("finished measurements"))
}

/// The finished measurement in `dir`, taken up, or made now.
pub fn finished_or_measured(
    checkpoint: &Arc<Checkpoint>,
    how: &Measuring,
    dir: &Path,
    max_memory: Option<u64>,
    progress: &mut Progress,
    global: &Global,
) -> Result<Measurements, Failure> {
    let found = match finished(checkpoint, how, dir, global)? {
        Finished::AsAsked(measurements) if how.has_trials(&measurements) => {
            global.output().note(&format!("taking up the measurements in {}", dir.display()));
            // Trials that an earlier run made are not what this one asks for.
            return Ok(match how.trial_tokens {
                0 => measurements.without_corrections(),
                _ => *measurements,
            });
        }
        Finished::AsAsked(measurements) => Some(*measurements),
        Finished::Other(why) => {
            global.output().note(&format!("{}: {why}: measuring again", dir.display()));
            None
        }
        Finished::None => None,
    };
    measure(checkpoint, how, (dir, found), max_memory, progress, global)
}

/// What was finished in a folder.
enum Finished {
    /// Nothing.
    None,
    /// What is asked for, of this checkpoint and these texts.
    AsAsked(Box<Measurements>),
    /// Something else, and what.
    Other(String),
}

/// The finished measurement in `dir`.
fn finished(
    checkpoint: &Checkpoint,
    how: &Measuring,
    dir: &Path,
    global: &Global,
) -> Result<Finished, Failure> {
    let measurements = match Measurements::open(dir) {
        Ok(measurements) => measurements,
        // Nothing was finished there.
        Err(MeasurementsError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Ok(Finished::None);
        }
        Err(error) => return Ok(Finished::Other(format!("not usable here ({error})"))),
    };
    let anew = |what: &str| Ok(Finished::Other(format!("measured {what}")));
    if measurements.asked != how.asked(checkpoint.spec()) {
        return anew("with other options");
    }
    if measurements.check_source(&gq_convert::source_files(checkpoint)).is_err() {
        return anew("on other weights");
    }
    let texts = given_texts(&how.source(), &ModelTexts::from_checkpoint(checkpoint)?, global)?;
    let same = texts.is_none_or(|texts| measurements.text_sha256 == gq_convert::texts_digest(&texts));
    if same { Ok(Finished::AsAsked(Box::new(measurements))) } else { anew("on another text") }
}

/// Takes the tokens that a model has written, and those that it is to write.
pub type Written<'a> = &'a mut (dyn FnMut(u64, u64) + Send);

/// About `tokens` tokens of the text asked for, in sequences of `ctx`, and the texts that they are known by.
pub fn sequences(
    calibration: Option<&Path>,
    (model, tokenizer): (&Model, &Tokenizer),
    (tokens, ctx): (usize, usize),
    max_memory: Option<u64>,
    global: &Global,
    seen: Written<'_>,
) -> Result<(Vec<CalibrationText>, Vec<Vec<u32>>), Failure> {
    match given_texts(&TextSource::of(calibration), model.texts(), global)? {
        None => own_sequences(model, tokenizer, (tokens, ctx), max_memory, global, seen),
        Some(texts) => {
            let sequences = gq_convert::sequences(tokenizer, &texts, tokens, ctx)?;
            Ok((texts, sequences))
        }
    }
}

/// Refuses text of which there is too little, before anything else takes time.
pub fn refuse_short(checkpoint: &Checkpoint, how: &Measuring) -> Result<(), Failure> {
    let TextSource::Files(path) = how.source() else { return Ok(()) };
    let texts = texts(path)?;
    // Of more than that there is enough, whatever the tokenizer.
    let most = LONG_TOKEN.saturating_mul(2 * how.ctx);
    if texts.iter().map(|text| text.text.len()).max().unwrap_or(0) > most {
        return Ok(());
    }
    let tokenizer = Tokenizer::new(&ModelTexts::from_checkpoint(checkpoint)?, checkpoint.spec())?;
    gq_convert::sequences(&tokenizer, &texts, how.tokens, how.ctx)?;
    Ok(())
}

/// Texts that are there before the model has written any; `None`: it is to write them.
fn given_texts(
    source: &TextSource<'_>,
    model: &ModelTexts,
    global: &Global,
) -> Result<Option<Vec<CalibrationText>>, Failure> {
    match source {
        TextSource::Own => Ok(None),
        TextSource::Files(path) => texts(path).map(Some),
        TextSource::Builtin => builtin(model, global).map(Some),
    }
}

/// The text that comes with the program, its conversations as the model's chat template renders them; a template that
/// cannot is no reason to do without.
fn builtin(model: &ModelTexts, global: &Global) -> Result<Vec<CalibrationText>, Failure> {
    let rendered = template(model).and_then(|chat| Ok(gq_convert::builtin(chat.as_ref())?));
    match rendered {
        Err(failure) if failure.exit == Exit::Input => {
            let sentence = failure.sentence();
            global.output().note(&format!("conversations are calibrated on as plain text: {sentence}"));
            Ok(gq_convert::builtin(None)?)
        }
        rendered => rendered,
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
    seen: Written<'_>,
) -> Result<(Vec<CalibrationText>, Vec<Vec<u32>>), Failure> {
    let write = || own_tokens(model, tokenizer, (tokens, ctx), max_memory, global, seen);
    let written = source::with_threads(global, write)??;
    let text = written.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let mut sequences: Vec<Vec<u32>> = written.chunks_exact(ctx).map(<[u32]>::to_vec).collect();
    if let Some(bos) = tokenizer.bos() {
        sequences.iter_mut().filter_map(|sequence| sequence.first_mut()).for_each(|first| *first = bos);
    }
    Ok((vec![CalibrationText { name: "self".to_owned(), text, special: SpecialText::Plain }], sequences))
}

/// What the model writes, in the threads at hand.
pub fn own_tokens(
    model: &Model,
    tokenizer: &Tokenizer,
    (tokens, answer): (usize, usize),
    max_memory: Option<u64>,
    global: &Global,
    seen: Written<'_>,
) -> Result<Vec<u32>, Failure> {
    let chat = template(model.texts())?;
    let memory = Writing::new(model.spec(), answer, max_memory, global)?.conversations;
    let options = OwnTextOptions { tokens, answer, seed: 0, memory };
    let mut step = |done: usize| seen(done as u64, tokens as u64);
    let written = own_text(model, tokenizer, chat.as_ref(), options, &mut step);
    written.map_err(|e| Failure::new(Exit::Input, "calibration.self", e.to_string()))
}

/// A bar for what a model writes, where nothing else is shown meanwhile.
pub fn writing(global: &Global) -> Progress {
    Progress::new(global.progress, global.output(), "write", Unit::Items("tokens"), 1)
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
        // A prompt is short next to the answer.
        let tokens = 2 * answer;
        let (work, one) =
            (work_bytes(spec, tokens, KvType::F32, global.threads()), conversation_bytes(spec, tokens));
        if let Some(limit) = limit.filter(|limit| work + one > *limit) {
            return Err(CalibrateError::Memory { limit, actual: work + one }.into());
        }
        let most = CONVERSATIONS.min(MOST_CONVERSATIONS as u64 * one);
        let conversations = limit.map_or(most, |limit| most.min(limit - work)).max(one);
        Ok(Writing { conversations, peak: work + conversations })
    }
}

/// The texts of a file, or of the .txt and .md files of a directory in the order of their names.
pub fn texts(path: &Path) -> Result<Vec<CalibrationText>, Failure> {
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
fn summary(measurements: &Measurements, checkpoint: &Checkpoint, dir: &Path, seconds: f64) -> String {
    let mut roles: Vec<(Role, usize, f64, f64)> = Vec::new();
    let mut total = 0.0;
    for (name, measured) in &measurements.tensors {
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
        measurements
            .corrections
            .as_ref()
            .map_or_else(String::new, |found| trials(found, measurements.gradient_tokens > 0)),
        dir.display(),
        units::count(measurements.tokens as u64),
        units::count(measurements.held_out_tokens as u64),
        units::count(measurements.gradient_tokens as u64),
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

impl From<CalibrateError> for Failure {
    fn from(error: CalibrateError) -> Failure {
        match error {
            CalibrateError::File(error) => error.into(),
            CalibrateError::Memory { limit, actual } => {
                let message = format!(
                    "measuring needs {} of memory, --max-memory allows {}",
                    units::bytes(actual),
                    units::bytes(limit)
                );
                let failure = Failure::new(Exit::Environment, "calibrate.memory", message);
                failure.at("--max-memory").limit(limit).actual(actual)
            }
            other => Failure::new(Exit::Input, "calibrate", other.to_string()),
        }
    }
}

impl From<MeasurementsError> for Failure {
    fn from(error: MeasurementsError) -> Failure {
        use MeasurementsError as E;
        let message = error.to_string();
        match error {
            E::Io { path, source } => Failure::io(&path, &source),
            E::Malformed { path, actual } => {
                Failure::new(Exit::Input, "measurements.malformed", message).at(path.display()).actual(actual)
            }
            E::OtherCheckpoint { path, limit, actual } | E::Differs { path, limit, actual, .. } => {
                Failure::new(Exit::Input, "measurements.other", message)
                    .at(path.display())
                    .limit(limit)
                    .actual(actual)
            }
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
        let message = error.to_string();
        match error {
            gq_convert::SequenceError::TooShort { limit, actual, .. } => {
                let failure = Failure::new(Exit::Input, "calibration.too_short", message);
                failure.at("--calibration").limit(limit).actual(actual)
            }
            gq_convert::SequenceError::Tokenizer { .. } => {
                Failure::new(Exit::Input, "calibration.text", message)
            }
        }
    }
}
