//! `gq convert`: a checkpoint becomes one file.

use crate::adapters::Adapters;
use crate::cli::Global;
use crate::commands::Kv;
use crate::commands::budget::Asked;
use crate::commands::max_kld::{self, Measured};
use crate::commands::tune::{self, CalibrationArgs};
use crate::failure::{Exit, Failure};
use crate::guard::{self, Force, Out};
use crate::output::Output;
use crate::progress::{Progress, Unit};
use crate::seen::{Checker, NoCheck};
use crate::signals::{self, Work};
use crate::table::Table;
use crate::{encodings, source, units};
use gq_checkpoint::{Checkpoint, Role};
use gq_convert::{
    Budget, Calibration, Check, Choice, Codes, Estimate, Event, ExecuteOptions, Grids, LeftOut, Lossless,
    Override, Plan, Policy, Report, Resources, Step, Tune,
};
use gq_tensor::{Encoding, RotationKind, ScaleGroup};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Quantize a checkpoint into one .gq file that holds everything needed to run it.
///
/// An output that exists is refused, or with --force replaced, once the new file is complete.
/// A conversion that was interrupted is taken up where it stopped when the same command is run again.
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{}{}", "\
Examples:
  gq convert ./SmolLM2-135M -o smol.gq
  gq convert ./SmolLM2-135M -o smol.gq --bits 3 --override 'down_proj=tq4' --embedding tq6
  gq convert ./gemma-3-270m -o gemma.gq --encoding tq4-g64 --max-memory 1GiB
  gq convert ./SmolLM2-135M -o mine.gq --lora ./my-adapter --lora ./style=0.5

", encodings::LIST))]
pub struct ConvertArgs {
    /// Checkpoint directory, a GGUF, or a repository (hf://ORG/NAME, hf://ORG/NAME@REV).
    #[arg(value_name = "SRC")]
    source: PathBuf,
    /// File to write [default: the source's name and the encoding, such as SmolLM2-135M-tq4.gq].
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
    /// Discard an interrupted conversion to the same output instead of resuming it.
    #[arg(long)]
    restart: bool,
}

/// What decides the output's bytes, and the memory to make them in.
#[derive(clap::Args, Debug)]
pub struct Recipe {
    /// Bits per weight of the body, 1 to 8; short for --encoding tqB [default: 4].
    #[arg(short, long, value_name = "B", value_parser = encodings::bits, conflicts_with = "encoding")]
    bits: Option<u8>,
    /// Encoding of the body: projections of attention and MLP.
    #[arg(short, long, value_name = "ENC", value_parser = encodings::choice)]
    encoding: Option<Choice>,
    /// Encoding of the token embedding.
    #[arg(long, value_name = "ENC", default_value = "tq8", value_parser = encodings::choice)]
    embedding: Choice,
    /// Encoding of the output head, where it is not the embedding.
    #[arg(long, value_name = "ENC", default_value = "tq8", value_parser = encodings::choice)]
    head: Choice,
    /// Encoding of the per-layer embedding table (Gemma 4 E models).
    #[arg(long, value_name = "ENC", default_value = "tq8", value_parser = encodings::choice)]
    per_layer_table: Choice,
    /// Encoding of the per-layer gates and projections (Gemma 4 E models).
    #[arg(long, value_name = "ENC", default_value = "tq8", value_parser = encodings::choice)]
    per_layer_projection: Choice,
    /// Encoding of the tensors whose names match; repeatable, the last match wins.
    #[arg(long = "override", value_name = "REGEX=ENC", value_parser = override_rule)]
    overrides: Vec<Override>,
    /// Carry the tensors of vision and audio towers along, byte for byte; without this they are left out.
    #[arg(long)]
    keep_towers: bool,
    #[command(flatten)]
    loras: Adapters,
    /// Quantize a source that is quantized already, such as a Q4_K GGUF; its types are recorded in the file.
    #[arg(long)]
    allow_requantize: bool,
    /// Round weights that sit on a grid already like any others, even where the grid would lose nothing.
    #[arg(long)]
    no_grid: bool,
    /// Transform of the rows before coding: hadamard, haar (dense, slow) or none.
    #[arg(long, value_name = "KIND", default_value = "hadamard", value_parser = rotation)]
    rotation: RotationKind,
    /// Seed of the rotation.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Refuse to start when more memory would be needed, such as 4GiB; smaller blocks are tried first.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes)]
    max_memory: Option<u64>,
    /// Measurements made by `gq tune` on the same checkpoint: rounds with the inputs in view.
    #[arg(long, value_name = "DIR")]
    tune: Option<PathBuf>,
    /// Spend by predictions alone, also where trials have corrected them.
    #[arg(long)]
    no_corrections: bool,
    /// Bytes of the whole file, such as 80MB: never above, spent where --tune or --calibration measured that
    /// it counts; without them, where roles usually need it.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, conflicts_with_all = ["bits", "encoding"])]
    size: Option<u64>,
    /// Mean bits per weight of the body, scales included, spent in the same way.
    #[arg(long, value_name = "B", conflicts_with_all = ["bits", "encoding", "size"], value_parser = positive)]
    bpw: Option<f64>,
    /// Codes that --size, --bpw, --fit and --max-kld choose among.
    #[arg(long, value_name = "FAMILY", default_value = "trellis")]
    codes: CodeFamily,
    /// Memory that weights, keys and values of --ctx tokens, and buffers are to fit in together, such as 16GiB.
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, conflicts_with_all = ["bits", "encoding", "size", "bpw"])]
    fit: Option<u64>,
    /// Tokens of context that --fit leaves room for, such as 32k.
    #[arg(long, value_name = "N", default_value = "8192", requires = "fit", value_parser = units::parse_tokens)]
    ctx: usize,
    /// Keys and values that --fit leaves room for; run the file with the same.
    #[arg(long, value_name = "KIND", default_value = "f16", requires = "fit")]
    kv: Kv,
    /// Smallest file whose divergence from the original, in nats per token, is at most this: `gq convert` makes files
    /// until what it measures on held-out calibration text is just below, `gq plan` says what is expected.
    #[arg(long, value_name = "X", conflicts_with_all = ["bits", "encoding", "size", "bpw", "fit"], value_parser = positive)]
    max_kld: Option<f64>,
}

