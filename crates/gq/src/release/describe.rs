//! Writes what follows from a release's files and evaluations: manifest, page, card, checksums.

use crate::failure::Failure;
use crate::release::job::Job;
use crate::release::job::file_name;
use crate::release::manifest::{Entry, Manifest, Names, Original, tensors};
use crate::release::verify::report_of;
use crate::release::{CARD, MANIFEST, PAGE, card};
use crate::source;
use crate::sums::{self, SUMS};
use gq_checkpoint::FileKind;
use gq_container::Container;
use gq_convert::Report;
use gq_eval::html::{TensorErrors, render_with_tensors};
use gq_eval::{EvalReport, checkpoint_sizes};
use gq_text::ModelTexts;
use std::path::Path;

pub fn pretty(value: &impl serde::Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::internal("json", &e))?;
    Ok(text + "\n")
}

/// Writes everything that follows from the files and evaluations; the checksums last.
pub fn describe(job: &Job<'_>, dir: &Path) -> Result<Manifest, Failure> {
    let (mut entries, mut reports, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    for variant in &job.recipe.variants {
        let names = Names::new(&job.name, &variant.name);
        let path = dir.join(&names.evaluation);
        let text = std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
        let measured: EvalReport =
            serde_json::from_str(&text).map_err(|e| Failure::internal("report", &e))?;
        let container = Container::open(&dir.join(&names.file))?;
        let report: Report = report_of(&container)?;
        sums::write_whole(&dir.join(&names.tensors), &pretty(&tensors(&container, &report))?)?;
        let (sha256, _) = sums::sha256(&dir.join(&names.file), |_| {})?;
        entries.push(Entry::new(
            &variant.name,
            &names,
            &container,
            sha256,
            &report,
            &measured,
            &variant.gates,
        ));
        let relative_mse = report.tensors.iter().map(|tensor| tensor.relative_mse).collect();
        errors.push(TensorErrors { model: names.file, relative_mse });
        reports.push(measured);
    }
    let sizes = checkpoint_sizes(&job.checkpoint);
    let manifest = Manifest {
        format: "gq-release".to_owned(),
        version: 1,
        name: job.name.clone(),
        inputs: job.inputs.clone(),
        original: Original {
            bytes: sizes.file_bytes,
            bits: 8.0 * sizes.file_bytes as f64 / sizes.weights.max(1) as f64,
            ppl: reports.first().and_then(|report| report.ppl).map(|ppl| ppl.reference),
        },
        passed: entries.iter().flat_map(|entry| &entry.gates).all(|gate| gate.passed),
        variants: entries,
    };
    let licences = licences(job, dir)?;
    sums::write_whole(&dir.join(MANIFEST), &pretty(&manifest)?)?;
    sums::write_whole(&dir.join(PAGE), &render_with_tensors(&reports, &errors))?;
    sums::write_whole(&dir.join(CARD), &model_card(job, &manifest, &reports, &licences)?)?;
    let own: Vec<String> = job
        .recipe
        .variants
        .iter()
        .map(|v| Names::new(&job.name, &v.name))
        .flat_map(|names| [names.file, names.tensors, names.evaluation])
        .collect();
    let mut names = [&own[..], &licences, &[MANIFEST, PAGE, CARD].map(str::to_owned)].concat();
    names.sort();
    let mut lines = Vec::new();
    for name in names {
        let (sha256, _) = sums::sha256(&dir.join(&name), |_| {})?;
        lines.push((name, sha256));
    }
    sums::write_whole(&dir.join(SUMS), &sums::render(&lines))?;
    Ok(manifest)
}

/// Copies the licence files of the source; gives their names.
fn licences(job: &Job<'_>, dir: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for licence in job.checkpoint.texts()?.licences {
        sums::write_whole(&dir.join(&licence.name), &licence.text)?;
        names.push(licence.name);
    }
    Ok(names)
}

fn model_card(
    job: &Job<'_>,
    manifest: &Manifest,
    reports: &[EvalReport],
    licences: &[String],
) -> Result<String, Failure> {
    let weights = job.checkpoint.files().iter().filter(|file| file.kind == FileKind::Weights);
    let sha256 = |name: &str| {
        let files = job.inputs["source"].as_array().into_iter().flatten();
        files.filter(|file| file["name"] == name).find_map(|file| file["sha256"].as_str()).unwrap_or_default()
    };
    let source: Vec<_> = weights.map(|file| (file.name.clone(), sha256(&file.name).to_owned())).collect();
    let adapters = job.checkpoint.adapters().iter();
    let adapters: Vec<_> = adapters.map(|adapter| (adapter.name().to_owned(), adapter.weight())).collect();
    let texts = ModelTexts::from_checkpoint(&job.checkpoint)?;
    let tokenizer = source::try_tokenizer(&texts, job.checkpoint.spec())?;
    let lossless = reports.iter().all(|report| report.kld.mean == 0.0);
    let facts = card::Facts {
        base_model: &job.base_model,
        repo: job.recipe.repo.as_deref(),
        fields: &job.recipe.card,
        license: &job.license,
        // What is stored without loss needs no measurements.
        calibrated: job.measurements.is_some() || lossless,
        text: &file_name(&job.recipe.evaluation.text),
        text_sha256: job.inputs["text"]["sha256"].as_str().unwrap_or_default(),
        chat: texts.chat_template.is_some(),
        composes: tokenizer.is_some_and(|tokenizer| tokenizer.composes()),
        adapters: &adapters,
        source: &source,
        licences,
        tool: concat!("gq ", env!("CARGO_PKG_VERSION")),
    };
    card::render(manifest, reports, &facts)
}
