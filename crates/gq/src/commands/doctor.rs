//! `gq doctor`: what this machine can run, and what it lacks.

use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::machine::Machine;
use crate::options::budget::Asked;
use crate::options::kinds::Kv;
use crate::table::Table;
use crate::{source, units};
use gq_checkpoint::{ModelSpec, parse_config};
use gq_container::{Container, TextKind};
use gq_hub::HubConfig;
use gq_model::cuda::{self, GpuFacts};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Shown for figures that the system does not tell.
const NOT_KNOWN: &str = "not known";

/// NVIDIA's number on the PCI bus.
const NVIDIA: &str = "0x10de";

/// Say what this machine can run: processor, kernels, memory, disk, GPU and driver; which of your files fit it; and what is
/// missing, with the command that helps.
///
/// With MODELs, the exit code is 1 where none of them fits into the memory that is free.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  gq doctor                              the machine
  gq doctor smol.gq                      whether this file runs here
  gq doctor ./release --ctx 32k          which file of a folder fits, with room for 32k tokens
  gq doctor ./SmolLM2-135M-Instruct      what to convert it to
")]
pub struct DoctorArgs {
    /// .gq files, folders of them, checkpoint directories or GGUFs, here or on the Hub.
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// Tokens that keys and values are to have room for.
    #[arg(long, value_name = "TOKENS", default_value = "8192", value_parser = units::parse_tokens)]
    ctx: usize,
    /// How keys and values are stored.
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv: Kv,
}

/// Something that is not as good as it could be.
#[derive(Debug, Serialize)]
struct Missing {
    what: String,
    help: String,
}

/// A file and what it takes.
#[derive(Debug, Serialize)]
struct Candidate {
    file: String,
    file_bytes: u64,
    /// With keys, values and buffers.
    memory_bytes: u64,
    fits_memory: Option<bool>,
    /// Of the largest GPU; `None` where there is none.
    fits_gpu: Option<bool>,
    /// Whether it is a .gq file that runs as it is.
    converted: bool,
    #[serde(skip)]
    path: PathBuf,
}

pub fn run(args: &DoctorArgs, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let machine = Machine::detect();
    let gpus = cuda::gpus();
    let gpu = gpus.iter().flatten().flatten().max_by_key(|gpu| gpu.free);
    let here = Path::new(".");
    let hub = HubConfig::from_vars(|name| std::env::var(name).ok());
    let cache = hub.cache_dir.clone();
    let existing = cache.ancestors().find(|folder| folder.is_dir()).unwrap_or(here);
    let disks = [(here, gq_files::free_bytes(here)), (cache.as_path(), gq_files::free_bytes(existing))];
    let asked = Asked { size: None, bpw: None, fit: None, ctx: args.ctx, kv: args.kv.into() };
    let mut candidates = Vec::new();
    for model in &args.models {
        candidates.extend(found(model, &asked, machine.available_bytes, gpu, global)?);
    }
    let best = best(&candidates);
    let gpu_fault = match &gpus {
        Err(why) => Some(why.to_string()),
        Ok(gpus) if gpus.is_empty() => Some("the driver knows none".to_owned()),
        Ok(_) => None,
    };
    let mut missing = missing(&machine, gpu_fault.as_deref(), nvidia_on_the_bus());
    missing.extend(advice(&candidates, best, &machine, args));
    let none_fits = !candidates.is_empty() && candidates.iter().all(|one| one.fits_memory == Some(false));
    let failure = none_fits.then(|| {
        let message = "none of these fits into the memory that is free";
        let failure = Failure::new(Exit::Check, "doctor.memory", message);
        failure.limit(machine.available_bytes.unwrap_or(0))
    });
    if output.json {
        let disks = disks.iter().map(
            |(path, free)| serde_json::json!({ "path": path.display().to_string(), "free_bytes": free }),
        );
        let gpus = gpus.iter().flatten().enumerate().map(|(number, gpu)| match gpu {
            Ok(gpu) => serde_json::json!({
                "number": number, "name": gpu.name, "memory_bytes": gpu.total, "available_bytes": gpu.free,
            }),
            Err(why) => serde_json::json!({ "number": number, "error": why.to_string() }),
        });
        output.document(&serde_json::json!({
            "machine": machine,
            "disks": disks.collect::<Vec<_>>(),
            "gpus": gpus.collect::<Vec<_>>(),
            "no_gpu": gpu_fault,
            "ctx": args.ctx,
            "models": candidates,
            "best": best.map(|best| candidates[best].file.as_str()),
            "missing": missing,
        }))?;
        return failure.map_or(Ok(()), |failure| Err(failure.shown(true)));
    }
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| NOT_KNOWN.to_owned(), units::bytes);
    let mut text = format!(
        "gq         {}\nplatform   {}\nprocessor  {}, {} threads\nkernels    {} (of {})\nmemory     {}, {} available\n",
        machine.build(),
        machine.platform,
        machine.cpu.as_deref().unwrap_or(NOT_KNOWN),
        machine.threads,
        machine.level,
        machine.levels.join(", "),
        bytes(machine.memory_bytes),
        bytes(machine.available_bytes),
    );
    for (path, free) in &disks {
        text += &format!(
            "disk       {} free for {}\n",
            bytes(*free),
            units::printable(&path.display().to_string())
        );
    }
    text += &match (&gpus, &gpu_fault) {
        (_, Some(why)) => format!("gpu        none: {}\n", units::printable(why)),
        (gpus, None) => gpus
            .iter()
            .flatten()
            .enumerate()
            .map(|(number, gpu)| match gpu {
                Ok(gpu) => format!(
                    "gpu {number:<6} {}, {}, {} available\n",
                    units::printable(&gpu.name),
                    units::bytes(gpu.total),
                    units::bytes(gpu.free)
                ),
                Err(why) => format!("gpu {number:<6} {}\n", units::printable(&why.to_string())),
            })
            .collect(),
    };
    if !candidates.is_empty() {
        text += &format!(
            "\nwith room for {} tokens:\n{}",
            units::count(args.ctx as u64),
            table(&candidates, best)
        );
    }
    if missing.is_empty() {
        text += "\nnothing is missing\n";
    }
    for missing in &missing {
        text += &format!("\n- {}\n  {}\n", missing.what, missing.help);
    }
    output.data(&text)?;
    failure.map_or(Ok(()), Err)
}

