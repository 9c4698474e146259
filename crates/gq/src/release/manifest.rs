//! `release.json` and the manifests of tensors: the release for programs.

use gq_checkpoint::Checkpoint;
use gq_container::Container;
use gq_convert::Report;
use gq_eval::{EvalReport, Gate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `release.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always `gq-release`.
    pub format: String,
    /// Version of this file's form.
    pub version: u32,
    /// Beginning of the files' names.
    pub name: String,
    /// Everything that the release's bytes depend on.
    pub inputs: Value,
    /// The model before.
    pub original: Original,
    /// The sizes, in the recipe's order.
    pub variants: Vec<Entry>,
    /// Whether every size keeps its limits.
    pub passed: bool,
}

/// The model that was quantized.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Original {
    /// Bytes of its weight files.
    pub bytes: u64,
    /// Bits of those over all weights.
    pub bits: f64,
    /// Its perplexity on the text.
    pub ppl: Option<f64>,
}

/// One size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Name of the size.
    pub name: String,
    /// Its file.
    pub file: String,
    /// Manifest of its tensors.
    pub tensors: String,
    /// Its evaluation.
    pub evaluation: String,
    /// Length of the file.
    pub bytes: u64,
    /// Digest of the file.
    pub sha256: String,
    /// Digest of the tensors alone.
    pub payload_sha256: String,
    /// Bits of the file over all weights.
    pub bits: f64,
    /// Bits of the body over its weights.
    pub body_bits: f64,
    /// Squared rounding error over squared norm, all weights.
    pub relative_mse: f64,
    /// Perplexity.
    pub ppl: Option<f64>,
    /// Perplexity over the original's.
    pub ppl_ratio: Option<f64>,
    /// Mean KL divergence from the original, in nats.
    pub kld: f64,
    /// Its standard error.
    pub kld_stderr: f64,
    /// KL divergence that one position in a hundred exceeds.
    pub kld_p99: f64,
    /// Share of positions with the same likeliest token.
    pub top1: f64,
    /// Limits, and whether they are kept.
    pub gates: Vec<Checked>,
}

/// A limit that was checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The figure.
    pub name: String,
    /// Its limit.
    pub limit: f64,
    /// Its value; `None` where it was not measured.
    pub actual: Option<f64>,
    /// Whether the limit is kept.
    pub passed: bool,
}

/// Files of a size.
#[derive(Clone, Debug)]
pub struct Names {
    /// The model.
    pub file: String,
    /// Manifest of its tensors.
    pub tensors: String,
    /// Its evaluation.
    pub evaluation: String,
}

impl Names {
    /// Those of the size `variant` of the release `name`.
    pub fn new(name: &str, variant: &str) -> Names {
        let stem = format!("{name}-{variant}");
        Names {
            file: format!("{stem}.gq"),
            tensors: format!("{stem}.tensors.json"),
            evaluation: format!("{stem}.eval.json"),
        }
    }
}

/// Checks limits against an evaluation.
pub fn check(gates: &[Gate], report: &EvalReport) -> Vec<Checked> {
    let checked = |gate: &Gate| Checked {
        name: gate.name.clone(),
        limit: gate.limit,
        actual: gate.actual(report),
        passed: gate.passes(report),
    };
    gates.iter().map(checked).collect()
}

impl Entry {
    /// What is known about a size.
    pub fn new(
        variant: &str,
        names: &Names,
        container: &Container,
        sha256: String,
        report: &Report,
        measured: &EvalReport,
        gates: &[Gate],
    ) -> Entry {
        Entry {
            name: variant.to_owned(),
            file: names.file.clone(),
            tensors: names.tensors.clone(),
            evaluation: names.evaluation.clone(),
            bytes: container.file_bytes(),
            sha256,
            payload_sha256: container.payload_sha256().to_string(),
            bits: measured.bpw.file,
            body_bits: measured.bpw.body,
            relative_mse: report.relative_mse,
            ppl: measured.ppl.map(|ppl| ppl.model),
            ppl_ratio: measured.ln_ratio.map(|ln| ln.value.exp()),
            kld: measured.kld.mean,
            kld_stderr: measured.kld.stderr,
            kld_p99: measured.kld.p99,
            top1: measured.top1,
            gates: check(gates, measured),
        }
    }
}

/// The manifest of a file's tensors.
pub fn tensors(container: &Container, report: &Report) -> Value {
    let row = |entry: &gq_container::TensorEntry| {
        let told = report.tensors.iter().find(|told| told.name == entry.name);
        serde_json::json!({
            "name": entry.name,
            "shape": entry.shape,
            "source_dtype": entry.source_dtype,
            "encoding": entry.encoding,
            "offset": entry.offset,
            "bytes": entry.bytes,
            "sha256": entry.sha256.to_string(),
            "role": told.map(|told| told.role.clone()),
            "relative_mse": told.map(|told| told.relative_mse),
            "reason": told.map(|told| told.reason.clone()),
        })
    };
    let dropped = report.dropped.iter().map(|dropped| {
        serde_json::json!({ "name": dropped.tensor, "source_bytes": dropped.source_bytes, "reason": dropped.reason })
    });
    serde_json::json!({
        "payload_sha256": container.payload_sha256().to_string(),
        "tensors": container.tensors().iter().map(row).collect::<Vec<_>>(),
        "left_out": dropped.collect::<Vec<_>>(),
    })
}

/// Files of the source with their digests.
pub fn source_files(
    checkpoint: &Checkpoint,
    mut progress: impl FnMut(u64),
) -> Result<Vec<Value>, gq_checkpoint::ReadError> {
    let file = |file: &gq_checkpoint::SourceFile| {
        let sha256 = file.sha256(&mut progress)?;
        Ok(serde_json::json!({ "name": file.name, "bytes": file.bytes, "sha256": sha256 }))
    };
    // An adapter's file that tables are read from is among the adapters.
    let own = checkpoint.files().iter().filter(|file| file.kind != gq_checkpoint::FileKind::Adapter);
    own.map(file).collect()
}
