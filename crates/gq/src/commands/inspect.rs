//! `gq inspect`: what is in a file or a checkpoint.

use crate::failure::Failure;
use crate::global::Global;
use crate::machine::Machine;
use crate::outcome::shape;
use crate::table::Table;
use crate::{chat, clock, source, units};
use gq_checkpoint::{ModelSpec, SourceTensor, parse_config};
use gq_container::{Container, Provenance, TensorEntry, TextKind};
use gq_convert::Report;
use gq_model::cuda::{GpuError, GpuFacts};
use gq_text::{ModelTexts, Tokenizer};
use jiff::civil::DateTime;
use std::path::{Path, PathBuf};

/// Show what is in a .gq file, a checkpoint directory or a GGUF, or what this machine offers.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  gq inspect smol.gq --tensors\n  gq inspect smol.gq --render-chat\n  gq inspect --machine --json"
)]
pub struct InspectArgs {
    /// A .gq file, a checkpoint directory or a GGUF, here or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "MODEL", required_unless_present = "machine")]
    model: Option<PathBuf>,
    /// Describe this machine instead: processor, kernels, memory.
    #[arg(long, conflicts_with = "model")]
    machine: bool,
    /// List every tensor.
    #[arg(long)]
    tensors: bool,
    /// Show what the chat template makes of a conversation, and with --json its tokens: a short sample, or FILE, a JSON
    /// list of messages, or an object of them as `messages` with variables such as add_generation_prompt and tools.
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, conflicts_with_all = ["machine", "tensors"])]
    render_chat: Option<Option<PathBuf>>,
    /// What a chat template that asks for the date is told, such as 2025-07-26 or 2025-07-26T13:05 [default: now].
    #[arg(long, value_name = "DATE", requires = "render_chat", value_parser = clock::parse_date)]
    date: Option<DateTime>,
}

pub fn run(args: &InspectArgs, global: &Global) -> Result<(), Failure> {
    let Some(model) = &args.model else { return machine(global) };
    let found = source::find(model, global)?;
    if let Some(conversation) = &args.render_chat {
        return chat::show(&found.path, conversation.as_deref(), args.date, global);
    }
    match source::is_checkpoint(&found.path)? {
        true => checkpoint(&found.path, args, global),
        false => container(&found.path, args, global),
    }
}

fn machine(global: &Global) -> Result<(), Failure> {
    let machine = Machine::detect();
    let output = global.output();
    let gpus = gq_model::cuda::gpus();
    if output.json {
        let mut document = serde_json::to_value(&machine).map_err(|e| Failure::internal("machine", &e))?;
        let found = gpus.as_deref().unwrap_or_default().iter().enumerate().map(|(number, gpu)| match gpu {
            Ok(gpu) => {
                let (major, minor) = gpu.capability;
                serde_json::json!({
                    "number": number, "name": gpu.name, "compute_capability": format!("{major}.{minor}"),
                    "memory_bytes": gpu.total, "available_bytes": gpu.free,
                })
            }
            Err(why) => serde_json::json!({ "number": number, "error": why.to_string() }),
        });
        document["gpus"] = found.collect::<Vec<_>>().into();
        document["no_gpu"] = gpus.as_ref().err().map(ToString::to_string).into();
        return output.document(&document);
    }
    let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "not known".to_owned(), units::bytes);
    let gpus = match gpus {
        Err(why) => format!("gpu        none: {why}\n"),
        Ok(gpus) if gpus.is_empty() => "gpu        none: the driver knows none\n".to_owned(),
        Ok(gpus) => gpus.iter().enumerate().map(|(number, gpu)| gpu_line(number, gpu)).collect(),
    };
    output.data(&format!(
        "gq         {}\nplatform   {}\nprocessor  {}\nthreads    {}\nkernels    {} (of {})\nmemory     {}, {} available\n{gpus}",
        machine.version,
        machine.platform,
        machine.cpu.as_deref().unwrap_or("not known"),
        machine.threads,
        machine.level,
        machine.levels.join(", "),
        bytes(machine.memory_bytes),
        bytes(machine.available_bytes),
    ))
}

fn gpu_line(number: usize, gpu: &Result<GpuFacts, GpuError>) -> String {
    let gpu = match gpu {
        Ok(gpu) => gpu,
        Err(why) => return format!("gpu {number:<6} {}\n", units::printable(&why.to_string())),
    };
    let (major, minor) = gpu.capability;
    format!(
        "gpu {number:<6} {}, compute capability {major}.{minor}, {}, {} available\n",
        units::printable(&gpu.name),
        units::bytes(gpu.total),
        units::bytes(gpu.free),
    )
}

