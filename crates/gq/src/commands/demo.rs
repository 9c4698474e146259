//! `gq demo`: the whole job on an embedded model, offline: convert, verify, measure, generate.

use crate::commands::run;
use crate::failure::Failure;
use crate::global::Global;
use crate::guard::{Force, Out};
use crate::jobs::convert;
use crate::jobs::{evaluate, measure};
use crate::options::amounts::Measuring;
use crate::options::recipe::calibration;
use crate::progress::Progress;
use crate::signals::Work;
use crate::source::Loaded;
use crate::table::Table;
use crate::talk::Answer;
use crate::{expected, guard, signals, source, units};
use gq_calibrate::MeasurementsDir;
use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_convert::{Budget, Choice, ExecuteOptions, Policy, Resources};
use gq_eval::TextOptions;
use gq_files::Existing;
use gq_model::Sampling;
use gq_tensor::{Encoding, ScaleGroup};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of the embedded checkpoint; `testdata/README.md` says how they were made.
const FILES: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("../../../../testdata/demo/config.json")),
    ("model.safetensors", include_bytes!("../../../../testdata/demo/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../../../testdata/demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../../../../testdata/demo/tokenizer_config.json")),
    ("generation_config.json", include_bytes!("../../../../testdata/demo/generation_config.json")),
    ("chat_template.jinja", include_bytes!("../../../../testdata/demo/chat_template.jinja")),
];
/// Text that the model was not trained on.
const TEXT: &str = include_str!("../../../../testdata/demo/eval.txt");
/// Quick encodings, next to the default.
const BITS: [u8; 4] = [8, 5, 4, 3];
/// What the first file is called, and folders next to it.
const DEFAULT: &str = "the default";
const SOURCE: &str = "model";
const MEASUREMENTS: &str = "measurements";
const CTX: usize = 256;
const WINDOWS: usize = 16;
const TOKENS: usize = 48;

/// Convert, verify, measure and run a small model that is part of this program: as `gq convert` does unless told otherwise,
/// and in encodings that need no calibration.
#[derive(clap::Args, Debug)]
pub struct DemoArgs {
    /// Keep the checkpoint and the converted files in this directory [default: a temporary one, removed].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    #[command(flatten)]
    force: Force,
    /// Text to continue.
    #[arg(short, long, default_value = "In the beginning")]
    prompt: String,
}

pub fn run(args: &DemoArgs, global: &Global) -> Result<(), Failure> {
    let (dir, temporary) = match &args.output {
        Some(dir) => {
            guard::check(&[Out::work_folder(dir, args.force)], &[])?;
            begin_folder(dir)?;
            (dir.clone(), false)
        }
        None => (temporary_folder()?, true),
    };
    let _work = signals::during(Work::begun_again(begun(&dir)));
    let outcome = in_directory(&dir, &args.prompt, global);
    if temporary {
        // What is left in a temporary directory harms nobody.
        let _ = gq_files::remove_begun(&dir);
    }
    outcome
}

/// Makes a folder unless it is there.
fn begin_folder(dir: &Path) -> Result<(), Failure> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir).map_err(|error| Failure::io(dir, &error))?;
    gq_files::note_begun(dir);
    Ok(())
}

/// What is of no use before all of it is done; in a folder that was there, what is made in it.
fn begun(dir: &Path) -> Vec<PathBuf> {
    let files = names().into_iter().map(|name| file(dir, &name));
    let files = files.flat_map(|path| {
        let begun = [".partial", ".journal"].map(|end| gq_files::sibling(&path, end));
        [path].into_iter().chain(begun)
    });
    files.chain([SOURCE, MEASUREMENTS].map(|name| dir.join(name))).chain([dir.to_owned()]).collect()
}

/// The files of the demo: the default, and quick ones.
fn names() -> Vec<String> {
    [DEFAULT.to_owned()].into_iter().chain(BITS.map(quick_name)).collect()
}

fn quick_name(bits: u8) -> String {
    format!("--bits {bits}")
}

fn file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{}.gq", name.replace(' ', "-")))
}

