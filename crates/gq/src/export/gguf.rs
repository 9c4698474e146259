//! A GGUF for llama.cpp and Ollama: planned, its tokens compared with the source's, written, looked at and measured.

use super::cost::{self, CostArgs};
use super::ranged::{self, Written};
use super::tokens::{self, Accepted};
use super::{Weights, begin, modelfile, rate, rows_of};
use crate::failure::Failure;
use crate::global::Global;
use crate::guard;
use crate::seen::{Checker, Destination, NoCheck, Seen};
use crate::source::Found;
use gq_checkpoint::gguf_model::{ExportOptions, ExportPlan, ExportSource, ExportTensor};
use gq_eval::EvalReport;
use gq_text::{ModelTexts, Tokenizer};
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// What is to be written, and how it is looked at.
pub struct Asked<'a> {
    /// Where it goes.
    pub destination: Destination<'a>,
    /// Types and names.
    pub options: ExportOptions,
    /// Which differences between the source's tokens and the GGUF's are accepted.
    pub accepted: Accepted,
    /// Whether a Modelfile goes next to it.
    pub ollama: bool,
    /// Whether it is looked at.
    pub no_check: NoCheck,
    /// Whether and on what it is measured.
    pub cost: &'a CostArgs,
}

/// A finished GGUF.
pub struct Exported {
    /// The file.
    pub written: Written,
    /// The normalizer that was left out.
    pub normalizer_not_carried: Option<&'static str>,
    /// The Modelfile.
    pub modelfile: Option<PathBuf>,
    /// What the export costs, or why that was not measured.
    pub cost: Result<EvalReport, String>,
    /// What was seen of it.
    pub seen: Seen,
}

/// Writes the GGUF of `weights`, which `found` was opened as; on the threads of the current pool.
pub fn export(
    asked: &Asked<'_>,
    found: Found,
    weights: &Weights,
    global: &Global,
) -> Result<Exported, Failure> {
    let output = asked.destination.path;
    let tensors: Vec<_> = weights.tensors.iter().map(|t| (t.name.clone(), t.shape.clone())).collect();
    let source = ExportSource { spec: &weights.spec, texts: &weights.texts, tensors: &tensors };
    let own = tokens::own(weights)?;
    let plan = ExportPlan::new(source, &asked.options)?;
    tokens::compare(own.as_ref(), weights, &plan, asked.accepted, global.output())?;
    let coded = plan.tensors().iter().any(|tensor| tensor.new.kind.is_quantized());
    let count = |tensor: &ExportTensor| tensor.new.shape.iter().map(|&n| n as u64).product::<u64>();
    let held = if coded { 4 * plan.tensors().iter().map(count).sum::<u64>() } else { plan.file_bytes() };
    let measured = asked.cost.plan(found, weights, held, global)?;
    guard::space(output, plan.file_bytes())?;
    let made = asked.ollama.then(|| ollama(output, weights)).transpose()?;
    let targets = plan.tensors().iter().flat_map(|tensor| {
        let ((rows, cols), kind) = (rows_of(&tensor.new.shape), tensor.new.kind);
        let runs = tensor.source_rows(0..rows);
        // Parts of a stack stand in one tensor of the source, parts of a tensor by themselves.
        let several = tensor.sources().len() > 1;
        let named = runs.into_iter().take(if several { usize::MAX } else { 1 });
        named.map(move |(name, run)| {
            let rows = if several { run.len() } else { rows };
            rate::Target { name, shape: (rows, cols), kind }
        })
    });
    let writing = rate::writing(weights, &targets.collect::<Vec<_>>(), plan.file_bytes())?;
    let progress = RefCell::new(begin(weights, writing, &measured, global)?);
    let checker = Checker::new(asked.no_check, global);
    let written = checker.through(asked.destination, &|| weights.check_unchanged(), |path| {
        let options = asked.options.clone();
        ranged::write(source, options, path, weights, &|done| progress.borrow_mut().set(done, ""))
    })?;
    let mut progress = progress.into_inner();
    if let Some((path, modelfile)) = &made {
        guard::write_whole(path, &modelfile.text, asked.destination.existing)?;
        modelfile.warnings.iter().for_each(|warning| global.output().warn(warning));
    }
    let cost = cost::measure(measured, output, &mut progress, global);
    progress.finish();
    Ok(Exported {
        written,
        normalizer_not_carried: own.as_ref().filter(|own| own.composes()).map(|_| "NFC"),
        modelfile: made.map(|(path, _)| path),
        cost,
        seen: checker.seen(),
    })
}

/// Where the Modelfile of a GGUF goes.
pub fn modelfile_path(output: &Path) -> PathBuf {
    output.with_extension("Modelfile")
}

/// The Modelfile next to `output`.
fn ollama(output: &Path, weights: &Weights) -> Result<(PathBuf, modelfile::Modelfile), Failure> {
    let texts = &weights.texts;
    let texts = ModelTexts {
        config: Some(texts.config.clone()),
        tokenizer: texts.tokenizer.clone(),
        tokenizer_config: texts.tokenizer_config.clone(),
        chat_template: texts.chat_template.clone(),
        generation_config: texts.generation_config.clone(),
        special_tokens_map: texts.special_tokens_map.clone(),
    };
    let tokenizer = texts.tokenizer.is_some().then(|| Tokenizer::new(&texts, &weights.spec)).transpose()?;
    let file = output.file_name().unwrap_or_default().to_string_lossy();
    let made = modelfile::modelfile(&file, &texts, tokenizer.as_ref());
    Ok((modelfile_path(output), made))
}