/// Families of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CodeFamily {
    /// tq2 to tq8: the fastest to run.
    Scalar,
    /// tt2 to tt6, tq7 and tq8: closer at the same bytes.
    Trellis,
    /// The trellises with 2^12 states: a little closer, slower to make.
    TrellisS12,
    /// With 2^14 states: closer by a little again, four times slower to make.
    TrellisS14,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0);
    number.ok_or_else(|| "expected a number above 0".to_owned())
}

fn override_rule(rule: &str) -> Result<Override, String> {
    let (pattern, encoding) = rule.rsplit_once('=').ok_or("expected REGEX=ENC, such as 'down_proj=tq6'")?;
    Ok(Override { pattern: pattern.to_owned(), encoding: encodings::choice(encoding)? })
}

fn rotation(name: &str) -> Result<RotationKind, String> {
    let found = RotationKind::ALL.into_iter().find(|kind| kind.name() == name);
    found.ok_or_else(|| "expected hadamard, haar or none".to_owned())
}

impl Recipe {
    /// The measurements these options name.
    ///
    /// # Errors
    /// When they cannot be read, were made on another checkpoint, or a budget comes without any.
    pub fn tune(&self, checkpoint: &Checkpoint, measured: Option<Tune>) -> Result<Option<Tune>, Failure> {
        let tune = match (&self.tune, measured) {
            (Some(dir), None) => Some(Tune::open(dir)?),
            (_, measured) => measured,
        };
        if let Some(tune) = &tune {
            tune.check_source(&gq_convert::source_files(checkpoint))?;
        }
        Ok(if self.no_corrections { tune.map(Tune::without_corrections) } else { tune })
    }

    /// The policy these options ask for, with measurements where there are some.
    pub fn measured_policy(&self, checkpoint: &Checkpoint, tune: Option<&Tune>) -> Policy {
        let (cache, work) = self.asked().beside(checkpoint.spec());
        let fit = self.fit.map(|bytes| bytes.saturating_sub(cache + work));
        let bytes = self.size.or(fit).map(Budget::FileBytes);
        let bits = self.bpw.map(Budget::BodyBits);
        let budget = bytes.or(bits).or(self.max_kld.map(Budget::Divergence));
        let calibration = tune.map(calibration);
        let codes = match self.codes {
            CodeFamily::Scalar => Codes::Scalar,
            CodeFamily::Trellis => Codes::Trellis,
            CodeFamily::TrellisS12 => Codes::TrellisLarge,
            CodeFamily::TrellisS14 => Codes::TrellisLargest,
        };
        Policy { budget, codes, calibration, ..self.policy() }
    }

