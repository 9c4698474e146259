//! `gq bench`: speed of a model, with what limits it, or of the encodings themselves.

use crate::adapters::Adapters;
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::profile::{Profile, profile};
use crate::progress::{Progress, Stage, Unit};
use crate::table::Table;
use crate::{expected, source, units};
use gq_codec::{Rotation, code_of, study_encoding};
use gq_container::Container;
use gq_convert::Multiplications;
use gq_model::LogitRows;
use gq_tensor::{Encoding, RotationKind, RotationSpec, Storage};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rows that --codec measures.
const CODEC_ROWS: usize = 64;
/// Multiplications of a weight in codes that no feedback is known for.
const OTHERS: f64 = 1_500.0;

/// Measure the speed of a model (prompt and generation), or of the encodings with --codec.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:\n  gq bench smol.gq --threads 2\n  gq bench --codec --cols 2048")]
pub struct BenchArgs {
    /// A .gq file, a checkpoint directory or a GGUF, here or on the Hub (hf://ORG/NAME, hf://ORG/NAME/FILE.gq).
    #[arg(value_name = "MODEL", required_unless_present = "codec")]
    model: Option<PathBuf>,
    /// Measure each encoding's size, distortion and speed instead.
    #[arg(long, conflicts_with = "model")]
    codec: bool,
    /// Width of the rows that --codec measures.
    #[arg(long, default_value_t = 2048, requires = "codec", value_name = "N")]
    cols: usize,
    /// Tokens of the prompt.
    #[arg(long, default_value_t = 512, value_name = "N")]
    pp: usize,
    /// Tokens to generate.
    #[arg(long, default_value_t = 64, value_name = "N")]
    tg: usize,
    /// Times each measurement is repeated.
    #[arg(long, default_value_t = 3, value_name = "N")]
    repetitions: usize,
    /// Arithmetic of activations [default: int8 for a .gq file, f32 for a checkpoint].
    #[arg(long, value_name = "KIND")]
    activations: Option<crate::options::kinds::Activations>,
    /// Storage of keys and values: f16 halves their memory, q8 quarters it.
    #[arg(long, default_value = "f32", value_name = "KIND")]
    kv: crate::options::kinds::Kv,
    #[command(flatten)]
    device: crate::device::DeviceArgs,
}

pub fn run(args: &BenchArgs, global: &Global) -> Result<(), Failure> {
    source::with_threads(global, || match &args.model {
        Some(model) => of_model(model, args, global),
        None => of_codec(args, global),
    })?
}

/// Prompt and generation speed: the best of the repetitions, and all of them under `--json`.
fn of_model(path: &Path, args: &BenchArgs, global: &Global) -> Result<(), Failure> {
    let path = &source::find(path, global)?.path;
    let mut loaded = source::model_how(path, &Adapters::default(), args.activations, args.kv, global)?;
    args.device.place(&mut loaded, args.pp.max(1).max(args.tg + 1), global)?;
    let model = &loaded.model;
    let gpu = model.gpu().map(|(gpu, _)| gpu.name);
    let vocab = model.vocab_size() as u32;
    let prompt: Vec<u32> =
        (0..args.pp.max(1) as u32).map(|i| i.wrapping_mul(2_654_435_761) % vocab).collect();
    let (mut prefill, mut decode, mut logits) = (Vec::new(), Vec::new(), Vec::new());
    let repetitions = args.repetitions.max(1);
    // A few tokens tell how long all of them take.
    let some = &prompt[..prompt.len().min(16)];
    let mut seconds = |tokens: &[u32]| -> Result<f64, Failure> {
        let started = Instant::now();
        model.forward(tokens, &mut model.new_cache(tokens.len()), LogitRows::Last, &mut logits)?;
        Ok(started.elapsed().as_secs_f64() / tokens.len() as f64)
    };
    seconds(some)?; // whatever is only read once
    let (of_prompt, of_token) = (seconds(some)?, seconds(&some[..1])?);
    let each = of_prompt * prompt.len() as f64 + of_token * args.tg as f64;
    let total = (repetitions * (prompt.len() + args.tg)) as u64;
    let expected = Some(repetitions as f64 * each);
    let stage = Stage { name: "", unit: Unit::Items("tokens"), total, seconds: expected };
    let mut progress = Progress::staged(global, "bench", vec![stage]);
    for done in 0..repetitions {
        progress.set((done * (prompt.len() + args.tg)) as u64, "");
        let mut cache = model.new_cache(prompt.len());
        let started = Instant::now();
        model.forward(&prompt, &mut cache, LogitRows::Last, &mut logits)?;
        prefill.push(prompt.len() as f64 / started.elapsed().as_secs_f64());
        // A GPU has room for one.
        drop(cache);
        let mut cache = model.new_cache(args.tg + 1);
        model.forward(&prompt[..1], &mut cache, LogitRows::Last, &mut logits)?;
        let started = Instant::now();
        for i in 0..args.tg {
            model.forward(&[prompt[i % prompt.len()]], &mut cache, LogitRows::Last, &mut logits)?;
        }
        decode.push(args.tg as f64 / started.elapsed().as_secs_f64());
    }
    progress.finish();
    args.device.after(model, global);
    let best = |rates: &[f64]| rates.iter().fold(0.0f64, |m, &r| m.max(r));
    let output = global.output();
    // The products are measured as the CPU runs them.
    let profile = match source::is_checkpoint(path)? || gpu.is_some() {
        true => None,
        false => Some(profile(&Container::open(path)?, model.spec(), model.options())?),
    };
    if output.json {
        let mut document = serde_json::json!({
            "threads": global.threads(), "isa": global.isa()?.name(), "file_bytes": loaded.sizes.file_bytes,
            "pp": {"tokens": prompt.len(), "tokens_per_second": prefill},
            "tg": {"tokens": args.tg, "tokens_per_second": decode},
            "profile": profile,
        });
        if let Some(gpu) = gpu {
            document["gpu"] = gpu.into();
        }
        return output.document(&document);
    }
    let mut table = Table::new(&["<test", "tokens/s"]);
    table.row([format!("pp{}", prompt.len()), format!("{:.1}", best(&prefill))]);
    table.row([format!("tg{}", args.tg), format!("{:.1}", best(&decode))]);
    let of_token = profile.map_or_else(String::new, |profile| explain(&profile, 1.0 / best(&decode)));
    let (threads, level) = (global.threads(), global.isa()?.name());
    let place = gpu.map_or_else(String::new, |gpu| format!("GPU {}, host with ", units::printable(&gpu)));
    output.data(&format!("{}{place}{threads} threads, {level}\n{of_token}", table.render()))
}

