//! `gq plan`: what `gq convert` would do, without writing anything.

mod sizes;

use crate::device::Device;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::jobs::calibration_text;
use crate::jobs::convert;
use crate::jobs::measuring_memory;
use crate::options::amounts::Measuring;
use crate::options::budget::Asked;
use crate::options::calibration::CalibrationArgs;
use crate::options::decision::{Calibrate, Why};
use crate::options::recipe::Recipe;
use crate::outcome::{Row, groups, left_out, lossless, shape};
use crate::progress::Stage;
use crate::seen::{Checker, NoCheck};
use crate::source::Found;
use crate::table::Table;
use crate::{expected, outcome, progress, source, typed, units};
use gq_checkpoint::Checkpoint;
use gq_convert::{Estimate, Plan, Resources};
use gq_model::cuda::{self, DevicePlan, GpuError};
use gq_tensor::Storage;
use std::path::PathBuf;

/// Show what convert would do: every tensor's encoding and reason, the exact size, memory and time.
///
/// Nothing is measured here. Where `gq convert` would calibrate first, the size is exact and the encodings are a draft,
/// from sensitivities that are typical of each role. With --measurements DIR the plan is final.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq plan ./gemma-3-270m                             the default: size, memory, and how long measuring takes
  gq plan ./gemma-3-270m --fit 4GiB --ctx 32k        does it fit?
  gq plan ./gemma-3-270m --table --ctx 32k           which size to take
  gq plan ./gemma-3-270m --measurements gemma.measurements --bpw 3.5 --tensors
  gq plan ./gemma-3-270m --bits 3 --override 'down_proj=tq4'")]
pub struct PlanArgs {
    /// Checkpoint directory, a GGUF, or a repository (hf://ORG/NAME, hf://ORG/NAME@REV).
    #[arg(value_name = "SRC")]
    source: PathBuf,
    #[command(flatten)]
    recipe: Recipe,
    #[command(flatten)]
    calibration: CalibrationArgs,
    /// Show what the file takes of a GPU's memory with keys and values of --ctx tokens, versus what is free on it: cuda or
    /// cuda:N.
    #[arg(long, value_name = "DEVICE", group = "room")]
    device: Option<Device>,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Show sizes one below the other: bytes, the divergence that measurements (--measurements) lead to expect, memory with
    /// keys and values of --ctx tokens on this machine, and its GPU where there is one, tokens per second (an estimate from
    /// above, by how fast memory is read), and which one to take.
    #[arg(long, group = "room", conflicts_with_all = ["bits", "encoding", "size", "bpw", "fit", "target_kld", "tensors", "device"])]
    table: bool,
}

pub fn run(args: &PlanArgs, global: &Global) -> Result<(), Failure> {
    calibration_text::check_names(&args.recipe, args.calibration.calibration.as_deref())?;
    let found = source::find(&args.source, global)?;
    if args.table {
        return sizes::show(&found, &args.recipe, global);
    }
    show(
        &found,
        &args.recipe,
        &args.calibration,
        Shown { tensors: args.tensors, device: args.device },
        global,
    )
}

/// What a plan shows in addition.
#[derive(Clone, Copy, Default)]
pub struct Shown {
    /// Every tensor.
    pub tensors: bool,
    /// The memory of this GPU, and what the file takes of it.
    pub device: Option<Device>,
}

