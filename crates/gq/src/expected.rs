//! What long work is expected to take on this machine, for the line that a command begins with and for its progress.

use crate::failure::Failure;
use crate::global::Global;
use crate::options::amounts::{Measuring, TextSource};
use crate::progress::{Stage, Unit};
use crate::source::Loaded;
use crate::{rates, source};
use gq_checkpoint::Checkpoint;
use gq_convert::{Effort, Estimate, Multiplications, Pace, Plan, Speed};
use gq_model::ActivationMode;
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// Time of a product in `gq run` and `gq eval` by that of one in the fixed arithmetic of measurements: with activations
/// in single precision, and with int8 ones.
const SINGLE: f64 = 0.8;
const INT8: f64 = 0.35;

/// Passes that a token of a model's own text takes: conversations are written side by side.
const WRITING: f64 = 1.5;

/// Multiplications that a byte takes while grids are looked for, half of the way between weights on none and weights that
/// sit on one.
const GRID: f64 = 120.0;

/// How fast this machine is, tried once: what a command says at its beginning and later goes together.
pub fn speed(global: &Global) -> Result<Speed, Failure> {
    static TRIED: OnceLock<Speed> = OnceLock::new();
    if let Some(speed) = TRIED.get() {
        return Ok(*speed);
    }
    let level = global.isa()?;
    let speed = source::with_threads(global, || Speed::probe(level))?;
    Ok(*TRIED.get_or_init(|| speed))
}

/// The stages of measuring.
pub fn measuring(checkpoint: &Checkpoint, how: &Measuring, global: &Global) -> Result<Vec<Stage>, Failure> {
    let layers = checkpoint.spec().layers.len() as u64 + 1;
    let sequences = how.gradient_tokens.div_ceil(how.ctx.max(1)) as u64;
    let wanted: BTreeSet<&str> = how.wanted(checkpoint).collect();
    let speed = speed(global)?;
    let effort = Effort::new(checkpoint, &|name| wanted.contains(name));
    let text = Stage { name: "text", ..writing(how.tokens, effort.pass, global)? };
    let expected = effort.measuring(how.amounts());
    let units = [
        ("gradients", "sequences", sequences),
        ("layers", "", layers),
        ("trials", "%", 100),
        ("logits", "", 1),
    ];
    let stages = units.into_iter().zip(expected).map(|((name, items, total), expected)| Stage {
        name,
        unit: Unit::Items(items),
        total,
        seconds: Some(speed.seconds(expected)),
    });
    let asked = [how.gradient_tokens > 0, true, how.trial_tokens > 0, how.trial_tokens > 0];
    let stages = stages.zip(asked).filter_map(|(stage, asked)| asked.then_some(stage));
    let written = matches!(how.source(), TextSource::SelfText).then_some(text);
    Ok(written.into_iter().chain(stages).collect())
}

/// The part of the time of trials that goes into rounding weights, 0 to 1; the rest goes into passes through layers.
pub fn rounding_share(checkpoint: &Checkpoint, how: &Measuring, global: &Global) -> Result<f64, Failure> {
    let wanted: BTreeSet<&str> = how.wanted(checkpoint).collect();
    let effort = Effort::new(checkpoint, &|name| wanted.contains(name));
    let ([_, _, trials, _], speed) = (effort.measuring(how.amounts()), speed(global)?);
    Ok(speed.seconds(effort.rounding) / speed.seconds(trials).max(f64::MIN_POSITIVE))
}

/// The stage of looking for grids: weights that sit on one are read in full.
pub fn grids(checkpoint: &Checkpoint, global: &Global) -> Result<Stage, Failure> {
    let total: u64 = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
    let seconds = Some(speed(global)?.seconds(GRID * total as f64));
    Ok(Stage { name: "grids", unit: Unit::Bytes, total, seconds })
}

/// The stage of coding: by what is multiplied where measurements decide, by a trial of each encoding where not.
pub fn coding(plan: &Plan, calibrated: bool, global: &Global) -> Result<Stage, Failure> {
    let seconds = match calibrated {
        true => Some(speed(global)?.seconds(Effort::coding(plan))),
        false => Estimate::new(plan, global.isa()?).map(|estimate| estimate.seconds),
    };
    Ok(Stage { name: "coding", unit: Unit::Bytes, total: plan.source_bytes, seconds })
}