fn checkpoint(model: &Path, args: &InspectArgs, global: &Global) -> Result<(), Failure> {
    let checkpoint = source::checkpoint(model, global)?;
    let tokenizer = source::try_checkpoints_tokenizer(&checkpoint, global.output())?;
    let output = global.output();
    if output.json {
        let tensors = checkpoint.tensors().iter().map(|t| {
            serde_json::json!({
                "name": t.name, "role": format!("{:?}", t.role), "shape": t.shape, "dtype": t.dtype,
                "stored": stored(t), "bytes": t.bytes,
            })
        });
        let files = checkpoint.files().iter().map(|f| serde_json::json!({"name": f.name, "bytes": f.bytes}));
        return output.document(&serde_json::json!({
            "family": format!("{:?}", checkpoint.spec().family),
            "layers": checkpoint.spec().layers.len(),
            "context": checkpoint.spec().max_positions,
            "quantized": checkpoint.quantized(),
            "tokens": tokenizer.as_ref().map(Tokenizer::vocab_size),
            "files": files.collect::<Vec<_>>(),
            "tensors": tensors.collect::<Vec<_>>(),
        }));
    }
    let mut text = model_line(checkpoint.spec());
    for file in checkpoint.files() {
        text += &format!("{}  {}\n", units::printable(&file.name), units::bytes(file.bytes));
    }
    if let Some(types) = checkpoint.quantized() {
        text += &format!("quantized already: {types} weights\n");
    }
    if let Some(tokenizer) = &tokenizer {
        text += &format!("tokenizer with {} tokens\n", units::count(tokenizer.vocab_size() as u64));
    }
    if args.tensors {
        let mut table = Table::new(&["<tensor", "<role", "<dtype", "<shape", "bytes"]);
        for tensor in by_name(checkpoint.tensors(), |tensor| &tensor.name) {
            let dims: Vec<u64> = tensor.shape.iter().map(|&n| n as u64).collect();
            table.row([
                units::printable(&tensor.name),
                format!("{:?}", tensor.role),
                stored(tensor),
                shape(&dims),
                units::count(tensor.bytes),
            ]);
        }
        text += &table.render();
    }
    output.data(&text)
}

/// What a model is, in a line.
fn model_line(spec: &ModelSpec) -> String {
    let context = units::count(spec.max_positions as u64);
    format!("{:?}, {} layers, made for {context} tokens of context\n", spec.family, spec.layers.len())
}

/// Tensors in the order of their names, in which layer 2 comes before layer 10.
fn by_name<T>(tensors: &[T], name: impl Fn(&T) -> &str) -> Vec<&T> {
    let mut sorted: Vec<&T> = tensors.iter().collect();
    sorted.sort_by_cached_key(|tensor| natural(name(tensor)));
    sorted
}

/// Pieces of a name, those of digits as numbers: text before a number, and the number.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (before, from) = rest.split_at(text);
        let digits = from.find(|c: char| !c.is_ascii_digit()).unwrap_or(from.len());
        let (number, after) = from.split_at(digits);
        pieces.push((before.to_owned(), number.parse().unwrap_or(u64::MAX)));
        rest = after;
    }
    pieces
}

/// The type in the file, lower case.
fn stored(tensor: &SourceTensor) -> String {
    let name = tensor.gguf.map_or(tensor.dtype.name(), |storage| storage.kind().name());
    name.to_ascii_lowercase()
}

