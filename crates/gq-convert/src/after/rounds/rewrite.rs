//! New codes into a file, and whether a file was made from a checkpoint.

use super::{RoundAgainError, TensorAgain};
use crate::execute::Report;
use crate::provenance::adapters;
use gq_checkpoint::{Checkpoint, FileKind};
use gq_container::{Container, Provenance, RoundedAgain, StoredText, TextKind, Writer};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// New payloads, in a file until all are there: together they are as large as the output.
pub(super) struct Payloads {
    file: File,
    path: PathBuf,
    places: BTreeMap<String, (u64, usize)>,
    end: u64,
}

impl Payloads {
    pub(super) fn create(path: &Path) -> Result<Payloads, RoundAgainError> {
        let path = path.to_owned();
        match gq_files::begin(&path) {
            Ok(file) => Ok(Payloads { file, path, places: BTreeMap::new(), end: 0 }),
            Err(source) => Err(RoundAgainError::Io { path, source }),
        }
    }

    pub(super) fn add(&mut self, name: &str, payload: &[u8]) -> Result<(), RoundAgainError> {
        self.file.write_all(payload).map_err(|source| self.failed(source))?;
        self.places.insert(name.to_owned(), (self.end, payload.len()));
        self.end += payload.len() as u64;
        Ok(())
    }

    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, RoundAgainError> {
        let Some(&(offset, bytes)) = self.places.get(name) else { return Ok(None) };
        let (mut file, mut payload) = (&self.file, vec![0; bytes]);
        let read = file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut payload));
        read.map_err(|source| self.failed(source))?;
        Ok(Some(payload))
    }

    fn failed(&self, source: std::io::Error) -> RoundAgainError {
        RoundAgainError::Io { path: self.path.clone(), source }
    }
}

/// Writes `container` with the new payloads to `path`.
pub(super) fn write(
    container: &Container,
    payloads: &Payloads,
    tensors: &[TensorAgain],
    what: RoundedAgain,
    path: &Path,
) -> Result<(), RoundAgainError> {
    let mut writer = Writer::create_once(path)?;
    for entry in container.tensors() {
        let new = payloads.get(&entry.name)?;
        writer.write_tensor(entry.spec(), new.as_deref().unwrap_or_else(|| container.payload(entry)))?;
    }
    let mut texts = Vec::new();
    for kind in container.texts().iter().filter_map(|text| TextKind::from_code(text.kind)) {
        match (kind, container.text(kind)?) {
            (TextKind::Provenance, _) | (_, None) => {}
            (TextKind::Report, Some(text)) => texts.push(StoredText::new(kind, &report(&text, tensors)?)?),
            (_, Some(text)) => texts.push(StoredText::new(kind, &text)?),
        }
    }
    if let Some(provenance) = container.provenance()? {
        texts.push(Provenance { rounded_again: Some(what), ..provenance }.to_text()?);
    }
    writer.finish(texts)?;
    Ok(())
}

/// The report with what came of each tensor; one of another version stays as it is.
fn report(text: &str, tensors: &[TensorAgain]) -> Result<String, RoundAgainError> {
    let Ok(mut report) = serde_json::from_str::<Report>(text) else { return Ok(text.to_owned()) };
    for again in tensors {
        let Some(tensor) = report.tensors.iter_mut().find(|tensor| tensor.name == again.name) else {
            continue;
        };
        let (before, after) = again.held_out;
        let won = if again.taken { "new" } else { "old" };
        tensor.reason = format!(
            "{}; rounded again, {won} codes won: held out, old {before:.1e}, new {after:.1e} at strength {}",
            tensor.reason, again.strength
        );
        if again.taken {
            tensor.relative_mse = again.relative_mse;
            tensor.output_error = Some(again.in_sample);
            tensor.held_out_error = Some(after);
        }
    }
    Ok(serde_json::to_string(&report)?)
}

/// Whether `container` was made from `checkpoint`: the same tensors, and the same files by their digests.
///
/// # Errors
/// [`RoundAgainError::OtherSource`] with what differs first.
pub fn check_source(container: &Container, checkpoint: &Checkpoint) -> Result<(), RoundAgainError> {
    let differs = |what: String, limit: String, actual: String| {
        Err(RoundAgainError::OtherSource { what, limit, actual })
    };
    for entry in container.tensors() {
        let shape = checkpoint
            .tensor(&entry.name)
            .map(|tensor| tensor.shape.iter().map(|&n| n as u64).collect::<Vec<_>>());
        if shape.as_ref() != Some(&entry.shape) {
            let limit = shape.map_or_else(|| "no such tensor".to_owned(), |shape| format!("{shape:?}"));
            return differs(format!("tensor {:?}", entry.name), limit, format!("{:?}", entry.shape));
        }
    }
    let Some(provenance) = container.provenance()? else { return Ok(()) };
    let (limit, actual) = (adapters(checkpoint), &provenance.source.adapters);
    if limit != *actual {
        let names = |adapters: &[gq_container::SourceAdapter]| {
            adapters
                .iter()
                .map(|adapter| format!("{} x {}", adapter.name, adapter.weight))
                .collect::<Vec<_>>()
        };
        return differs(
            "adapters".to_owned(),
            format!("{:?}", names(&limit)),
            format!("{:?}", names(actual)),
        );
    }
    for file in
        checkpoint.files().iter().filter(|file| matches!(file.kind, FileKind::Weights | FileKind::Index))
    {
        let Some(stored) = provenance.source.files.iter().find(|stored| stored.name == file.name) else {
            return differs(file.name.clone(), "there".to_owned(), "not there".to_owned());
        };
        let digest = sha256(&file.path);
        let digest = digest.map_err(|source| RoundAgainError::Io { path: file.path.clone(), source })?;
        let actual = stored.sha256.to_string();
        if digest != actual {
            return differs(format!("sha256 of {}", file.name), digest, actual);
        }
    }
    Ok(())
}

fn sha256(path: &Path) -> std::io::Result<String> {
    let (mut file, mut hash) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}