/// Where the time of a generated token goes: products measured by themselves, and what is left for all else.
fn explain(profile: &Profile, token: f64) -> String {
    let mut table = Table::new(&["<one token", "<encoding", "ms", "share", "read", "GB/s"]);
    let mut row = |name: &str, encoding: &str, seconds: f64, bytes: Option<u64>| {
        table.row([
            name.to_owned(),
            encoding.to_owned(),
            format!("{:.3}", 1e3 * seconds),
            format!("{:.0} %", 100.0 * seconds / token),
            bytes.map_or_else(String::new, units::bytes),
            bytes.map_or_else(String::new, |bytes| format!("{:.1}", bytes as f64 / seconds / 1e9)),
        ]);
    };
    for part in &profile.products {
        row(part.role, &part.encoding, part.seconds, Some(part.bytes));
    }
    row("all products", "", profile.seconds(), Some(profile.bytes()));
    row("all else", "", (token - profile.seconds()).max(0.0), None);
    let memory = profile.memory_bytes_per_second;
    format!(
        "\n{}memory reads {:.1} GB/s: no token can take less than {:.3} ms\n",
        table.render(),
        memory / 1e9,
        1e3 * profile.bytes() as f64 / memory,
    )
}

/// Size and distortion of every encoding on rows of normal numbers, with the seconds it takes to code them.
fn of_codec(args: &BenchArgs, global: &Global) -> Result<(), Failure> {
    let (level, cols) = (global.isa()?, args.cols);
    let rotation = RotationSpec { kind: RotationKind::Hadamard, seed: 1 };
    let rotation = Rotation::new(rotation, cols)
        .map_err(|e| Failure::new(Exit::Usage, "bench.cols", e).at("--cols").actual(cols))?;
    let data = normal(cols * CODEC_ROWS);
    let mut table = Table::new(&["<encoding", "bits/weight", "rel. MSE", "M weights/s"]);
    let mut rows = Vec::new();
    let coded = |e: &Encoding| !e.is_exact() && !e.is_grid() && e.supports_cols(cols);
    let encodings: Vec<Encoding> = Encoding::all().into_iter().filter(coded).collect();
    let multiplications = |encoding: &Encoding| {
        let columns = code_of(Storage::unrotated(*encoding)).ok().and_then(|code| code.columns());
        columns.map_or(OTHERS, |code| code.multiplications())
    };
    let work = data.len() as f64 * encodings.iter().map(multiplications).sum::<f64>();
    let work = Multiplications { products: 0.0, codes: work };
    let seconds = Some(expected::speed(global)?.seconds(work));
    let stage = Stage { name: "", unit: Unit::Items("encodings"), total: encodings.len() as u64, seconds };
    let mut progress = Progress::staged(global, "bench", vec![stage]);
    for (done, encoding) in encodings.into_iter().enumerate() {
        progress.set(done as u64, &encoding.name());
        let started = Instant::now();
        let Ok(study) = study_encoding(level, encoding, &rotation, &data) else { continue };
        let rate = data.len() as f64 / started.elapsed().as_secs_f64() / 1e6;
        table.row([
            encoding.name(),
            format!("{:.3}", study.bits_per_weight),
            format!("{:.4e}", study.distortion.relative_mse()),
            format!("{rate:.1}"),
        ]);
        rows.push(serde_json::json!({
            "encoding": encoding, "bpw": study.bits_per_weight,
            "relative_mse": study.distortion.relative_mse(), "million_weights_per_second": rate,
        }));
    }
    progress.finish();
    match global.output().json {
        true => global.output().document(&rows),
        false => global.output().data(&table.render()),
    }
}

/// Sums of twelve uniform numbers: normal to well below the codes' own errors.
fn normal(n: usize) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..n).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect()
}
