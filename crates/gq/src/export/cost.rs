//! What an export costs: the finished file against what it was made from, in KL divergence.

use super::Weights;
use crate::adapters::Adapters;
use crate::failure::Failure;
use crate::global::Global;
use crate::jobs::{calibration_text, evaluate};
use crate::machine::Machine;
use crate::options::kinds::Activations;
use crate::progress::{Progress, Stage};
use crate::source::Found;
use crate::{expected, source, units};
use gq_checkpoint::FileKind;
use gq_eval::{EvalReport, ModelLogits, Names, ReferenceRun, TextOptions, Windows, compare_on_text};
use gq_model::{KvType, kv_cache_bytes, work_bytes};
use gq_text::{ModelTexts, SpecialText, Tokenizer};
use std::path::{Path, PathBuf};

/// Tokens of a window.
const CTX: usize = 256;

/// Windows unless `--windows` says otherwise: of the built-in text one of each kind.
const WINDOWS: usize = 8;

/// Most weights of a model that is measured without being asked to.
const WEIGHTS: u64 = 1_000_000_000;

/// Name of the built-in text in reports.
const BUILTIN: &str = "the built-in text, which `gq calibrate` calibrates on too";

/// Whether and on what to measure.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Cost of the export")]
pub struct CostArgs {
    /// Write only, do not measure what it costs.
    #[arg(long, conflicts_with_all = ["text", "windows", "reference"])]
    no_measure: bool,
    /// Measure against this instead of SRC, such as the checkpoint that a .gq file was made from.
    #[arg(long, value_name = "REF")]
    pub reference: Option<PathBuf>,
    /// Text to measure on [default: what comes with gq, which `gq calibrate` also calibrates on unless told otherwise].
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Windows of 256 tokens to measure on; asks for the measurement whatever the size of the model [default: 8].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    windows: Option<u32>,
}

/// What will be measured, decided before anything is written.
pub enum Plan {
    /// The reference and the tokens.
    Measure {
        /// The SRC or what stands for it.
        reference: Found,
        /// Text and windows.
        windows: Windows,
        /// Name of the text.
        text: String,
    },
    /// Nothing, for this reason.
    Skip(String),
}

impl CostArgs {
    /// Whether nothing is measured whatever is exported.
    pub fn is_left_out(&self) -> bool {
        self.no_measure
    }

    fn asked(&self) -> bool {
        self.text.is_some() || self.windows.is_some() || self.reference.is_some()
    }

    /// Decides whether the file will be measured. `held` is what it takes in memory when it is run.
    pub fn plan(
        &self,
        source: Found,
        weights: &Weights,
        held: u64,
        global: &Global,
    ) -> Result<Plan, Failure> {
        if self.no_measure {
            return Ok(Plan::Skip("not asked for".to_owned()));
        }
        if weights.texts.tokenizer.is_none() {
            return Ok(Plan::Skip("the model has no tokenizer.json, so it cannot be run on text".to_owned()));
        }
        let reference = self.reference.as_deref().map(|path| source::find(path, global)).transpose()?;
        let reference = reference.unwrap_or(source);
        if !self.asked() {
            let count: u64 = weights.tensors.iter().map(|t| t.shape.iter().product::<usize>() as u64).sum();
            if count > WEIGHTS {
                return Ok(Plan::Skip(format!(
                    "{} weights are more than the {} that are measured without being asked to",
                    units::count(count),
                    units::count(WEIGHTS)
                )));
            }
            let spec = &weights.spec;
            let work = work_bytes(spec, CTX, KvType::F32, global.threads())
                + 2 * kv_cache_bytes(spec, CTX, KvType::F32);
            let needed = held + resident(&reference.path, global)? + work;
            if let Some(free) = Machine::detect().available_bytes.filter(|free| *free < needed) {
                return Ok(Plan::Skip(format!(
                    "both models take {}, {} of memory are free",
                    units::bytes(needed),
                    units::bytes(free)
                )));
            }
        }
        let texts = ModelTexts {
            config: Some(weights.texts.config.clone()),
            tokenizer: weights.texts.tokenizer.clone(),
            tokenizer_config: weights.texts.tokenizer_config.clone(),
            chat_template: weights.texts.chat_template.clone(),
            generation_config: weights.texts.generation_config.clone(),
            special_tokens_map: weights.texts.special_tokens_map.clone(),
        };
        let tokenizer = Tokenizer::new(&texts, &weights.spec)?;
        let count = self.windows.map_or(WINDOWS, |n| n as usize);
        let (windows, text) = match &self.text {
            Some(path) => {
                let tokens = tokenizer.encode(&evaluate::read_text(path)?, SpecialText::Plain)?;
                let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
                (Windows::new(&tokens, CTX, Some(count), tokenizer.bos()), name)
            }
            None => {
                let texts = gq_calibrate::builtin(calibration_text::template(&texts)?.as_ref())?;
                let sequences = gq_calibrate::sequences(&tokenizer, &texts, CTX * count, CTX)?;
                // Each begins with what it begins with: no window gets another BOS.
                (Windows::new(&sequences.concat(), CTX, Some(count), None), BUILTIN.to_owned())
            }
        };
        let windows = windows.map_err(gq_eval::EvalError::from)?;
        Ok(Plan::Measure { reference, windows, text })
    }
}