    /// The budget as it was asked for.
    pub fn asked(&self) -> Asked {
        Asked { size: self.size, bpw: self.bpw, fit: self.fit, ctx: self.ctx, kv: self.kv.into() }
    }

    /// The policy these options ask for.
    pub fn policy(&self) -> Policy {
        let bits = Choice::Coded(Encoding::Turbo { bits: self.bits.unwrap_or(4), group: ScaleGroup::Row });
        Policy {
            embedding: self.embedding,
            head: self.head,
            per_layer_table: self.per_layer_table,
            per_layer_projection: self.per_layer_projection,
            overrides: self.overrides.clone(),
            rotation: self.rotation,
            seed: self.seed,
            keep_towers: self.keep_towers,
            grids: !self.no_grid,
            ..Policy::new(self.encoding.unwrap_or(bits))
        }
    }
}

/// What a recipe says about measurements.
pub fn calibration(tune: &Tune) -> Calibration {
    Calibration { text_sha256: tune.text_sha256.clone(), tokens: tune.tokens, sha256: tune.sha256() }
}

pub fn run(args: &ConvertArgs, global: &Global) -> Result<(), Failure> {
    if let Some(output) = args.output.as_deref().filter(|_| !args.dry_run) {
        guarded(args, output)?;
    }
    let found = source::find(&args.source, global)?;
    if args.dry_run {
        return show_plan(&found.path, &args.recipe, false, global);
    }
    let output_path =
        args.output.clone().unwrap_or_else(|| default_output(&found.name, &args.recipe.policy()));
    guarded(args, &output_path)?;
    let left = [".partial", ".journal", ".measurements/tune.json", ".max-kld"];
    let left = left.map(|end| gq_files::sibling(&output_path, end));
    let _work = signals::during(Work::that_continues(left));
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.recipe.loras, global)?);
    source::refuse_quantized(&checkpoint, args.recipe.allow_requantize)?;
    let output = global.output();
    let checker = Checker::new(args.no_check, global).within(args.recipe.max_memory);
    let look = |path: &Path| checker.look(path).map_err(Into::into);
    if checker.may_tokenize(&checkpoint)? {
        source::try_checkpoints_tokenizer(&checkpoint, output)?;
    }
    checker.texts(&checkpoint)?;
    let resources = Resources { threads: global.threads(), max_memory: args.recipe.max_memory };
    args.recipe.asked().check(&checkpoint, &args.recipe.measured_policy(&checkpoint, None), resources)?;
    let measurements = measurements_path(&output_path);
    let measured = match &args.calibration.calibration {
        Some(_) if args.recipe.tune.is_some() => {
            let message = "--calibration measures anew, --tune takes what was measured: give one of them";
            return Err(Failure::new(Exit::Usage, "calibration.twice", message).at("--calibration, --tune"));
        }
        Some(_) if args.restart => Some(
            tune::measure(
                &checkpoint,
                &args.calibration,
                (&measurements, None),
                args.recipe.max_memory,
                global,
            )?
            .0,
        ),
        Some(_) => Some(tune::finished_or_measured(
            &checkpoint,
            &args.calibration,
            &measurements,
            args.recipe.max_memory,
            global,
        )?),
        None => None,
    };
    let tune = args.recipe.tune(&checkpoint, measured)?;
    let policy = args.recipe.measured_policy(&checkpoint, tune.as_ref());
    let how = ExecuteOptions {
        level: global.level()?,
        restart: args.restart,
        tune: tune.as_ref(),
        origin: found.origin.as_ref(),
        check: Some(Check(&look)),
    };
    let (report, seconds, measured) = match (args.recipe.max_kld, &tune) {
        (Some(limit), Some(tune)) if keeps_text(tune, global)? => {
            let job = max_kld::Job { checkpoint: &checkpoint, policy: &policy, tune, limit };
            let made = max_kld::convert(job, resources, &output_path, how, global)?;
            (made.0, made.1, Some(made.2))
        }
        _ => {
            let made = convert(&checkpoint, &policy, resources, &output_path, how, global)?;
            (made.0, made.1, None)
        }
    };
    if args.calibration.calibration.is_some() {
        tune.iter().try_for_each(Tune::remove)?;
    }
    source::warn_incomplete(&checkpoint, output);
    let file_bytes = std::fs::metadata(&output_path).map_err(|e| Failure::io(&output_path, &e))?.len();
    if output.json {
        return output.document(&serde_json::json!({
            "output": output_path.display().to_string(),
            "file_bytes": file_bytes,
            "seconds": seconds,
            "report": report,
            "measured": measured,
            "seen": checker.seen(),
        }));
    }
    let kept = measured.map_or_else(String::new, |measured| kept_to(&measured));
    output.data(&(summary(&report, &output_path, file_bytes, seconds) + &kept + &checker.seen().line()))
}