/// A folder that nobody else has made or linked.
fn temporary_folder() -> Result<PathBuf, Failure> {
    let dir = std::env::temp_dir().join(format!("gq-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|e| Failure::io(&dir, &e))?;
    gq_files::note_begun(&dir);
    Ok(dir)
}

fn in_directory(dir: &Path, prompt: &str, global: &Global) -> Result<(), Failure> {
    let source = dir.join(SOURCE);
    begin_folder(&source)?;
    for (name, bytes) in FILES {
        let path = source.join(name);
        gq_files::write_whole(&path, bytes).map_err(|e| Failure::io(&path, &e))?;
    }
    source::with_threads(global, || measure(dir, &source, prompt, global))?
}

/// A file of the demo: what it is called there, its recipe, and what it is rounded by.
struct Made {
    name: String,
    policy: Policy,
    measurements: Option<MeasurementsDir>,
}

fn measure(dir: &Path, source: &Path, prompt: &str, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let checkpoint = Arc::new(source::checkpoint(source, global)?);
    let reference = source::model(source, None, global)?;
    let weights = units::count(reference.sizes.weights);
    output.note(&format!("a model of {weights} weights, trained on Jane Austen's novels for this demo"));
    let mut table = Table::new(&[
        "<model",
        "bytes",
        "bits/weight",
        "perplexity",
        "KL divergence",
        "same top",
        "tokens/s",
    ]);
    let original = sample(&reference, prompt)?;
    let mut samples = vec![("original".to_owned(), original.text.clone())];
    let quiet = Global { quiet: true, ..global.clone() };
    let mut rows = Vec::new();
    for made in files(&checkpoint, dir, global)? {
        let path = file(dir, &made.name);
        let resources = Resources { threads: global.threads(), max_memory: None };
        let measurements = made.measurements.as_ref();
        let (level, origin) = (global.isa()?, None);
        let how = ExecuteOptions {
            level,
            restart: true,
            measurements,
            origin,
            check: None,
            existing: Existing::Replaced,
        };
        convert::convert(&checkpoint, &made.policy, resources, &path, how, &quiet)?;
        Container::open(&path)?.verify(|_, _| {})?;
        output.note(&format!("{}: converted and verified, measuring", made.name));
        let loaded = source::model(&path, None, global)?;
        let options = TextOptions::default();
        let report = evaluate::on_text(&loaded, &reference, TEXT, CTX, Some(WINDOWS), options, &quiet)?;
        let answer = sample(&loaded, prompt)?;
        if rows.is_empty() {
            let sizes = &reference.sizes;
            table.row([
                "original".to_owned(),
                units::count(sizes.file_bytes),
                format!("{:.2}", 8.0 * sizes.file_bytes as f64 / sizes.weights.max(1) as f64),
                report.ppl.map_or_else(String::new, |ppl| format!("{:.3}", ppl.reference)),
                String::new(),
                String::new(),
                rate(&original),
            ]);
        }
        table.row([
            made.name.clone(),
            units::count(report.bytes.file),
            format!("{:.2}", report.bpw.file),
            report.ppl.map_or_else(String::new, |ppl| format!("{:.3}", ppl.model)),
            format!("{:.4} ± {:.4}", report.kld.mean, report.kld.stderr),
            format!("{:.1} %", 100.0 * report.top1),
            rate(&answer),
        ]);
        let tokens = answer.tokens.len().saturating_sub(1) as f64 / answer.seconds.max(1e-9);
        rows.push(serde_json::json!({"name": made.name, "report": report, "tokens_per_second": tokens}));
        samples.push((made.name, answer.text));
    }
    if output.json {
        let samples = samples.iter().map(|(name, text)| serde_json::json!({"model": name, "text": text}));
        return output.document(&serde_json::json!({
            "prompt": prompt, "rows": rows, "samples": samples.collect::<Vec<_>>(),
        }));
    }
    let mut text = table.render();
    text += "tokens/s: generated one after the other, on this machine\n";
    for (name, sample) in samples {
        text += &format!("\n{name}:\n  {}{}\n", prompt, sample.replace('\n', "\n  "));
    }
    text += "\nNext: `gq convert MODEL` does the first of these with a checkpoint of yours, `gq run FILE.gq` talks to it.\n";
    output.data(&text)
}

/// The default first, which is calibrated; then quick ones.
fn files(checkpoint: &Arc<Checkpoint>, dir: &Path, global: &Global) -> Result<Vec<Made>, Failure> {
    let how = Measuring::usual(checkpoint);
    let mut progress =
        Progress::staged(global, "calibrating", expected::measuring(checkpoint, &how, global)?);
    let place = dir.join(MEASUREMENTS);
    begin_folder(&place)?;
    let quiet = Global { quiet: true, ..global.clone() };
    let measurements = measure::measure(checkpoint, &how, &place, None, None, &mut progress, &quiet)?;
    progress.finish();
    let body = |bits| Choice::Coded(Encoding::Turbo { bits, group: ScaleGroup::Row });
    let policy = Policy {
        budget: Some(Budget::DEFAULT),
        calibration: Some(calibration(measurements.value())),
        ..Policy::new(body(4))
    };
    let first = Made { name: DEFAULT.to_owned(), policy, measurements: Some(measurements) };
    let quick = |bits| Made { name: quick_name(bits), policy: Policy::new(body(bits)), measurements: None };
    Ok(std::iter::once(first).chain(BITS.into_iter().map(quick)).collect())
}

fn rate(answer: &Answer) -> String {
    format!("{:.0}", answer.tokens.len().saturating_sub(1) as f64 / answer.seconds.max(1e-9))
}

fn sample(loaded: &Loaded, prompt: &str) -> Result<Answer, Failure> {
    run::answer(loaded, prompt, TOKENS, Sampling::default())
}