impl Plan {
    /// The stage of measuring, where there is one.
    pub fn stage(&self, weights: &Weights, global: &Global) -> Result<Option<Stage>, Failure> {
        let Plan::Measure { windows, .. } = self else { return Ok(None) };
        let used = weights.tensors.iter().filter(|tensor| tensor.shape.len() > 1);
        let used = used.map(|tensor| tensor.shape.iter().product::<usize>() as u64).sum();
        expected::comparing(used, CTX, windows.windows().len(), global).map(Some)
    }
}

/// Bytes that a model takes when it is run: decoded where it is coded as GGUFs are, else its file as it is.
fn resident(path: &Path, global: &Global) -> Result<u64, Failure> {
    if !source::is_checkpoint(path)? {
        return std::fs::metadata(path).map(|found| found.len()).map_err(|e| Failure::io(path, &e));
    }
    let checkpoint = source::checkpoint(path, global)?;
    match checkpoint.quantized() {
        Some(_) => Ok(4 * checkpoint.tensors().iter().map(|tensor| tensor.elements()).sum::<u64>()),
        None => {
            let weights = checkpoint.files().iter().filter(|file| file.kind == FileKind::Weights);
            Ok(weights.map(|file| file.bytes).sum())
        }
    }
}

/// Measures the finished file; activations are f32 on both sides, so that only weights differ.
/// A measurement that fails is a reason not to have one: the file is there all the same.
pub fn measure(
    plan: Plan,
    output: &Path,
    progress: &mut Progress,
    global: &Global,
) -> Result<EvalReport, String> {
    let measured = match plan {
        Plan::Skip(why) => return Err(why),
        Plan::Measure { reference, windows, text } => {
            compare(reference, &windows, text, output, progress, global)
        }
    };
    measured.map_err(|failure| failure.message)
}

fn compare(
    reference: Found,
    windows: &Windows,
    text: String,
    output: &Path,
    progress: &mut Progress,
    global: &Global,
) -> Result<EvalReport, Failure> {
    let model = source::model_with(output, &Adapters::default(), Some(Activations::F32), global)?;
    let original = source::model_with(&reference.path, &Adapters::default(), Some(Activations::F32), global)?;
    let mut step = |done: usize, of: usize| progress.stage("measuring", done as u64, of as u64, "");
    // No noise floor: it would be a third run of the same weights.
    let reference_run = ReferenceRun { logits: &mut ModelLogits::new(&original.model), again: None };
    let mut report = compare_on_text(
        &mut ModelLogits::new(&model.model),
        reference_run,
        windows,
        model.sizes,
        TextOptions::default(),
        &mut step,
    )?;
    original.check_unchanged()?;
    model.check_unchanged()?;
    let name = output.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    report.names = Names { model: name, reference: reference.name, text };
    Ok(report)
}

/// One line for people.
pub fn line(cost: &Result<EvalReport, String>) -> String {
    let report = match cost {
        Ok(report) => report,
        Err(why) => return format!("cost: not measured: {why}\n"),
    };
    let kld = match report.kld.mean {
        mean if mean < 1e-9 => "0".to_owned(),
        mean => units::with_error(mean, report.kld.stderr),
    };
    let ppl = report.ppl.map_or_else(String::new, |ppl| {
        format!(", perplexity {:.4} where {} has {:.4}", ppl.model, report.names.reference, ppl.reference)
    });
    format!(
        "cost: KL divergence from {} {kld} (99 %: {:.2e}), same top token {:.2} %{ppl}; {} tokens of {}\n",
        units::printable(&report.names.reference),
        // Interpolation leaves a hair below zero; what is no number must not become 0.
        if report.kld.p99 < 0.0 { 0.0 } else { report.kld.p99 },
        100.0 * report.top1,
        units::count(report.tokens as u64),
        units::printable(&report.names.text),
    )
}