/// Refuses an output that must not be written.
fn guarded(args: &ConvertArgs, output: &Path) -> Result<(), Failure> {
    let loras = args.recipe.loras.paths();
    let calibration = args.calibration.calibration.as_deref();
    let measured = [args.recipe.tune.as_deref(), calibration];
    let reads: Vec<&Path> =
        [&*args.source].into_iter().chain(loras).chain(measured.into_iter().flatten()).collect();
    guard::check(&[Out::file(output, args.force)], &reads)
}

/// Whether the text that a finished file is measured on was kept.
fn keeps_text(tune: &Tune, global: &Global) -> Result<bool, Failure> {
    let kept = !tune.held_out()?.is_empty();
    if !kept {
        global.output().note(
            "these measurements keep no held-out text: --max-kld holds for what is expected; `gq tune` anew for what is measured",
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

/// Plans and executes, with progress. Gives the report and the seconds it took.
pub fn convert(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    path: &Path,
    options: ExecuteOptions<'_>,
    global: &Global,
) -> Result<(Report, f64), Failure> {
    let grids = grids(checkpoint, policy, resources, global)?;
    let plan = gq_convert::plan_measured(checkpoint, policy, resources, options.tune, Some(&grids))?;
    guard::space(path, plan.payload_bytes)?;
    let done = execute(checkpoint, &plan, path, options, global)?;
    notes(&plan, &grids, global.output());
    Ok(done)
}

/// Executes a plan, with progress. Gives the report and the seconds it took.
pub fn execute(
    checkpoint: &Checkpoint,
    plan: &Plan,
    path: &Path,
    options: ExecuteOptions<'_>,
    global: &Global,
) -> Result<(Report, f64), Failure> {
    let output = global.output();
    let mut progress = Progress::new(global.progress, output, "convert", Unit::Bytes, plan.source_bytes);
    let report = gq_convert::execute(plan, checkpoint, path, options, &mut |event| match event {
        Event::Resumed { tensors } => {
            output.note(&format!("taking up an interrupted conversion: {tensors} tensors are done"));
        }
        Event::Advanced { bytes, tensor } => progress.set(bytes, tensor),
        Event::Finished { .. } => {}
    })?;
    Ok((report, progress.finish()))
}

/// What a user may want to know of a plan.
pub fn notes(plan: &Plan, grids: &Grids, output: Output) {
    note_exceptions(plan, output);
    unmeasured(plan).iter().for_each(|line| output.note(line));
    lossless(plan, grids).iter().for_each(|line| output.note(line));
}

/// Looks for grids that the weights already sit on, with progress.
pub fn grids(
    checkpoint: &Checkpoint,
    policy: &Policy,
    resources: Resources,
    global: &Global,
) -> Result<Grids, Failure> {
    let total = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(resources.threads).build();
    let pool = pool.map_err(gq_convert::ConvertError::from)?;
    let mut progress = Progress::new(global.progress, global.output(), "look for grids", Unit::Bytes, total);
    let found =
        pool.install(|| Grids::find(checkpoint, policy, &mut |bytes, tensor| progress.set(bytes, tensor)));
    progress.finish();
    Ok(found?)
}

/// Whether a step belongs to what an option names.
type Part<'a> = &'a dyn Fn(&Step) -> bool;

/// What would be stored without loss at more bytes than were asked for, a sentence for each option.
fn lossless(plan: &Plan, grids: &Grids) -> Vec<String> {
    let projection = |step: &Step| step.role.starts_with("per_layer_") && step.body;
    let parts: [(&str, Part<'_>); 5] = [
        ("encoding", &|step| step.body && !projection(step)),
        ("embedding", &|step| step.role == Role::Embedding.name()),
        ("head", &|step| step.role == Role::Head.name()),
        ("per-layer-table", &|step| step.role == Role::PerLayerTable.name()),
        ("per-layer-projection", &projection),
    ];
    let told = parts.into_iter().filter_map(|(option, part)| Some((option, grids.lossless(plan, part)?)));
    let sentence = |(option, lossless): (&str, Lossless)| {
        let how = match lossless.all {
            true => format!("--{option} grid stores"),
            false => "--override 'NAME=grid' stores".to_owned(),
        };
        format!(
            "{} sit on a grid already: {how} them without loss, for {} more",
            match lossless.tensors {
                1 => "the weights of 1 tensor".to_owned(),
                tensors => format!("the weights of {tensors} tensors"),
            },
            units::bytes(lossless.more_bytes)
        )
    };
    told.map(sentence).collect()
}

/// Matrices that the recipe would code and that are kept exactly deserve a word.
pub fn note_exceptions(plan: &Plan, output: Output) {
    let kept = |step: &&Step| step.reason.starts_with("kept exactly: ") && step.shape.len() > 1;
    let mut reasons: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for step in plan.steps.iter().filter(kept).filter(|step| step.reason.contains("width")) {
        let (tensors, bytes) = reasons.entry(&step.reason).or_default();
        *tensors += 1;
        *bytes += step.bytes;
    }
    for (reason, (tensors, bytes)) in reasons {
        output.warn(&format!("{tensors} matrices ({}) are {reason}", units::bytes(bytes)));
    }
}

/// `path.measurements`: measurements made for one conversion, kept until it is done.
fn measurements_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".measurements");
    PathBuf::from(name)
}

fn default_output(name: &str, policy: &Policy) -> PathBuf {
    let name = name.strip_suffix(".gguf").unwrap_or(name);
    PathBuf::from(format!("{name}-{}.gq", policy.body.name()))
}

fn summary(report: &Report, path: &Path, file_bytes: u64, seconds: f64) -> String {
    let rate = units::bytes((report.source_bytes as f64 / seconds.max(1e-9)) as u64);
    format!(
        "{}{}\n{}: {} from {} in {} ({rate}/s)\n",
        groups(report.tensors.iter().map(|t| Row {
            encoding: t.encoding.name(),
            role: &t.role,
            elements: t.shape.iter().product(),
            bytes: t.bytes,
            error: Some(t.relative_mse),
        })),
        left_out(&report.left_out),
        path.display(),
        units::bytes(file_bytes),
        units::bytes(report.source_bytes),
        units::seconds(seconds),
    )
}

/// One tensor in a table of groups.
struct Row<'a> {
    encoding: String,
    role: &'a str,
    elements: u64,
    bytes: u64,
    error: Option<f64>,
}

/// Tensors summed up by encoding and role.
fn groups<'a>(rows: impl Iterator<Item = Row<'a>>) -> String {
    #[derive(Default)]
    struct Group {
        tensors: u64,
        elements: u64,
        bytes: u64,
        error: f64,
    }
    let mut order: Vec<(String, String)> = Vec::new();
    let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
    let mut with_error = false;
    for row in rows {
        let key = (row.role.to_owned(), row.encoding);
        if !order.contains(&key) {
            order.push(key.clone());
        }
        let group = groups.entry(key).or_default();
        group.tensors += 1;
        group.elements += row.elements;
        group.bytes += row.bytes;
        group.error += row.error.unwrap_or(0.0) * row.elements as f64;
        with_error |= row.error.is_some();
    }
    let mut titles = vec!["<tensors of", "<encoding", "count", "weights", "bytes", "bits/weight"];
    titles.extend(with_error.then_some("rel. MSE"));
    let mut table = Table::new(&titles);
    let mut line = |role: &str, encoding: &str, group: &Group| {
        let elements = group.elements.max(1) as f64;
        let mut cells = vec![
            role.to_owned(),
            encoding.to_owned(),
            units::count(group.tensors),
            units::count(group.elements),
            units::count(group.bytes),
            format!("{:.3}", 8.0 * group.bytes as f64 / elements),
        ];
        cells.extend(with_error.then(|| match group.error {
            0.0 => "exact".to_owned(),
            error => format!("{:.3e}", error / elements),
        }));
        table.row(cells);
    };
    let mut total = Group::default();
    for key in order {
        let group = &groups[&key];
        line(&key.0, &key.1, group);
        total.tensors += group.tensors;
        total.elements += group.elements;
        total.bytes += group.bytes;
        total.error += group.error;
    }
    line("all", "", &total);
    table.render()
}