/// The files that `model` is or has, the smallest first.
fn found(
    model: &Path,
    asked: &Asked,
    free: Option<u64>,
    gpu: Option<&GpuFacts>,
    global: &Global,
) -> Result<Vec<Candidate>, Failure> {
    let files: Vec<PathBuf> = match std::fs::read_dir(model) {
        Ok(folder) if !model.join("config.json").is_file() => {
            let paths = folder.filter_map(Result::ok).map(|entry| entry.path());
            paths.filter(|path| path.extension().is_some_and(|end| end == "gq")).collect()
        }
        _ => vec![source::find(model, global)?.path],
    };
    if files.is_empty() {
        let place = model.display();
        let message = format!("{place}: neither .gq files nor a checkpoint are in it");
        return Err(Failure::new(Exit::Input, "source.unknown", message).at(place));
    }
    let mut candidates = Vec::new();
    for path in files {
        let converted = !source::is_checkpoint(&path)?;
        let (spec, weights) = if converted { of_container(&path)? } else { of_checkpoint(&path, global)? };
        let (cache, work) = asked.around(&spec);
        let memory_bytes = weights.saturating_add(cache).saturating_add(work);
        candidates.push(Candidate {
            file: path.display().to_string(),
            file_bytes: weights,
            memory_bytes,
            fits_memory: free.map(|free| memory_bytes <= free),
            fits_gpu: gpu.map(|gpu| converted && weights.saturating_add(cache) <= gpu.free),
            converted,
            path,
        });
    }
    candidates.sort_by_key(|one| one.file_bytes);
    Ok(candidates)
}

fn of_container(path: &Path) -> Result<(ModelSpec, u64), Failure> {
    let container = Container::open(path)?;
    let Some(config) = container.text(TextKind::Config)? else {
        let message = format!("{}: it has no configuration, so nobody knows what it takes", path.display());
        return Err(Failure::new(Exit::Input, "doctor.no_config", message).at(path.display()));
    };
    Ok((parse_config(&config)?, container.file_bytes()))
}

fn of_checkpoint(path: &Path, global: &Global) -> Result<(ModelSpec, u64), Failure> {
    let checkpoint = source::checkpoint(path, global)?;
    let bytes = checkpoint.tensors().iter().map(|tensor| tensor.bytes).sum();
    Ok((checkpoint.spec().clone(), bytes))
}

/// The largest converted file that fits; where none is converted, the largest that fits.
fn best(candidates: &[Candidate]) -> Option<usize> {
    let fitting = candidates.iter().enumerate().filter(|(_, one)| one.fits_memory != Some(false));
    fitting.max_by_key(|(_, one)| (one.converted, one.file_bytes)).map(|(index, _)| index)
}