/// Plans and prints.
pub fn show(
    found: &Found,
    recipe: &Recipe,
    calibration: &CalibrationArgs,
    shown: Shown,
    global: &Global,
) -> Result<(), Failure> {
    let checkpoint = source::checkpoint_with(&found.path, &recipe.loras, global)?;
    source::refuse_quantized(&checkpoint, recipe.allow_requantize)?;
    let resources = Resources { threads: global.threads(), max_memory: recipe.max_memory };
    let calibrate = Calibrate::resolve(recipe, calibration, &checkpoint)?;
    if let (Calibrate::Measure(_), Some(limit)) = (&calibrate, recipe.target_kld) {
        let message =
            "which file keeps a divergence is known when it was measured, and a plan measures nothing";
        let failure = Failure::new(Exit::Usage, "plan.measures_nothing", message);
        return Err(failure.at("--target-kld").limit(limit).actual("no measurements"));
    }
    let measurements = recipe.measurements(&checkpoint, None)?;
    let measured = measurements.as_ref().map(gq_calibrate::MeasurementsDir::value);
    let policy = recipe.policy(&checkpoint, measured);
    recipe.asked().check(&checkpoint, &policy, resources)?;
    let grids = convert::grids_shown(&checkpoint, &policy, resources, global)?;
    let plan = gq_convert::plan_measured(&checkpoint, &policy, resources, measured, Some(&grids))?;
    source::refuse_rounding(&checkpoint, &plan, recipe.allow_requantize)?;
    let first = match &calibrate {
        Calibrate::Measure(how) => Some(how.clone().leaving_out(plan.certain(), &checkpoint)),
        Calibrate::Measured | Calibrate::Without(_) => None,
    };
    let first = first.filter(|how| how.wants_some(&checkpoint));
    // Refused as the conversion would be.
    let measuring = first.as_ref();
    let measuring = measuring
        .map(|how| measuring_memory::promised(&checkpoint, how, recipe.max_memory, global))
        .transpose()?;
    let stages = match &first {
        Some(how) => {
            let mut stages = expected::measuring(&checkpoint, how, global)?;
            stages.push(expected::coding(&plan, true, global)?);
            stages
        }
        None if measurements.is_some() => vec![expected::coding(&plan, true, global)?],
        None => Vec::new(),
    };
    let calibrated = match calibrate {
        Calibrate::Without(Why::Large(_)) if !plan.is_lossless() => {
            Some(expected::calibrated(&checkpoint, calibration.quick(&checkpoint), &plan, global)?)
        }
        _ => None,
    };
    let check = Checker::new(NoCheck::default(), global).within(recipe.max_memory).memory(&checkpoint)?;
    let on_gpu = shown.device.and_then(|device| on_gpu(&checkpoint, &plan, recipe.asked(), device));
    let output = global.output();
    let estimate = Estimate::new(&plan, global.isa()?);
    if output.json {
        let mut document = serde_json::to_value(&plan).map_err(gq_convert::ConvertError::from)?;
        document["lossless"] = lossless(&plan, &grids).into();
        document["estimate"] = serde_json::to_value(estimate).map_err(gq_convert::ConvertError::from)?;
        document["measures_first"] = first.is_some().into();
        document["measuring"] = measuring.map_or(serde_json::Value::Null, |memory| {
            serde_json::json!({
                "peak_memory_bytes": memory.peak,
                "spilled_bytes": memory.spilled,
                "saved_bytes": memory.saved,
            })
        });
        document["check_memory_bytes"] = check.into();
        if let Some((memory, free)) = &on_gpu {
            document["gpu_memory"] = serde_json::json!({
                "total_bytes": memory.total(), "weights_bytes": memory.weights, "cache_bytes": memory.cache,
                "buffers_bytes": memory.scratch, "context": memory.context, "available_bytes": free.as_ref().ok(),
            });
        }
        document["calibrated"] = calibrated.map_or(serde_json::Value::Null, |stages| {
            let seconds: f64 = stages.iter().filter_map(|stage| stage.seconds).sum();
            serde_json::json!({ "command": typed::calibrated_conversion(), "seconds": seconds })
        });
        return output.document(&document);
    }
    let mut text = String::new();
    if shown.tensors {
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
    if let Some((memory, free)) = &on_gpu {
        text += &gpu_line(memory, free.as_ref());
    }
    if let Some(memory) = measuring {
        text += &format!("measure {}\n", measuring_memory::memory_words(memory));
    }
    if check > 0 {
        text += &format!(
            "check   {} of memory to try the tokenizer, before and after the work; --no-check leaves it out\n",
            units::bytes(check)
        );
    }
    text += &time(estimate, &stages);
    for line in lossless(&plan, &grids) {
        text += &format!("{line}\n");
    }
    text += &first.map_or_else(String::new, |how| draft(&how, &plan));
    match calibrate {
        Calibrate::Measure(_) if plan.is_lossless() => {
            text += "every weight is stored without loss: nothing is measured\n";
        }
        Calibrate::Without(why) if !plan.is_lossless() => {
            let quick = format!("gq convert {}", found.path.display());
            text += &format!("{}\n", why.sentence(&quick, &typed::calibrated_conversion()));
            if let Some(all) = calibrated.as_deref().and_then(progress::expectation) {
                text += &format!("that takes {all}\n");
            }
        }
        _ => {}
    }
    text += &outcome::expectation(&plan).unwrap_or_default();
    output.data(&text)
}

/// What a finished file takes of a GPU, and what is free there, or why that is not known; nothing for a CPU.
fn on_gpu(
    checkpoint: &Checkpoint,
    plan: &Plan,
    asked: Asked,
    device: Device,
) -> Option<(DevicePlan, Result<u64, GpuError>)> {
    if device == Device::Cpu {
        return None;
    }
    let steps = plan.steps.iter();
    let tensors = steps.map(|step| (&*step.tensor, &*step.shape, Storage::new(step.encoding, step.rotation)));
    let memory = cuda::planned(checkpoint.spec(), tensors, asked.ctx, asked.kv);
    let free = cuda::gpus().and_then(|gpus| {
        let number = match device {
            Device::Cuda(number) => number,
            // The first that opens, or the first that does not and why.
            _ => gpus.iter().position(Result::is_ok).unwrap_or(0),
        };
        let none = GpuError::NoDevice { asked: number, count: gpus.len() };
        Ok(gpus.into_iter().nth(number).ok_or(none)??.free)
    });
    Some((memory, asked.fit.map_or(free, Ok)))
}

fn gpu_line(memory: &DevicePlan, free: Result<&u64, &GpuError>) -> String {
    let fits = match free {
        Ok(free) if *free < memory.total() => {
            format!("{} are there: it does not fit", units::bytes(*free))
        }
        Ok(free) => format!("{} are there: it fits", units::bytes(*free)),
        Err(why) => why.to_string(),
    };
    format!(
        "gpu     {}: {} of weights, {} of keys and values of {} tokens, {} of buffers; {fits}\n",
        units::bytes(memory.total()),
        units::bytes(memory.weights),
        units::bytes(memory.cache),
        units::count(memory.context as u64),
        units::bytes(memory.scratch),
    )
}

/// What to know of a plan that measurements will change.
fn draft(how: &Measuring, plan: &Plan) -> String {
    let what = match plan.policy.budget {
        Some(_) => "where the bytes go is a draft: ",
        None => "",
    };
    format!(
        "{what}`gq convert` measures first, on {} tokens of {}\n",
        units::count(how.tokens as u64),
        how.text_words()
    )
}

/// What it takes on this machine.
fn time(estimate: Option<Estimate>, stages: &[Stage]) -> String {
    if let Some(all) = progress::expectation(stages).filter(|_| !stages.is_empty()) {
        return format!("time    {all}\n");
    }
    match estimate {
        Some(Estimate { seconds, .. }) if seconds < 1.0 => "time    under a second\n".to_owned(),
        Some(estimate) => format!(
            "time    about {} on this machine with {} threads at its present load, if the disk keeps up\n",
            units::rough_seconds(estimate.seconds),
            estimate.threads,
        ),
        None => "time    not estimated: a dense transform or a reference mode\n".to_owned(),
    }
}