/// A line for each reason.
fn left_out(sums: &[LeftOut]) -> String {
    let line = |sum: &LeftOut| {
        format!("left out: {} tensors ({}): {}\n", sum.tensors, units::bytes(sum.source_bytes), sum.reason)
    };
    sums.iter().map(line).collect()
}

/// Plans and prints: the whole of `gq plan`.
pub fn show_plan(path: &Path, recipe: &Recipe, tensors: bool, global: &Global) -> Result<(), Failure> {
    let checkpoint = source::checkpoint_with(path, &recipe.loras, global)?;
    source::refuse_quantized(&checkpoint, recipe.allow_requantize)?;
    let resources = Resources { threads: global.threads(), max_memory: recipe.max_memory };
    let tune = recipe.tune(&checkpoint, None)?;
    let policy = recipe.measured_policy(&checkpoint, tune.as_ref());
    recipe.asked().check(&checkpoint, &policy, resources)?;
    let grids = grids(&checkpoint, &policy, resources, global)?;
    let plan = gq_convert::plan_measured(&checkpoint, &policy, resources, tune.as_ref(), Some(&grids))?;
    let output = global.output();
    let estimate = Estimate::new(&plan, global.level()?);
    if output.json {
        let mut document = serde_json::to_value(&plan).map_err(gq_convert::ConvertError::from)?;
        document["lossless"] = lossless(&plan, &grids).into();
        document["estimate"] = serde_json::to_value(estimate).map_err(gq_convert::ConvertError::from)?;
        return output.document(&document);
    }
    let mut text = String::new();
    if tensors {
        let mut table = Table::new(&["<tensor", "<shape", "<source", "<encoding", "bytes", "<reason"]);
        for step in &plan.steps {
            table.row([
                units::printable(&step.tensor),
                shape(&step.shape),
                step.source_dtype.name().to_ascii_lowercase(),
                step.encoding.name(),
                units::count(step.bytes),
                step.reason.clone(),
            ]);
        }
        text = table.render();
        for dropped in &plan.dropped {
            let name = units::printable(&dropped.tensor);
            text +=
                &format!("left out: {name} ({}): {}\n", units::bytes(dropped.source_bytes), dropped.reason);
        }
        text.push('\n');
    }
    text += &groups(plan.steps.iter().map(|step| Row {
        encoding: step.encoding.name(),
        role: &step.role,
        elements: step.elements(),
        bytes: step.bytes,
        error: None,
    }));
    text += &left_out(&plan.left_out);
    text += &format!(
        "\nweights {} bytes ({}), {:.1} % of the source's {}; texts and tables come on top\nmemory  {} with {} threads\n",
        units::count(plan.payload_bytes),
        units::bytes(plan.payload_bytes),
        100.0 * plan.payload_bytes as f64 / plan.source_bytes.max(1) as f64,
        units::bytes(plan.source_bytes),
        units::bytes(plan.memory.peak),
        plan.memory.threads,
    );
    text += &match estimate {
        Some(Estimate { seconds, .. }) if seconds < 1.0 => "time    under a second\n".to_owned(),
        Some(estimate) => format!(
            "time    about {} on this machine with {} threads, if nothing else runs and the disk keeps up\n",
            units::seconds(estimate.seconds),
            estimate.threads,
        ),
        None => "time    not estimated: it depends on measurements or on a dense transform\n".to_owned(),
    };
    for line in lossless(&plan, &grids) {
        text += &format!("{line}\n");
    }
    text += &unmeasured(&plan).map(|line| format!("{line}\n")).unwrap_or_default();
    if let Some(nats) = plan.expected_divergence {
        let by = match plan.corrected {
            true => "corrected by trials",
            false => "predicted without trials",
        };
        text += &format!("expected divergence {nats:.2e} nats per token, of the tensors measured, {by}\n");
    }
    output.data(&text)
}

/// What to know about a budget that nothing was measured for.
fn unmeasured(plan: &Plan) -> Option<String> {
    let policy = &plan.policy;
    let line = "nothing was measured: bytes go where such tensors usually need them, and codes are rounded to nearest; \
                --tune or --calibration does much better";
    (policy.budget.is_some() && policy.calibration.is_none()).then(|| line.to_owned())
}

/// `[576, 1536]`.
pub fn shape(dims: &[u64]) -> String {
    let dims: Vec<String> = dims.iter().map(u64::to_string).collect();
    format!("[{}]", dims.join(", "))
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