/// The stages of a conversion to another program's types: which of them each of `matrices` `(rows, cols)` gets, and writing
/// `bytes` of them. Without `choice` types are known.
pub fn types(
    checkpoint: &Checkpoint,
    pace: Pace,
    matrices: &[(usize, usize)],
    calibrated: bool,
    choice: bool,
    bytes: u64,
    global: &Global,
) -> Result<[Stage; 2], Failure> {
    let (speed, threads) = (speed(global)?, global.threads());
    let factors = if calibrated { Effort::new(checkpoint, &|_| true).factoring() } else { 0.0 };
    let seconds = |(seconds, products): (f64, f64)| seconds + speed.seconds(products + factors);
    let tried = if choice { seconds(pace.trying(matrices, calibrated, threads)) } else { 0.0 };
    let written = seconds(pace.rounding(matrices, calibrated, threads)) + rates::writing(bytes);
    let stage = |name, seconds| Stage { name, unit: Unit::Bytes, total: 1, seconds: Some(seconds) };
    Ok([stage("types", tried), stage("writing", written)])
}

/// The stages of a conversion of a large model, were it calibrated: measuring `how`, less what `plan` stores without loss,
/// and coding.
pub fn calibrated(
    checkpoint: &Checkpoint,
    how: Measuring,
    plan: &Plan,
    global: &Global,
) -> Result<Vec<Stage>, Failure> {
    let how = how.leaving_out(plan.certain(), checkpoint);
    let mut stages = measuring(checkpoint, &how, global)?;
    stages.push(coding(plan, true, global)?);
    Ok(stages)
}

/// The stage of a model writing so many tokens, each of which takes so many multiplications in a pass.
pub fn writing(tokens: usize, pass: f64, global: &Global) -> Result<Stage, Failure> {
    let seconds = Some(speed(global)?.seconds(WRITING * tokens as f64 * pass));
    Ok(Stage { name: "", unit: Unit::Items("tokens"), total: tokens as u64, seconds })
}

/// The stage of digesting so many bytes.
pub fn digesting(total: u64) -> Stage {
    Stage { name: "", unit: Unit::Bytes, total, seconds: Some(rates::digesting(total)) }
}

/// Seconds of one file on the way to a divergence: coded as `plan` says, and measured on `held_out` tokens.
pub fn trial_file(
    checkpoint: &Checkpoint,
    plan: &Plan,
    held_out: usize,
    global: &Global,
) -> Result<Option<f64>, Failure> {
    let pass = Effort::new(checkpoint, &|_| false).pass;
    // The original and the file, in the fixed arithmetic.
    let measured = speed(global)?.seconds(2.0 * held_out as f64 * pass);
    Ok(coding(plan, true, global)?.seconds.map(|coded| coded + measured))
}

/// The stage of comparing two models of so many weights, both in single precision, on windows of `ctx` tokens.
pub fn comparing(weights: u64, ctx: usize, windows: usize, global: &Global) -> Result<Stage, Failure> {
    let seconds = speed(global)?.seconds(2.0 * SINGLE * (ctx * windows) as f64 * weights as f64);
    let (unit, total) = (Unit::Items("windows"), windows as u64);
    Ok(Stage { name: "measuring", unit, total, seconds: Some(seconds) })
}

/// The stage of running a model on rows of so many tokens in all.
pub fn running(model: &Loaded, rows: u64, tokens: u64, global: &Global) -> Result<Stage, Failure> {
    let seconds = Some(speed(global)?.seconds(tokens as f64 * pass(model)));
    Ok(Stage { name: "", unit: Unit::Items("rows"), total: rows, seconds })
}

/// Multiplications of a token, by what they take in the arithmetic of measurements.
fn pass(loaded: &Loaded) -> f64 {
    let slower = match loaded.model.options().activations {
        ActivationMode::F32 => SINGLE,
        ActivationMode::Int8 => INT8,
    };
    slower * loaded.sizes.weights as f64
}

/// Seconds of comparing two models on so many tokens, of which the reference is run `references` times.
pub fn evaluation(
    model: &Loaded,
    reference: &Loaded,
    references: usize,
    tokens: usize,
    global: &Global,
) -> Result<f64, Failure> {
    let passes = pass(model) + references as f64 * pass(reference);
    Ok(speed(global)?.seconds(tokens as f64 * passes))
}

/// The stage of evaluating so many conversions on so many tokens: the original runs once, its logits are kept.
pub fn evaluations(
    checkpoint: &Checkpoint,
    tokens: usize,
    models: usize,
    global: &Global,
) -> Result<Stage, Failure> {
    let passes = if models == 0 { 0.0 } else { SINGLE + INT8 * models as f64 };
    let all = tokens as f64 * passes * Effort::new(checkpoint, &|_| false).pass;
    let (unit, seconds) = (Unit::Items("models"), Some(speed(global)?.seconds(all)));
    Ok(Stage { name: "evaluations", unit, total: models as u64, seconds })
}

/// One stage of work that multiplies so much.
pub fn single(
    items: &'static str,
    total: u64,
    multiplications: impl Into<Multiplications>,
    global: &Global,
) -> Result<Vec<Stage>, Failure> {
    let seconds = Some(speed(global)?.seconds(multiplications));
    Ok(vec![Stage { name: "", unit: Unit::Items(items), total, seconds }])
}