fn container(model: &Path, args: &InspectArgs, global: &Global) -> Result<(), Failure> {
    let container = Container::open(model)?;
    let texts = ModelTexts::from_container(&container)?;
    let spec = texts.config.as_deref().map(parse_config).transpose()?;
    if let Some(spec) = &spec {
        source::try_tokenizer(&texts, spec)?;
    }
    let output = global.output();
    let provenance = container.provenance()?;
    let report = container.text(TextKind::Report)?;
    let report: Option<Report> = report.and_then(|text| serde_json::from_str(&text).ok());
    let payload: u64 = container.tensors().iter().map(|tensor| tensor.bytes).sum();
    let texts: u64 = container.texts().iter().map(|text| text.stored_bytes).sum();
    let rest = container.file_bytes() - payload - texts;
    if output.json {
        return output.document(&serde_json::json!({
            "family": spec.as_ref().map(|spec| format!("{:?}", spec.family)),
            "layers": spec.as_ref().map(|spec| spec.layers.len()),
            "context": spec.as_ref().map(|spec| spec.max_positions),
            "file_bytes": container.file_bytes(),
            "payload_bytes": payload,
            "text_bytes": texts,
            "table_and_padding_bytes": rest,
            "file_sha256": container.file_sha256().to_string(),
            "payload_sha256": container.payload_sha256().to_string(),
            "texts": container.texts().iter().map(|t| serde_json::json!({
                "kind": TextKind::from_code(t.kind).map(TextKind::name), "bytes": t.plain_bytes, "stored_bytes": t.stored_bytes,
            })).collect::<Vec<_>>(),
            "provenance": provenance,
            "tensors": container.tensors(),
            "report": report,
        }));
    }
    let mut text = spec.as_ref().map_or_else(String::new, |spec| model_line(spec) + "\n");
    if args.tensors {
        let mut table = Table::new(&[
            "<tensor",
            "<shape",
            "<encoding",
            "bytes",
            "bits/weight",
            "rel. MSE",
            "output error",
            "held out",
            "<reason",
        ]);
        let share = |error: Option<f64>| error.map_or_else(String::new, |error| format!("{error:.3e}"));
        for tensor in by_name(container.tensors(), |tensor| &tensor.name) {
            let told = report.as_ref().and_then(|r| r.tensors.iter().find(|t| t.name == tensor.name));
            let error = match told {
                Some(told) if told.relative_mse > 0.0 => format!("{:.3e}", told.relative_mse),
                Some(_) => "exact".to_owned(),
                None => "?".to_owned(),
            };
            table.row([
                units::printable(&tensor.name),
                shape(&tensor.shape),
                tensor.encoding.name(),
                units::count(tensor.bytes),
                format!("{:.3}", 8.0 * tensor.bytes as f64 / tensor.elements().max(1) as f64),
                error,
                share(told.and_then(|told| told.output_error)),
                share(told.and_then(|told| told.held_out_error)),
                told.map_or_else(String::new, |told| told.reason.clone()),
            ]);
        }
        text += &table.render();
        text.push('\n');
    }
    let mut table = Table::new(&["<part", "bytes"]);
    table.row(["tensors".to_owned(), units::count(payload)]);
    for entry in container.texts() {
        table.row([
            TextKind::from_code(entry.kind).map_or("unknown text", TextKind::name).to_owned(),
            units::count(entry.stored_bytes),
        ]);
    }
    table.row(["header, tables, padding".to_owned(), units::count(rest)]);
    table.row(["file".to_owned(), units::count(container.file_bytes())]);
    text += &table.render();
    if let Some(report) = &report {
        text += &format!(
            "\n{:.3} bits per weight, body {:.3}; relative error {:.3e}\n",
            report.bits, report.body_bits, report.relative_mse
        );
    }
    if let Some(provenance) = &provenance {
        text += &format!("made by {} {} from\n", provenance.tool, provenance.version);
        if let Some(repo) = &provenance.source.repo {
            let revision = provenance.source.revision.as_deref().unwrap_or("main");
            text += &format!("  hf://{}@{}\n", units::printable(repo), units::printable(revision));
        }
        for file in &provenance.source.files {
            text += &format!(
                "  {}  {}  {}\n",
                file.sha256,
                units::printable(&file.name),
                units::bytes(file.bytes)
            );
        }
        if let Some(types) = &provenance.source.quantized {
            text += &format!("  quantized already: {types} weights\n");
        }
        text += &calibration(&container, provenance);
    }
    text += &format!(
        "file sha256     {}\npayload sha256  {}\n",
        container.file_sha256(),
        container.payload_sha256()
    );
    output.data(&text)
}

/// Whether codes were rounded with measurements in view, in a line.
fn calibration(container: &Container, provenance: &Provenance) -> String {
    let loses = |entry: &TensorEntry| !entry.encoding.is_exact() && !entry.encoding.is_grid();
    match &provenance.calibration_sha256 {
        Some(digest) => format!("calibrated on text with sha256 {digest}\n"),
        None if container.tensors().iter().any(loses) => {
            "not calibrated: rounded without measurements\n".to_owned()
        }
        None => "stored without loss\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_stand_in_their_order() {
        let names = ["layers.10.b", "layers.2.b", "layers.2.a", "norm", "embed", "layers.0.a"];
        let sorted = by_name(&names, |name| name);
        let expected = ["embed", "layers.0.a", "layers.2.a", "layers.2.b", "layers.10.b", "norm"];
        assert_eq!(sorted.into_iter().copied().collect::<Vec<_>>(), expected);
    }
}
