//! `gq demo`: the whole job on an embedded model, offline: convert, verify, measure, generate.

use crate::cli::Global;
use crate::commands::{convert, eval, run};
use crate::failure::Failure;
use crate::guard::{self, Force, Out};
use crate::signals::{self, Work};
use crate::source::{self, Loaded};
use crate::table::Table;
use crate::talk::Answer;
use crate::units;
use gq_container::Container;
use gq_convert::{Choice, ExecuteOptions, Policy, Resources};
use gq_eval::TextOptions;
use gq_model::Sampling;
use gq_tensor::{Encoding, ScaleGroup};
use std::path::{Path, PathBuf};

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
const BITS: [u8; 6] = [8, 6, 5, 4, 3, 2];
const CTX: usize = 256;
const WINDOWS: usize = 16;
const TOKENS: usize = 48;

/// Convert, verify, measure and run a small model that is part of this program.
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
            (dir.clone(), false)
        }
        None => (temporary_folder()?, true),
    };
    let _work = temporary.then(|| signals::during(Work::begun_again([dir.clone()])));
    let outcome = in_directory(&dir, &args.prompt, global);
    if temporary {
        // What is left in a temporary directory harms nobody.
        let _ = std::fs::remove_dir_all(&dir);
    }
    outcome
}

/// A folder that nobody else has made or linked.
fn temporary_folder() -> Result<PathBuf, Failure> {
    let dir = std::env::temp_dir().join(format!("gq-demo-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|e| Failure::io(&dir, &e))?;
    Ok(dir)
}

fn in_directory(dir: &Path, prompt: &str, global: &Global) -> Result<(), Failure> {
    let source = dir.join("model");
    std::fs::create_dir_all(&source).map_err(|e| Failure::io(&source, &e))?;
    for (name, bytes) in FILES {
        let path = source.join(name);
        gq_files::write_whole(&path, bytes).map_err(|e| Failure::io(&path, &e))?;
    }
    source::with_threads(global, || measure(dir, &source, prompt, global))?
}

fn measure(dir: &Path, source: &Path, prompt: &str, global: &Global) -> Result<(), Failure> {
    let output = global.output();
    let checkpoint = source::checkpoint(source, global)?;
    let reference = source::model(source, None, global)?;
    let mut table = Table::new(&[
        "<model",
        "bytes",
        "bits/weight",
        "perplexity",
        "KL divergence",
        "same top",
        "tokens/s",
    ]);
    let (mut samples, mut rows) = (Vec::new(), Vec::new());
    let original = sample(&reference, prompt)?;
    samples.push(("original".to_owned(), original.text));
    for bits in BITS {
        let encoding = Encoding::Turbo { bits, group: ScaleGroup::Row };
        let path = dir.join(format!("{encoding}.gq"));
        let resources = Resources { threads: global.threads(), max_memory: None };
        let quiet = Global { quiet: true, ..global.clone() };
        let how =
            ExecuteOptions { level: global.level()?, restart: true, tune: None, origin: None, check: None };
        convert::convert(&checkpoint, &Policy::new(Choice::Coded(encoding)), resources, &path, how, &quiet)?;
        Container::open(&path)?.verify(|_, _| {})?;
        output.note(&format!("{encoding}: converted and verified, measuring"));
        let loaded = source::model(&path, None, global)?;
        let options = TextOptions::default();
        let report = eval::on_text(&loaded, &reference, TEXT, (CTX, Some(WINDOWS)), options, &quiet)?;
        let answer = sample(&loaded, prompt)?;
        let rate = answer.tokens.len().saturating_sub(1) as f64 / answer.seconds.max(1e-9);
        if rows.is_empty() {
            table.row([
                "original".to_owned(),
                units::count(reference.sizes.file_bytes),
                format!(
                    "{:.2}",
                    8.0 * reference.sizes.file_bytes as f64 / reference.sizes.weights.max(1) as f64
                ),
                report.ppl.map_or_else(String::new, |ppl| format!("{:.3}", ppl.reference)),
                String::new(),
                String::new(),
                format!("{:.0}", (original.tokens.len().max(1) - 1) as f64 / original.seconds.max(1e-9)),
            ]);
        }
        table.row([
            encoding.name(),
            units::count(report.bytes.file),
            format!("{:.2}", report.bpw.file),
            report.ppl.map_or_else(String::new, |ppl| format!("{:.3}", ppl.model)),
            format!("{:.4} ± {:.4}", report.kld.mean, report.kld.stderr),
            format!("{:.1} %", 100.0 * report.top1),
            format!("{rate:.0}"),
        ]);
        if [8, 4, 2].contains(&bits) {
            samples.push((encoding.name(), answer.text));
        }
        rows.push(serde_json::json!({"encoding": encoding, "report": report, "tokens_per_second": rate}));
    }
    if output.json {
        let samples = samples.iter().map(|(name, text)| serde_json::json!({"model": name, "text": text}));
        return output.document(&serde_json::json!({
            "prompt": prompt, "rows": rows, "samples": samples.collect::<Vec<_>>(),
        }));
    }
    let mut text = table.render();
    for (name, sample) in samples {
        text += &format!("\n{name}:\n  {}{}\n", prompt, sample.replace('\n', "\n  "));
    }
    output.data(&text)
}

fn sample(loaded: &Loaded, prompt: &str) -> Result<Answer, Failure> {
    run::answer(loaded, prompt, TOKENS, Sampling::default())
}
