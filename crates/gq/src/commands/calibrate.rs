//! `gq calibrate`: measures a checkpoint once, so that any size can be planned and made from it.

use crate::adapters::Adapters;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::guard::{Force, Out};
use crate::jobs::calibration_text::refuse_short;
use crate::jobs::measure::{Finished, finished, keeping, measure, refuse_foreign};
use crate::jobs::measuring_memory::{memory_line, promised, room};
use crate::jobs::{calibration_text, importance};
use crate::options::amounts::Measuring;
use crate::options::calibration::CalibrationArgs;
use crate::progress::{Progress, expectation};
use crate::signals::Work;
use crate::table::Table;
use crate::{expected, guard, signals, source, units};
use gq_calibrate::{Corrections, Measurements, MeasurementsDir};
use gq_checkpoint::{Checkpoint, Role};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Measure a checkpoint on calibration text, once for any number of conversions.
///
/// Writes measurements to a directory: second moments of each layer's inputs (GPTQ's Hessian), squared gradients (a Fisher
/// diagonal), and the KL divergence that rounding one group of tensors at a time causes. `gq convert --measurements DIR`
/// uses them to round and to decide which tensors get more bits.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq calibrate ./SmolLM2-135M -o smol.measurements
  gq calibrate ./SmolLM2-135M -o smol.measurements --calibration texts/
  gq calibrate ./SmolLM2-135M -o smol.measurements --imatrix        smol.measurements/imatrix.gguf for llama-quantize
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
    /// Write DIR/imatrix.gguf too: the importance matrix that llama-quantize takes. Of measurements that are finished it is
    /// made at once.
    #[arg(long)]
    imatrix: bool,
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
    calibration_text::check(args.calibration.calibration.as_deref())?;
    let found = source::find(&args.source, global)?;
    let checkpoint = Arc::new(source::checkpoint_with(&found.path, &args.loras, global)?);
    let how = args.calibration.thorough(&checkpoint)?;
    refuse_short(&checkpoint, &how)?;
    if args.dry_run {
        return promise(&checkpoint, &how, args, global);
    }
    if let (true, Finished::AsAsked(measurements)) =
        (args.imatrix, finished(&checkpoint, &how, &args.output, global)?)
        && how.has_trials(measurements.value())
        && !args.force.force
    {
        return show_imatrix(&checkpoint, &measurements, global);
    }
    let lacking = lacks_trials(&checkpoint, &how, args, global)?;
    if lacking.is_none() {
        room(&checkpoint, &how, &args.output, args.max_memory, global)?.refuse(&args.output, 0)?;
    }
    let [saved, _] = MeasurementsDir::marks(&args.output);
    let work = keeping(Work::that_continues([]), &args.output);
    let work = work.making([saved.clone()], "only its summary was not shown");
    let _work = signals::during(work);
    let mut progress = Progress::staged(global, "calibrate", expected::measuring(&checkpoint, &how, global)?);
    let (dir, max_memory) = (&args.output, args.max_memory);
    let measurements = measure(&checkpoint, &how, dir, lacking, max_memory, &mut progress, global)?;
    // Whatever they were measured for before.
    measurements.set_temporary(false)?;
    signals::whole(&saved);
    let imatrix = args.imatrix.then(|| measurements.imatrix_path());
    if let Some(path) = &imatrix {
        importance::write(&checkpoint, &measurements, path)?;
    }
    let seconds = progress.finish();
    let output = global.output();
    if output.json {
        return output.document(&serde_json::json!({
            "output": args.output.display().to_string(),
            "seconds": seconds,
            "measurements": measurements.value(),
            "imatrix": imatrix.map(|path| path.display().to_string()),
        }));
    }
    output.data(&summary(measurements.value(), &checkpoint, &args.output, seconds))
}

/// Writes the importance matrix of finished measurements.
fn show_imatrix(
    checkpoint: &Checkpoint,
    measurements: &MeasurementsDir,
    global: &Global,
) -> Result<(), Failure> {
    let path = measurements.imatrix_path();
    let bytes = importance::write(checkpoint, measurements, &path)?;
    let output = global.output();
    if output.json {
        let path = path.display().to_string();
        return output.document(&serde_json::json!({ "imatrix": path, "file_bytes": bytes }));
    }
    output.data(&format!("{}: {}\n", path.display(), units::bytes(bytes)))
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

/// What is measured in the output as it is asked for, but for the trials. Refuses to measure over others without --force.
fn lacks_trials(
    checkpoint: &Checkpoint,
    how: &Measuring,
    args: &CalibrateArgs,
    global: &Global,
) -> Result<Option<MeasurementsDir>, Failure> {
    let dir = &args.output;
    let of = match finished(checkpoint, how, dir, global)? {
        Finished::None => return Ok(None),
        Finished::AsAsked(measurements) if !how.has_trials(measurements.value()) => {
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

/// Where the predicted divergence comes from, by role.
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