fn table(candidates: &[Candidate], best: Option<usize>) -> String {
    let mut table = Table::new(&["<file", "bytes", "memory", "<fits", "<gpu", "<"]);
    let said = |fits: Option<bool>| match fits {
        Some(true) => "yes",
        Some(false) => "no",
        None => "-",
    };
    for (index, one) in candidates.iter().enumerate() {
        let name =
            one.path.file_name().map_or_else(|| one.file.clone(), |name| name.to_string_lossy().into_owned());
        table.row([
            units::printable(&name),
            units::bytes(one.file_bytes),
            units::bytes(one.memory_bytes),
            said(one.fits_memory).to_owned(),
            said(one.fits_gpu).to_owned(),
            if best == Some(index) { "<- the best that fits" } else { "" }.to_owned(),
        ]);
    }
    table.render()
}

/// What the machine lacks. `card`: whether one of NVIDIA's is on the bus.
fn missing(machine: &Machine, gpu_fault: Option<&str>, card: bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut add = |what: String, help: &str| missing.push(Missing { what, help: help.to_owned() });
    if machine.level == "scalar" {
        let what = "the processor has neither AVX2 nor AVX-512: everything works, many times slower";
        add(what.to_owned(), "convert and run on a machine with AVX2 (Intel since 2013, AMD since 2015)");
    }
    if let Some(why) = gpu_fault.filter(|_| card) {
        add(
            format!("a card of NVIDIA's is in this machine and cannot be used: {why}"),
            "install NVIDIA's driver (nothing else of CUDA is needed), then: nvidia-smi && gq doctor",
        );
    }
    missing
}

/// What to do about models that are not converted or do not fit.
fn advice(
    candidates: &[Candidate],
    best: Option<usize>,
    machine: &Machine,
    args: &DoctorArgs,
) -> Vec<Missing> {
    let Some(available) = machine.available_bytes else { return Vec::new() };
    let source = candidates.iter().find(|one| !one.converted);
    let budget = units::asked_bytes(available / 10 * 9 / 1_000_000 * 1_000_000);
    match (best, source) {
        (Some(best), Some(source)) if !candidates[best].converted => vec![Missing {
            what: "a checkpoint runs as it is, and several times faster converted".to_owned(),
            help: format!("gq convert {}", source.path.display()),
        }],
        (None, Some(source)) => vec![Missing {
            what: "the checkpoint does not fit into the memory that is free".to_owned(),
            help: format!("gq plan {} --fit {budget} --ctx {}", source.path.display(), args.ctx),
        }],
        (None, None) if !candidates.is_empty() => vec![Missing {
            what: "no file fits into the memory that is free".to_owned(),
            help: format!(
                "fewer tokens (--ctx {} now), --kv q8, or from the original: gq convert SRC --fit {budget}",
                args.ctx
            ),
        }],
        _ => Vec::new(),
    }
}

/// Whether the system sees a display or 3D controller of NVIDIA's, with a driver or without.
fn nvidia_on_the_bus() -> bool {
    let Ok(devices) = std::fs::read_dir("/sys/bus/pci/devices") else { return false };
    let is = |folder: &Path| {
        let read = |name| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        read("vendor").trim() == NVIDIA && read("class").starts_with("0x03")
    };
    devices.filter_map(Result::ok).any(|device| is(&device.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(bytes: u64, fits: bool, converted: bool) -> Candidate {
        let (file, path) = (format!("{bytes}.gq"), PathBuf::from(format!("{bytes}.gq")));
        Candidate {
            file,
            file_bytes: bytes,
            memory_bytes: bytes,
            fits_memory: Some(fits),
            fits_gpu: None,
            converted,
            path,
        }
    }

    #[test]
    fn the_largest_file_that_fits_is_the_best_and_converted_ones_come_first() {
        let files = [candidate(1, true, true), candidate(2, true, true), candidate(3, false, true)];
        assert_eq!(best(&files), Some(1));
        assert_eq!(best(&[candidate(1, true, true), candidate(9, true, false)]), Some(0));
        assert_eq!(best(&[candidate(1, false, true)]), None);
        assert!(table(&files, Some(1)).lines().nth(2).unwrap().contains("<- the best"));
    }

    #[test]
    fn what_is_missing_comes_with_what_helps() {
        let mut machine = Machine::detect();
        machine.level = "scalar";
        let said = missing(&machine, Some("no driver"), true);
        assert_eq!(said.len(), 2);
        assert!(said[1].what.contains("no driver") && said[1].help.contains("nvidia-smi"), "{said:?}");
        // Without a card, having no driver is nothing that is missing.
        assert_eq!(missing(&machine, Some("no driver"), false).len(), 1);
    }
}
