//! Checking a release: digests, files that are missing or too many, manifests, evaluations and limits.

use super::manifest::{Manifest, check, tensors};
use super::{CARD, MANIFEST, PAGE};
use crate::failure::{Exit, Failure};
use crate::global::Global;
use crate::progress::Progress;
use crate::sums::{self, SUMS};
use crate::{expected, seen, texts};
use gq_container::{Container, TextKind};
use gq_convert::Report;
use gq_eval::{EvalReport, Gate};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// What was checked.
pub struct Verified {
    /// The release's manifest.
    pub manifest: Manifest,
    /// Files whose digests are right.
    pub files: usize,
    /// Tensors whose digests are right.
    pub tensors: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// Whether a folder is a release.
pub fn is_release(dir: &Path) -> bool {
    dir.join(SUMS).is_file() && dir.join(MANIFEST).is_file()
}

/// Checks everything; the network is not used.
pub fn verify(dir: &Path, global: &Global) -> Result<Verified, Failure> {
    let path = dir.join(SUMS);
    let text = std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
    let listed = sums::parse(&text).ok_or_else(|| {
        damaged("verify.sums", SUMS, "its lines are not those of sha256sum").limit("DIGEST  FILE")
    })?;
    let names: BTreeSet<&str> = listed.iter().map(|(name, _)| name.as_str()).collect();
    if let Some(name) = sums::list(dir)?.iter().find(|name| !names.contains(name.as_str())) {
        return Err(damaged("verify.unlisted", name, &format!("it is not in {SUMS}")));
    }
    for needed in [MANIFEST, CARD, PAGE] {
        if !names.contains(needed) {
            return Err(damaged("verify.unlisted", needed, &format!("it is not in {SUMS}")));
        }
    }
    let bytes_of = |name: &str| std::fs::metadata(dir.join(name)).map(|found| found.len());
    let mut total = 0;
    for (name, _) in &listed {
        total += bytes_of(name).map_err(|_| damaged("verify.missing", name, "it is missing"))?;
    }
    let mut progress = Progress::staged(global, "verify", vec![expected::digesting(2 * total)]);
    let mut done = 0;
    for (name, expected) in &listed {
        let (actual, _) = sums::sha256(&dir.join(name), |bytes| {
            done += bytes;
            progress.set(done, name);
        })?;
        if actual != *expected {
            let message = format!("its sha256 is {actual}, {SUMS} says {expected}");
            return Err(damaged("verify.damaged", name, &message).limit(expected).actual(actual));
        }
    }
    let manifest: Manifest = read(dir, MANIFEST)?;
    let mut verified = Verified { manifest, files: listed.len(), tensors: 0, bytes: total };
    let sum_of =
        |name: &str| listed.iter().find(|(listed, _)| listed == name).map(|(_, sha256)| sha256.as_str());
    for entry in &verified.manifest.variants {
        let wrong =
            |what: &str| damaged("verify.manifest", &entry.file, &format!("{MANIFEST} has another {what}"));
        if sum_of(&entry.file) != Some(entry.sha256.as_str()) {
            return Err(wrong("sha256"));
        }
        let container = Container::open(&dir.join(&entry.file))?;
        container.verify(|tensor, bytes| {
            done += bytes;
            progress.set(done, &tensor.name);
        })?;
        let texts = texts::of_container(&container)?;
        texts::or_refuse(texts::read_all(&texts), Exit::Check, "verify.text", &entry.file)?;
        seen::finite(&container, Exit::Check, "verify.not_finite")?;
        if container.file_bytes() != entry.bytes
            || container.payload_sha256().to_string() != entry.payload_sha256
        {
            return Err(wrong("size or payload digest"));
        }
        let report = report_of(&container)?;
        let noted: Value = read(dir, &entry.tensors)?;
        if noted != round_trip(&tensors(&container, &report))? {
            return Err(damaged(
                "verify.manifest",
                &entry.tensors,
                &format!("it does not describe {}", entry.file),
            ));
        }
        let measured: EvalReport = read(dir, &entry.evaluation)?;
        if (measured.kld.mean, measured.top1, measured.bytes.file) != (entry.kld, entry.top1, entry.bytes) {
            return Err(wrong("evaluation"));
        }
        let gates: Vec<Gate> =
            entry.gates.iter().map(|gate| Gate { name: gate.name.clone(), limit: gate.limit }).collect();
        if check(&gates, &measured) != entry.gates {
            return Err(wrong("outcome of a limit"));
        }
        verified.tensors += container.tensors().len();
    }
    let kept = verified.manifest.variants.iter().flat_map(|entry| &entry.gates).all(|gate| gate.passed);
    if kept != verified.manifest.passed {
        return Err(damaged("verify.manifest", MANIFEST, "its outcome is not that of its limits"));
    }
    progress.finish();
    Ok(verified)
}

/// The report that a conversion left in its file.
pub fn report_of(container: &Container) -> Result<Report, Failure> {
    let name = container.path().display().to_string();
    let text = container.text(TextKind::Report)?;
    let report = text.and_then(|text| serde_json::from_str(&text).ok());
    report.ok_or_else(|| damaged("verify.manifest", &name, "there is no conversion report in it"))
}

/// What a value is after it has been written down and read.
pub fn round_trip(value: &Value) -> Result<Value, Failure> {
    serde_json::from_str(&value.to_string()).map_err(|e| Failure::internal("json", &e))
}

fn read<T: serde::de::DeserializeOwned>(dir: &Path, name: &str) -> Result<T, Failure> {
    let path = dir.join(name);
    let text = std::fs::read_to_string(&path).map_err(|e| Failure::io(&path, &e))?;
    serde_json::from_str(&text).map_err(|e| damaged("verify.manifest", name, &e.to_string()))
}

fn damaged(code: &'static str, name: &str, what: &str) -> Failure {
    Failure::new(Exit::Check, code, format!("{name}: {what}")).at(name)
}
